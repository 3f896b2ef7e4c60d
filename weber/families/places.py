"""What a person names as a model, and which parts of one it holds: a folder, a hub repository, or a single file of either.

A *part* is a folder of the diffusers layout: transformer, vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2, scheduler.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from weber.errors import ModelError
from weber.families.hub import list_files, load_file, load_snapshot
from weber.families.singles import ENDING, INDEX_ENDING, describe_content, list_folder_files, list_parts, list_pieces, open_single
from weber.families.tensors import PICKLES

WEIGHTS = ("*.safetensors",)
TOKENIZER = ("tokenizer.json", "vocab.json", "spiece.model")
_INDEX = "model_index.json"
_CONFIGS = "*.json"
_TOP = ("*.json", "*.txt", "*.model", "*.jinja", "!*/*")


@dataclass(frozen=True)
class Place:
    """Where one part of a model is: `path` is a folder in the library's layout, or the first of `files`.

    `is_single`: files as the makers or ComfyUI have them, with no configuration beside them.
    """

    path: Path
    files: tuple[Path, ...]
    is_single: bool


class Root(Protocol):
    """One thing that a person has named with the setting `key`."""

    key: str
    text: str
    is_local: bool
    is_single: bool

    def holds(self, part: str) -> bool:
        """True where the part is there, or is said to be there. Fetches configurations and single files."""
        ...

    def find(self, part: str) -> Place:
        """Where a part that it holds is, whole, fetched from the hub. Raises ModelError where it is not complete."""
        ...

    def read_config(self, part: str, name: str) -> dict[str, object] | None:
        """JSON of a part that it holds, or of the root where `part` is empty; None where there is none."""
        ...

    def describe(self) -> str:
        """What is there, for messages."""
        ...

    def list_singles(self) -> list[str]:
        """Names of the single files that lie in it."""
        ...


class Folder:
    """A folder or a hub repository: a whole model in diffusers layout, or `bare`, one part without a subfolder."""

    is_single = False

    def __init__(self, key: str, text: str, *, revision: str | None = None, bare: tuple[str, ...] = ("transformer",)) -> None:
        self.key, self.text, self.revision, self.bare = key, text, revision, bare
        self.is_local = Path(text).expanduser().is_dir()
        self._fetched: dict[tuple[str, ...], Path] = {}

    def holds(self, part: str) -> bool:
        """See `Root.holds`."""
        return self._subfolder(part) is not None

    def find(self, part: str) -> Place:
        """See `Root.find`."""
        subfolder = self._subfolder(part)
        assert subfolder is not None, part
        wanted = TOKENIZER if part.startswith("tokenizer") else WEIGHTS
        folder = self._fetch(*([f"{subfolder}/*"] if subfolder else [*wanted, *_TOP])) / subfolder
        if not any(any(folder.glob(pattern)) for pattern in wanted):
            has_folder = folder.is_dir()
            raise ModelError(
                f"The model's part {part} is not complete." if has_folder else f"The model folder has no part named {part}.",
                got=f"{folder} with {_list_names(folder)}" if has_folder else f"{self.text} with {self.describe()}",
                expected=" or ".join(wanted) if has_folder else f"a subfolder {part}, which {_INDEX} names",
                fix="use the model as *.safetensors; *.bin and other pickles are not read"
                if self.is_local and _has_pickles(folder)
                else "download the whole model again, as safetensors"
                if self.is_local
                else f'run `hf download {self.text} --include "{subfolder or "*"}/*"` where there is a connection',
            )
        return Place(folder, () if part.startswith("tokenizer") else list_folder_files(folder), False)

    def read_config(self, part: str, name: str) -> dict[str, object] | None:
        """See `Root.read_config`."""
        subfolder = self._subfolder(part) if part else ""
        file = self._fetch(_CONFIGS) / (subfolder or "") / name
        if subfolder is None or (not part and not file.is_file()):
            return None
        if not file.is_file():
            raise ModelError(
                f"The model has no {part}/{name}.",
                got=f"{self.text} with {self.describe()}",
                expected="a model in diffusers layout: transformer, vae, text encoders, tokenizers and scheduler in folders of their own",
                fix=f"point {self.key} at such a folder",
            )
        return _read_json(file)

    def describe(self) -> str:
        """See `Root.describe`."""
        return _list_names(self._fetch(_CONFIGS))

    def list_singles(self) -> list[str]:
        """See `Root.list_singles`."""
        return sorted(file.name for file in self._fetch(_CONFIGS).glob(f"*{ENDING}"))

    def _subfolder(self, part: str) -> str | None:
        """Where the part is under the root; None where it is not."""
        root = self._fetch(_CONFIGS)
        if (root / part).is_dir() or part in self._promised:
            return part
        if part not in self.bare or self._promised or any((root / other).is_dir() for other in ("transformer", "vae")):
            return None
        names = TOKENIZER if part.startswith("tokenizer") else ("config.json",)
        return "" if any((root / name).is_file() for name in names) else None

    @cached_property
    def _promised(self) -> frozenset[str]:
        """The parts that the model's index names."""
        file = self._fetch(_CONFIGS) / _INDEX
        if not file.is_file():
            return frozenset()
        return frozenset(part for part, kind in _read_json(file).items() if isinstance(kind, list) and any(kind))

    def _fetch(self, *patterns: str) -> Path:
        """The root, with the files that match; the hub is asked once per pattern."""
        if self.is_local:
            return Path(self.text).expanduser()
        if patterns not in self._fetched:
            self._fetched[patterns] = load_snapshot(self.text, patterns, revision=self.revision, key=self.key)
        return self._fetched[patterns]


