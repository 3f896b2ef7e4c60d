"""The settings of a first run, as a file with comments: three answers, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from weber.config.edits import write_setting
from weber.config.load import build_config
from weber.config.toml import read_toml, write_value
from weber.data.captions import CAPTION_SUFFIXES
from weber.data.formats import SUFFIXES
from weber.errors import ConfigError

CAPTIONS = {"textfile": "lie beside the pictures", "instance": "are the word alone", "filename": "are the names of the files"}
SMALL = "pocket"
"""The model that learns on a processor."""
_MOST_NAMES = 100_000


@dataclass(frozen=True)
class Draft:
    """What a person has said: `word` may be empty where there are captions; `fit`: the card that will train, `auto` for the one that is
    here, empty where there is none."""

    pictures: Path
    word: str
    captions: str
    model: str
    fit: str


def find_captions(folder: Path) -> str:
    """Which captions the pictures of a folder have. Raises ConfigError where there is no picture."""
    if not folder.is_dir():
        raise ConfigError("There is no such folder.", got=str(folder), fix="name a folder with pictures, or drop them here")
    names: set[str] = set()
    for number, path in enumerate(folder.rglob("*")):
        if number > _MOST_NAMES:
            break
        names.add(path.name.lower())
    pictures = [name for name in names if name.endswith(tuple(SUFFIXES))]
    if not pictures:
        raise ConfigError("There are no pictures in this folder.", got=str(folder), expected="such as cat.png", fix="name another one")
    stems = {name.rpartition(".")[0] for name in pictures}
    has_texts = any(name.endswith(tuple(CAPTION_SUFFIXES)) and name.rpartition(".")[0] in stems for name in names)
    return "textfile" if has_texts else "instance"


def write_draft(draft: Draft, *, run: Path, cache: Path) -> str:
    """The text of the file. Raises ConfigError for answers that do not fit together."""
    if draft.captions not in CAPTIONS:
        raise ConfigError("There are no such captions.", got=ascii(draft.captions[:40]), expected=", ".join(CAPTIONS), fix="choose one")
    if draft.captions == "instance" and not draft.word:
        raise ConfigError("Pictures without captions need a word.", got="no word", fix='write one that nobody uses, such as "zorb"')
    lines = ["# Written by `weber serve`. Every setting is in docs/config.md; what is left out has its default.", ""]
    if draft.model:
        is_variant = "/" not in draft.model and "\\" not in draft.model and not draft.model.endswith(".safetensors")
        lines += ["[model]", f"{'variant' if is_variant else 'path'} = {write_value(draft.model)}", ""]
    lines += ["[[data]]", f"path = {write_value(str(draft.pictures))}"]
    if draft.captions == "instance":
        lines += ['captions = "instance"  # one text for all pictures', f"instance_prompt = {write_value(draft.word)}"]
    else:
        lines.append(f"captions = {write_value(draft.captions)}")
    if draft.model == SMALL:
        lines.append("resolution = 64  # of the small model")
    if draft.captions != "instance" and draft.word:
        lines += ["", "[[data.caption_steps]]", 'kind = "trigger"  # the word, where a caption lacks it']
        lines.append(f"text = {write_value(draft.word)}")
    lines += ["", "[output]", f"folder = {write_value(str(run))}", f"cache = {write_value(str(cache))}"]
    if draft.fit:
        fit = write_value(draft.fit)
        lines += ["", "[memory]", f"fit = {fit}  # what is left out here is chosen so that it fits the card, the fastest first"]
    lines += ["", "[train]", f"steps = {200 if draft.model == SMALL else 1500}"]
    prompt = f"a picture of {draft.word}" if draft.word else "a dog"
    lines += ["", "[sampling]", f"prompts = [{write_value(prompt)}]", f"every = {100 if draft.model == SMALL else 250}"]
    return "\n".join([*lines, ""])


def change_draft(text: str, said: Mapping[str, object]) -> str:
    """The text with other values at these keys; comments stay. None leaves a key out. Raises ConfigError for values that cannot be."""
    for key, value in said.items():
        text = write_setting(text, key, value)
    return text


def check_draft(file: Path) -> None:
    """Raise ConfigError where the settings of a file cannot be, with all that is wrong."""
    build_config(read_toml(file))


def find_free(folder: Path, name: str, *, ending: str = "") -> Path:
    """A file or folder that is not there yet: name, name-2, name-3, ..."""
    number = 1
    while (place := folder / f"{name}{'' if number == 1 else f'-{number}'}{ending}").exists():
        number += 1
    return place
