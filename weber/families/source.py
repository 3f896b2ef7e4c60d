"""Where a model's files are: a local folder in diffusers layout, or a hub repository that is fetched part by part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from weber.errors import ModelError

WEIGHTS = ("*.safetensors",)
TOKENIZER = ("tokenizer.json", "vocab.json", "spiece.model")
NUM_PROBES = 256
PROBE_BYTES = 4096


class Source:
    """The folders of one model. Nothing is fetched or read before it is asked for."""

    def __init__(self, path: str, revision: str | None) -> None:
        self.path, self.revision = path, revision
        self._fetched: dict[str, Path] = {}
        self.is_local = Path(path).expanduser().is_dir()
        if self.is_local and revision is not None:
            raise ModelError(
                "model.revision has no effect for a local folder.",
                got=f"model.revision = {revision!r}, model.path = {path!r}",
                fix="remove model.revision, or give a hub id as model.path",
            )
        if not self.is_local and (path.startswith((".", "/", "~")) or "\\" in path or path.count("/") != 1):
            raise ModelError(
                "The model folder does not exist.",
                got=f"model.path = {path!r}",
                expected="a folder in diffusers layout, or a hub id such as owner/name",
                fix="correct model.path",
            )

    def load_folder(self, part: str) -> Path:
        """Folder of a part (a subfolder in diffusers layout) with all its files, fetched if it is on the hub."""
        return self._fetch(f"{part}/*") / part

    def read_config(self, part: str, name: str = "config.json") -> dict[str, object]:
        """A part's JSON configuration; fetches configuration files only. Raises ModelError where it is missing or not JSON."""
        root = Path(self.path).expanduser() if self.is_local else self._fetch("*.json")
        file = root / part / name
        if not file.is_file():
            raise ModelError(
                f"The model has no {part}/{name}.",
                got=f"{root} with {_describe_folder(root)}",
                expected="a model in diffusers layout: transformer, vae, text encoders, tokenizers and scheduler in folders of their own",
                fix="point model.path at such a folder",
            )
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"{file} is not valid JSON.", got=str(error), fix="download the file again") from error
        if not isinstance(config, dict):
            raise ModelError(f"{file} does not hold a JSON object.", got=type(config).__name__, fix="download the file again")
        return config

    def check_part(self, part: str, *, holds: Sequence[str]) -> None:
        """Raise ModelError where a local part is missing or holds none of these files. Hub parts are checked by the hub."""
        folder = Path(self.path).expanduser() / part
        if self.is_local and not folder.is_dir():
            raise ModelError(
                f"The model folder has no part named {part}.",
                got=f"{self.path} with {_describe_folder(Path(self.path).expanduser())}",
                expected=f"a subfolder {part}",
                fix="download the whole model, or correct model.path",
            )
        if self.is_local and not any(any(folder.glob(pattern)) for pattern in holds):
            raise ModelError(
                f"The model's part {part} is not complete.",
                got=f"{folder} with {_describe_folder(folder)}",
                expected=" or ".join(holds),
                fix="download the whole model again, as safetensors (*.bin files are not read)",
            )

    def _fetch(self, pattern: str) -> Path:
        """Root of the model, with the files that match `pattern` (`*` matches `/` too); the hub is asked once per pattern."""
        if self.is_local:
            return Path(self.path).expanduser()
        if pattern not in self._fetched:
            self._fetched[pattern] = self._download(pattern)
        return self._fetched[pattern]

    def _download(self, pattern: str) -> Path:
        page = f"https://huggingface.co/{self.path}"
        try:
            return Path(snapshot_download(self.path, revision=self.revision, allow_patterns=[pattern]))
        except GatedRepoError as error:
            raise ModelError(
                f"The model {self.path} asks you to accept its licence first.",
                got="no access with the token that is set, or no token",
                fix=f"accept the licence at {page}, then run `hf auth login` with a token of the same account",
            ) from error
        except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
            raise ModelError(
                f"The hub has no model {self.path}" + (f" at revision {self.revision}." if self.revision else "."),
                got=f"model.path = {self.path!r}",
                expected="a local folder, or a hub id that your account can see",
                fix="correct model.path (a local folder must exist), or run `hf auth login`",
            ) from error
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
            raise ModelError(
                f"The model {self.path} is not on this machine and could not be downloaded.",
                got=str(error).splitlines()[0],
                fix="check the connection (or unset HF_HUB_OFFLINE), or set model.path to a local folder in diffusers layout",
            ) from error


def build_identity(folder: Path, *, extra: Iterable[str] = ()) -> str:
    """Identity of a folder of weights: 128-bit hash, as hex, of its small files and of a sample of its large ones.

    Of each *.safetensors file: size, header and 256 evenly spread pieces of 4 KiB, so that 10 GB are identified in milliseconds; a
    fine-tuned encoder differs in nearly every piece. `extra` are further facts that the result depends on.
    """
    digest = hashlib.blake2b(digest_size=16)
    for fact in extra:
        digest.update(fact.encode() + b"\0")
    for file in sorted(folder.rglob("*")):
        if file.suffix == ".safetensors":
            _hash_sample(file, digest)
        elif file.suffix in (".json", ".txt", ".model"):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _hash_sample(file: Path, digest: hashlib.blake2b) -> None:
    size = file.stat().st_size
    with file.open("rb") as stream:
        header_bytes = max(0, min(int.from_bytes(stream.read(8), "little"), size - 8))
        digest.update(size.to_bytes(8, "little") + stream.read(header_bytes))
        for probe in range(NUM_PROBES):
            stream.seek(8 + header_bytes + max(0, size - 8 - header_bytes) * probe // NUM_PROBES)
            digest.update(stream.read(PROBE_BYTES))


def _describe_folder(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    return (", ".join(names[:8]) + (", ..." if len(names) > 8 else "")) or "nothing in it"