class File:
    """A single file of weights, the first of its pieces or their index; on this machine, or `owner/name/path/file` on the hub.

    `part`: the one that it is named for; None for a model, which may hold several.
    """

    is_single = True

    def __init__(self, key: str, text: str, *, revision: str | None = None, part: str | None = None) -> None:
        self.key, self.text, self.revision, self.part = key, text, revision, part
        self.is_local = Path(text).expanduser().is_file()

    def holds(self, part: str) -> bool:
        """See `Root.holds`."""
        return part == self.part or (self.part is None and part in self._parts)

    def find(self, part: str) -> Place:
        """See `Root.find`."""
        return Place(self._files[0], self._files, True)

    def read_config(self, part: str, name: str) -> dict[str, object] | None:
        """See `Root.read_config`: a single file comes without."""
        return None

    def describe(self) -> str:
        """See `Root.describe`."""
        return ", ".join(self._parts) if len(self._parts) > 1 else describe_content(open_single(self._files))

    def list_singles(self) -> list[str]:
        """See `Root.list_singles`: it is one itself."""
        return []

    @cached_property
    def _files(self) -> tuple[Path, ...]:
        if self.is_local:
            return list_pieces(Path(self.text).expanduser())
        owner, name, file = self.text.split("/", 2)
        return list_pieces(load_file(f"{owner}/{name}", file, revision=self.revision, key=self.key))

    @cached_property
    def _parts(self) -> tuple[str, ...]:
        return list_parts(open_single(self._files))


def build_root(key: str, text: str, *, revision: str | None = None, part: str | None = None) -> Root:
    """The folder, file or hub id that a setting names. `part`: the one that it stands for alone (`tokenizer`: all tokenizers).

    Raises ModelError where nothing of that name can be, and where `revision` has no effect.
    """
    path = Path(text).expanduser()
    if (path.is_dir() or path.is_file()) and revision is not None:
        raise ModelError(
            f"model.revision has no effect for a local {'folder' if path.is_dir() else 'file'}.",
            got=f"model.revision = {revision!r}, {key} = {text!r}",
            fix=f"remove model.revision, or give a hub id as {key}",
        )
    if path.is_dir() or _is_repository(text):
        bare = {None: ("transformer",), "tokenizer": ("tokenizer", "tokenizer_2")}.get(part, (str(part),))
        return Folder(key, text, revision=revision, bare=bare)
    if (path.is_file() or _is_hub_file(text)) and part != "tokenizer":
        return File(key, text, revision=revision, part=part)
    kinds = ["a folder in diffusers layout"] + ["a *.safetensors file"] * (part != "tokenizer")
    raise _miss(key, text, what="tokenizer" if part == "tokenizer" else "model", kinds=kinds)


