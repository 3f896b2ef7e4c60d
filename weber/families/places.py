"""What a person names as a model, and which parts of one it holds: a folder, a hub repository, or a single file of either.

A *part* is a folder of the diffusers layout: transformer, vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2, scheduler.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from weber.errors import ModelError
from weber.families.hub import load_file, load_snapshot
from weber.families.singles import ENDING, INDEX_ENDING, describe_content, list_folder_files, list_parts, list_pieces, open_single

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
                fix="download the whole model again, as safetensors (*.bin files are not read)"
                if self.is_local
                else f"run `hf download {self.text} --include \"{subfolder or '*'}/*\"` where there is a connection",
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
    is_remote = not (path.is_dir() or path.is_file() or text.startswith((".", "/", "~")) or "\\" in text or "://" in text)
    is_file = text.endswith((ENDING, INDEX_ENDING))
    if path.is_dir() or (is_remote and not is_file and text.count("/") == 1):
        bare = {None: ("transformer",), "tokenizer": ("tokenizer", "tokenizer_2")}.get(part, (str(part),))
        return Folder(key, text, revision=revision, bare=bare)
    if (path.is_file() or (is_remote and is_file and text.count("/") > 1)) and part != "tokenizer":
        return File(key, text, revision=revision, part=part)
    raise ModelError(
        "The tokenizer folder does not exist." if part == "tokenizer" else "The model folder does not exist.",
        got=f"{key} = {text!r}" + (", a file" if path.is_file() else ""),
        expected="a folder in diffusers layout, or a hub id such as owner/name"
        + ("" if part == "tokenizer" else ", or a *.safetensors file (here, or on the hub as owner/name/file.safetensors)"),
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
