"""A library of prompts: a file of nicknames, each with a prompt and, where it has some, settings of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from weber.config.near import find_near
from weber.config.resolutions import PictureSize
from weber.config.section import Section
from weber.config.several import refuse_beside, refuse_twice
from weber.config.toml import read_toml
from weber.errors import ConfigError

_FORBIDDEN = '<>:"/\\|?*%'
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_MOST_LETTERS = 80
_EXAMPLE = '"cat" = "a cat", or "cat" = {prompt = "a cat", seed = 7}'
_FORMS = {".json": '{"cat": "a cat", "dog": {"prompt": "a dog", "seed": 7}}', ".toml": _EXAMPLE}


class LibraryPrompt(Section):
    """A prompt with settings of its own; what is left out is as for all other pictures."""

    prompt: str
    """What is painted."""

    negative_prompt: str | None = None
    """What classifier-free guidance leads away from."""

    seed: Annotated[int, Field(ge=0, lt=2**62)] | None = None
    """Seed of its noise."""

    seeds: list[Annotated[int, Field(ge=0, lt=2**62)]] = []
    """Several seeds: a picture with each."""

    width: Annotated[int, Field(ge=16)] | None = None
    """Width in pixels."""

    height: Annotated[int, Field(ge=16)] | None = None
    """Height in pixels."""

    sizes: list[PictureSize] = []
    """Several sizes: a picture in each."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Sampling steps."""

    guidance: Annotated[float, Field(ge=0)] | None = None
    """Guidance, for models that have that input."""

    cfg: Annotated[float, Field(ge=1)] | None = None
    """Scale of classifier-free guidance; 1 is off."""

    strength: float | None = None
    """Strength of what is trained: 1 is as trained, 0 is the base model."""

    @field_validator("seeds", "sizes")
    @classmethod
    def _refuse_twice(cls, value: list[Any]) -> list[Any]:
        return refuse_twice(value)

    @model_validator(mode="after")
    def _refuse_both(self) -> LibraryPrompt:
        refuse_beside("sizes", self.sizes, single={"width": self.width, "height": self.height})
        refuse_beside("seeds", self.seeds, single={"seed": self.seed})
        return self


def read_library(path: Path, *, key: str) -> dict[str, LibraryPrompt]:
    """The prompts of a library by their nicknames, in the order of the file. `key`: what a person calls it. Raises ConfigError."""
    path = path.expanduser()
    if path.suffix.lower() not in _FORMS:
        raise ConfigError(
            "A library of prompts is a JSON or a TOML file.", got=f"{key} = {str(path)!r}", fix="name a file that ends in .json or .toml"
        )
    tree = _read_json(path, key) if path.suffix.lower() == ".json" else read_toml(path)
    if not tree:
        raise ConfigError(
            "The library of prompts is empty.", got=f"{key} = {str(path)!r}", expected=_FORMS[path.suffix.lower()], fix="write a prompt"
        )
    read: dict[str, LibraryPrompt] = {}
    for name, value in tree.items():
        _check_name(name, path)
        twin = next((one for one in read if one.lower() == name.lower()), None)
        if twin is not None:
            raise ConfigError(
                "Two nicknames would be one file where the case of letters does not count.",
                got=f"{twin!r} and {name!r} in {path}",
                fix="rename one of them",
            )
        read[name] = _read_prompt(name, value, path)
    return read


def read_lines(path: Path, *, key: str) -> list[str]:
    """The prompts of a text file, one a line, without empty lines. `key`: what a person calls it. Raises ConfigError."""
    path = path.expanduser()
    if path.suffix.lower() in _FORMS:
        raise ConfigError("A file of prompts is a text, one prompt a line.", got=f"{key} = {str(path)!r}", fix="use a library of prompts")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(
            "The file of prompts cannot be read.",
            got=f"{key} = {str(path)!r}: {error}",
            expected="a text in UTF-8, one prompt a line",
            fix="check the path; it is relative to the folder you are in",
        ) from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ConfigError("The file of prompts is empty.", got=f"{key} = {str(path)!r}", fix="write a prompt on each line")
    return prompts


def _read_json(path: Path, key: str) -> dict[str, object]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=lambda pairs: _refuse_twins(pairs, path))
    except OSError as error:
        raise ConfigError(
            "The library of prompts cannot be read.",
            got=f"{key} = {str(path)!r}: {error.strerror or error}",
            fix="check the path; it is relative to the folder you are in",
        ) from error
    except ValueError as error:
        raise ConfigError(
            "The library of prompts is not JSON in UTF-8.", got=f"{path}: {error}", expected=_FORMS[".json"], fix="correct the file"
        ) from error
    if not isinstance(tree, dict):
        raise ConfigError(
            "The library of prompts has no nicknames.",
            got=f"{path} with {json.dumps(tree)[:60]}",
            expected=_FORMS[".json"],
            fix="give each prompt a nickname",
        )
    return tree


def _refuse_twins(pairs: list[tuple[str, object]], path: Path) -> dict[str, object]:
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError("A key is there twice in the library of prompts.", got=f"{twice!r} in {path}", fix="rename or remove one of them")
    return dict(pairs)


def _check_name(name: str, path: Path) -> None:
    signs = sorted({one for one in name if one in _FORBIDDEN or ord(one) < 32})
    if not name or signs or name != name.strip(". ") or _RESERVED.fullmatch(name) or len(name.encode()) > _MOST_LETTERS:
        reason = f" with {' '.join(map(repr, signs))}" if signs else ""
        raise ConfigError(
            "A nickname is the name of a file, which this one cannot be.",
            got=f"{name!r}{reason} in {path}",
            expected=f"letters, digits, - and _, up to {_MOST_LETTERS} of them",
            fix="rename it, such as red-apple",
        )


def _read_prompt(name: str, value: object, path: Path) -> LibraryPrompt:
    where = f"the prompt {name!r} of {path}"
    if not isinstance(value, str | Mapping):
        raise ConfigError(
            "A prompt of a library is a text, or a table with one.",
            got=f"{value!r} for {where}",
            expected=_EXAMPLE,
            fix="write one of these",
        )
    table: dict[str, Any] = {"prompt": value} if isinstance(value, str) else dict(value)
    try:
        return LibraryPrompt.model_validate(table)
    except ValidationError as error:
        raise _explain(error, where) from error


def _explain(error: ValidationError, where: str) -> ConfigError:
    """What is wrong first, in words."""
    first, names = error.errors(include_url=False)[0], list(LibraryPrompt.model_fields)
    if not first["loc"]:
        return ConfigError("Two settings of a prompt in a library exclude each other.", got=where, fix=str(first["ctx"]["error"]))
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        near = find_near(key, names)
        return ConfigError(
            f"{key} is no setting of a prompt in a library.",
            got=f"{key} = {first['input']!r} in {where}",
            expected=", ".join(names),
            fix=f"did you mean {near}?" if near else "remove it",
        )
    if first["type"] == "missing":
        return ConfigError("A prompt of a library lacks its text.", got=where, expected=_EXAMPLE, fix='add prompt = "..."')
    reason = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    return ConfigError(
        f"{key} of a prompt in a library cannot be this.", got=f"{key} = {first['input']!r} in {where}", expected=reason, fix="correct it"
    )