def find_file(key: str, text: str) -> Path:
    """The one *.safetensors file that a setting names: a file, a folder or hub repository with one, or owner/name/file.safetensors.

    Only that file is fetched. Raises ModelError where nothing of that name is, and where there are several files or none.
    """
    path = Path(text).expanduser()
    if path.is_file():
        names = [file.name for file in list_pieces(path)]
        return path.with_name(_check_one(key, text, names))
    if path.is_dir():
        return path / _check_one(key, text, sorted(file.name for file in path.glob(f"*{ENDING}")))
    if _is_hub_file(text):
        owner, name, file = text.split("/", 2)
        return load_file(f"{owner}/{name}", file, revision=None, key=key)
    if _is_repository(text):
        return load_file(text, _check_one(key, text, list_files(text, f"*{ENDING}", key=key)), revision=None, key=key)
    raise _miss(key, text, what="file of weights", kinds=["a *.safetensors file", "a folder with one"])


def _check_one(key: str, text: str, names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    first = names[0] if names else f"name{ENDING}"
    raise ModelError(
        f"{key} names {'several files' if names else 'a place without a file'} of weights, where one is needed.",
        got=f"{key} = {text!r} with {', '.join(names[:8]) + (', ...' if names[8:] else '') if names else f'no *{ENDING}'}",
        expected=f"one *{ENDING} file",
        fix=f"set {key} to the file itself, such as {text.rstrip('/')}/{first}"
        if not Path(text).expanduser().is_file()
        else f"set {key} to a file that is whole",
    )


def _has_pickles(folder: Path) -> bool:
    return any(any(folder.glob(f"*{ending}")) for ending in PICKLES)


def _is_repository(text: str) -> bool:
    """Whether it can only be the id of a hub repository: nothing of that name is here."""
    return _is_remote(text) and not text.endswith((ENDING, INDEX_ENDING)) and text.count("/") == 1


def _is_hub_file(text: str) -> bool:
    """Whether it can only be a file of a hub repository: not even the first of its folders is here."""
    return _is_remote(text) and text.endswith((ENDING, INDEX_ENDING)) and text.count("/") > 1 and not Path(text).parents[-2].is_dir()


def _is_remote(text: str) -> bool:
    return not (_is_path(text) or "://" in text or Path(text).exists())


def _is_path(text: str) -> bool:
    """Whether it can only be of this machine."""
    return text.startswith((".", "/", "~", "$")) or "\\" in text or (":" in text and "://" not in text)


def _miss(key: str, text: str, *, what: str, kinds: Sequence[str]) -> ModelError:
    path = Path(text).expanduser()
    remote = [] if _is_path(text) else ["a hub id such as owner/name", "owner/name/file.safetensors on the hub"][: len(kinds)]
    is_file = text.endswith((ENDING, INDEX_ENDING)) and len(kinds) > 1
    return ModelError(
        f"The {what}{'' if what.startswith('file') else ' file' if is_file else ' folder'} does not exist.",
        got=f"{key} = {text!r}" + (", a file" if path.is_file() else ""),
        expected=", or ".join([*kinds, *remote]),
        fix=f"correct {key}",
    )


def _read_json(file: Path) -> dict[str, object]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is not valid JSON.", got=str(error), fix="download the file again") from error
    if not isinstance(config, dict):
        raise ModelError(f"{file} does not hold a JSON object.", got=type(config).__name__, fix="download the file again")
    return config


def _list_names(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    return (", ".join(names[:8]) + (", ..." if len(names) > 8 else "")) or "nothing in it"
