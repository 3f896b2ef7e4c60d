"""Captions as kohya's scripts make them: where they are, and what becomes of them, as `captions` and `caption_steps` of a set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weber.config.importers.answers import Call, Table, refused, translated
from weber.config.importers.draft import NO_EFFECT, Draft, Keys
from weber.config.importers.tool import find_file
from weber.config.importers.values import read_float, read_int
from weber.errors import ConfigError

STEP = dict[str, Any]

_FIRST_LINE = r"(?s)\n.*"
_RAW = (
    "no effect: with cached text encoder outputs the scripts encode the caption as it stands in the file;"
    " to have it here, write it under [[data.caption_steps]]"
)
_DRAWS = ("shuffle_caption", "caption_tag_dropout_rate")


def _read_rate(keys: Keys, name: str) -> float:
    return keys.read_float(name) or 0.0


def draws(keys: Keys) -> bool:
    """Whether tags are put in another order, or left out: only then are captions cut into tags at all."""
    return keys.read_bool("shuffle_caption") or _read_rate(keys, "caption_tag_dropout_rate") > 0


def is_raw(keys: Keys) -> bool:
    """Whether captions are encoded as they stand in their files. With what changes in every step the scripts would not have cached them."""
    return bool(keys["run.is_cached"]) and not draws(keys) and not _read_rate(keys, "caption_dropout_rate")


def _put_captions(draft: Draft, keys: Keys, value: Any) -> str:
    """`caption_extension`: the file, of which the first line counts."""
    place, ending = f"data.{keys.set_number}", str(value).strip()
    if "metadata_file" in keys:
        return NO_EFFECT + "captions are those of metadata_file"
    ending = ending if ending.startswith(".") else f".{ending}"
    lines = [draft.set(f"{place}.caption_endings", [ending], origin=keys.find("caption_extension"))]
    if keys["run.is_parent"]:
        lines.append(draft.set(f"{place}.captions", ["textfile", "foldername"], origin="the name of the folder, where there is no file"))
    elif not keys["class_tokens"] and not draft.weber_defaults:
        lines.append(draft.set(f"{place}.captions", ["textfile", "none"], origin="without a file the caption is empty there"))
    if not draft.weber_defaults and (is_raw(keys) or not keys.read_bool("enable_wildcard")):
        lines.append(draft.set(f"{place}.caption_per", "file", origin="a file is one caption there"))
    place_steps(draft, keys)
    return "; ".join(lines)


def _put_class(draft: Draft, keys: Keys, value: Any) -> str:
    """`class_tokens`: the caption of pictures without a file."""
    if "metadata_file" in keys:
        return NO_EFFECT + "captions are those of metadata_file"
    if keys["run.is_parent"]:
        return NO_EFFECT + "the name of the folder counts"
    line = draft.set(f"data.{keys.set_number}.caption_fallback", str(value), origin=keys.find("class_tokens"))
    return f"{line}, where there is no caption file"


def list_steps(keys: Keys, *, weber_defaults: bool) -> list[tuple[str, STEP]]:
    """What becomes of a caption, in order, each with the option that it comes from."""
    steps: list[tuple[str, STEP]] = []
    is_file = "metadata_file" not in keys
    if is_file and not weber_defaults and not keys.read_bool("enable_wildcard"):
        steps.append(("caption_extension", {"kind": "regex", "find": _FIRST_LINE}))
    if is_raw(keys):
        return steps
    for name, kind in (("caption_prefix", "prefix"), ("caption_suffix", "suffix")):
        if keys[name]:
            steps.append((name, {"kind": kind, "text": str(keys[name])}))
    if keys.read_bool("enable_wildcard"):
        steps.append(("enable_wildcard", {"kind": "wildcards"}))
    kept: STEP = {}
    if keys["keep_tokens_separator"]:
        kept["keep_separator"] = str(keys["keep_tokens_separator"])
    if keys["keep_tokens"] and read_int(keys["keep_tokens"], name="keep_tokens") > 0:
        kept["keep"] = read_int(keys["keep_tokens"], name="keep_tokens")
    if keys["caption_separator"] not in (None, "", ","):
        kept["separator"] = str(keys["caption_separator"])
    if keys.read_bool("shuffle_caption"):
        steps.append(("shuffle_caption", {"kind": "shuffle", **kept}))
    if _read_rate(keys, "caption_tag_dropout_rate") > 0:
        steps.append(("caption_tag_dropout_rate", {"kind": "drop", "rate": _read_rate(keys, "caption_tag_dropout_rate"), **kept}))
    if keys["secondary_separator"]:
        step = {"kind": "replace", "find": str(keys["secondary_separator"]), "replace_with": str(keys["caption_separator"] or ",")}
        steps.append(("secondary_separator", step))
    return steps


def place_steps(draft: Draft, keys: Keys) -> list[tuple[str, STEP]]:
    """The steps, put into the draft once."""
    place, steps = f"data.{keys.set_number}.caption_steps", list_steps(keys, weber_defaults=draft.weber_defaults)
    if draft.get(place) is None:
        for number, (name, step) in enumerate(steps):
            origin: Any = "the first line of a file counts there" if name == "caption_extension" else keys.find(name)
            for key, worth in step.items():
                draft.set(f"{place}.{number}.{key}", worth, origin=origin)
    return steps


def put_step(name: str) -> Call:
    """An option that makes a step."""

    def put(draft: Draft, keys: Keys, value: Any) -> str:
        steps = place_steps(draft, keys)
        if value in (False, 0, "") or str(value).lower() in ("false", "0", "0.0"):
            return NO_EFFECT + "asks for nothing, here as there"
        if is_raw(keys):
            return _RAW
        found = [(number, step) for number, (origin, step) in enumerate(steps) if origin == name]
        line = "; ".join(f"data.{keys.set_number}.caption_steps.{number}: {json.dumps(step)}" for number, step in found)
        if keys["run.is_cached"] and name in _DRAWS:
            line += "; the scripts stop at it with cached text encoder outputs, and weber keeps several texts of each caption"
        return line or NO_EFFECT + "asks for nothing, here as there"

    return put


def put_kept(name: str) -> Call:
    """An option of other steps: how tags are told, and which stay in their places."""

    def put(draft: Draft, keys: Keys, value: Any) -> str:
        place_steps(draft, keys)
        if value in (0, "", ",") or str(value) == "0":
            return NO_EFFECT + "asks for nothing, here as there"
        if draws(keys):
            return f"{name} of the steps that move tags or leave them out"
        return NO_EFFECT + "is read with shuffle_caption or caption_tag_dropout_rate alone"

    return put


def _put_dropout(draft: Draft, keys: Keys, value: Any) -> str:
    """`caption_dropout_rate`."""
    rate = read_float(value, name="caption_dropout_rate")
    if rate <= 0:
        return NO_EFFECT + "asks for nothing, here as there"
    line = draft.set(f"data.{keys.set_number}.caption_dropout", rate, origin=keys.find("caption_dropout_rate"))
    return line + ("; the scripts stop at it with cached text encoder outputs" if keys["run.is_cached"] else "")


def _put_dropout_epochs(draft: Draft, keys: Keys, value: Any) -> str:
    """`caption_dropout_every_n_epochs`: as often, but not in whole epochs."""
    every = read_int(value, name="caption_dropout_every_n_epochs")
    if every <= 0:
        return NO_EFFECT + "asks for nothing, here as there"
    if is_raw(keys):
        return _RAW
    rate = 1 - (1 - 1 / every) * (1 - _read_rate(keys, "caption_dropout_rate"))
    line = draft.set(f"data.{keys.set_number}.caption_dropout", float(f"{rate:.6g}"), origin=keys.find("caption_dropout_every_n_epochs"))
    return f"{line}: as often, spread over all epochs"


def put_metadata_captions(draft: Draft, keys: Keys, *, name: str) -> str:
    """Columns of a metadata file: JSON Lines name pictures in `image_path`, JSON by its keys. Returns what else is to be said."""
    place, origin, lines = f"data.{keys.set_number}", keys.find("metadata_file"), list[str]()
    if name.lower().endswith(".jsonl"):
        lines.append(draft.set(f"{place}.image_column", "image_path", origin=origin))
    columns = _list_columns(find_file(name, beside=Path(str(keys["run.beside"]))))
    if "tags" in columns and "caption" not in columns:
        lines.append(draft.set(f"{place}.caption_column", "tags", origin=origin))
    elif "tags" in columns:
        lines.append("tags are put behind the caption there, and are not read here: `weber metadata build --join` puts them in")
    place_steps(draft, keys)
    return "".join(f"; {line}" for line in lines)


def _list_columns(path: Path | None) -> set[str]:
    """What the file says of pictures. Raises ConfigError for one that is broken."""
    if path is None:
        return set()
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = [json.loads(line) for line in text.splitlines() if line.strip()] if path.suffix.lower() == ".jsonl" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no metadata file.", got=str(error), expected="JSON or JSON Lines", fix="make it again") from error
    entries = list(rows.values()) if isinstance(rows, Mapping) else rows
    return {key for entry in entries if isinstance(entry, Mapping) for key, value in entry.items() if value}


CAPTIONS: Table = {
    "caption_extension": translated(_put_captions, "data.N.caption_endings; the first line of a file is its caption"),
    "class_tokens": translated(_put_class, "data.N.caption_fallback"),
    "shuffle_caption": translated(put_step("shuffle_caption"), 'data.N.caption_steps: kind = "shuffle"'),
    "caption_tag_dropout_rate": translated(put_step("caption_tag_dropout_rate"), 'data.N.caption_steps: kind = "drop"'),
    "caption_prefix": translated(put_step("caption_prefix"), 'data.N.caption_steps: kind = "prefix"'),
    "caption_suffix": translated(put_step("caption_suffix"), 'data.N.caption_steps: kind = "suffix"'),
    "enable_wildcard": translated(put_step("enable_wildcard"), 'data.N.caption_steps: kind = "wildcards", and a drawn line of the file'),
    "secondary_separator": translated(put_step("secondary_separator"), 'data.N.caption_steps: kind = "replace"'),
    "keep_tokens": translated(put_kept("keep"), "keep of the steps that move tags or leave them out"),
    "keep_tokens_separator": translated(put_kept("keep_separator"), "keep_separator of the same steps"),
    "caption_separator": translated(put_kept("separator"), "separator of the same steps"),
    "caption_dropout_rate": translated(_put_dropout, "data.N.caption_dropout"),
    "caption_dropout_every_n_epochs": translated(_put_dropout_epochs, "data.N.caption_dropout, as often"),
    "token_warmup_step": refused("all tags are there from the first step on; data.N.caption_steps with kind = \"drop\" leaves some out"),
    "token_warmup_min": refused("is for token_warmup_step", off=(None, 0, 1, "")),
}
"""Options of captions."""
