"""Which machine a run is on: a small file in the run's folder here, and the results that come into that folder.

Every file comes whole. A checkpoint comes beside its final name, is checked against its manifest, and is renamed; a fetch that is cut off
leaves the folder as it was, and the next one goes on where it has ended.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from weber.checkpoint.lock import LOCK_NAME
from weber.checkpoint.resume import check_checkpoint
from weber.checkpoint.save import CONFIG_NAME, MANIFEST, NAME
from weber.config.load import load_config
from weber.errors import CheckpointError, RemoteError
from weber.remote.link import Host, Link
from weber.remote.there import OUT

FILE = ".remote.json"
_ALONE = (CONFIG_NAME, LOCK_NAME, "checkpoint-*")
"""What a copy of the folder does not have: settings are those of here, and checkpoints come one by one."""
_UNFINISHED = (".*", "*.tmp", "*.unfinished")


@dataclass(frozen=True)
class Rented:
    """`folder`: the run's folder here; `root`: that of the run there; `name`: what its folder is called there; `cluster`: what SkyPilot
    calls a machine that it has rented."""

    folder: Path
    host: Host
    root: str
    name: str
    python: str
    settings: str = field(repr=False)
    cluster: str | None = None

    @property
    def out(self) -> str:
        """The run folder there."""
        return f"{self.root}/{OUT}/{self.name}"

    def open(self) -> Link:
        """The way to it."""
        return Link(self.host, folder=self.folder, python=self.python)

    def save(self) -> None:
        """Write it into the run's folder."""
        texts = {"root": self.root, "name": self.name, "python": self.python, "settings": self.settings, "cluster": self.cluster}
        tree = {"host": asdict(self.host), **texts}
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f"{FILE}.tmp"
        unfinished.unlink(missing_ok=True)
        unfinished.touch(mode=0o600)
        unfinished.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self.folder / FILE)


def find_rented(folder: Path) -> Rented | None:
    """The machine that the run of a folder is on; None where it is on none."""
    try:
        tree = json.loads((folder / FILE).read_text(encoding="utf-8"))
        host = tree["host"]
        way = Host(host["address"], host["port"], host["identity"], tuple(host["keys"]), host.get("file"))
        root, name, python, settings = (str(tree[name]) for name in ("root", "name", "python", "settings"))
        return Rented(folder, way, root, name, python, settings, tree.get("cluster"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RemoteError(
            "It cannot be read which machine the run is on.",
            got=f"{folder / FILE}: {error}",
            fix="delete that file, and send the run again",
        ) from error


def read_rented(place: Path) -> Rented:
    """The machine of a run, given its folder here or its file of settings. Raises RemoteError where it is on none."""
    place = place.expanduser().absolute()
    folder = load_config(place).output.folder.expanduser().absolute() if place.suffix == ".toml" else place
    rented = find_rented(folder)
    if rented is None:
        raise RemoteError(
            "This run is on no other machine.",
            got=str(folder),
            expected="the folder here of a run that was sent with `weber remote train`",
            fix="weber remote train run.toml user@host",
        )
    return rented


def fetch(rented: Rented, link: Link, *, told: Mapping[str, object]) -> list[str]:
    """Bring what is new into the run's folder here; `told`: what the other machine says of the run. The checkpoints that came."""
    folder = rented.folder
    folder.mkdir(parents=True, exist_ok=True)
    there = told.get("checkpoints")
    hashes = {str(name): one for name, one in there.items() if NAME.fullmatch(str(name))} if isinstance(there, dict) else {}
    names = sorted(hashes, key=lambda name: int(name.rpartition("-")[2]))
    came = [name for name in names if _hash(folder / name) != hashes[name] and _fetch_checkpoint(rented, link, name)]
    left_out = [f"--exclude={one}" for one in _UNFINISHED] + [f"--exclude=/{one}" for one in _ALONE]
    if told.get("has_begun"):
        link.fetch(rented.out, folder, options=left_out)
    _write_settings(rented)
    if names and _hash(folder / names[-1]) == hashes[names[-1]]:
        for old in (one for one in folder.glob("checkpoint-*") if NAME.fullmatch(one.name) and one.name not in names):
            shutil.rmtree(old)
    return came


def _fetch_checkpoint(rented: Rented, link: Link, name: str) -> bool:
    """One checkpoint, whole; or nothing of one that is deleted there meanwhile, or damaged."""
    partial = rented.folder / f".{name}.fetched"
    try:
        link.fetch(f"{rented.out}/{name}", partial)
    except RemoteError as error:
        if error.is_passing:
            raise
        shutil.rmtree(partial, ignore_errors=True)
        return False
    if check_checkpoint(partial) is not None:
        shutil.rmtree(partial)
        return False
    if (rented.folder / name).is_dir():  # of an earlier try that has gone another way
        shutil.rmtree(rented.folder / name)
    partial.replace(rented.folder / name)
    return True


def _hash(checkpoint: Path) -> str:
    """That of its manifest, which has those of all its files."""
    try:
        return hashlib.blake2b((checkpoint / MANIFEST).read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return ""


def _write_settings(rented: Rented) -> None:
    """The settings with the places of here, once the run has begun: with them the folder is one of a run."""
    file = rented.folder / CONFIG_NAME
    if file.is_file() or not any(rented.folder.glob("*.jsonl")):
        return
    unfinished = rented.folder / f".{CONFIG_NAME}.tmp"
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(rented.settings, encoding="utf-8")
    unfinished.replace(file)


def check_free(folder: Path) -> None:
    """Refuse a run whose folder here has one on another machine. Raises CheckpointError."""
    rented = find_rented(folder)
    if rented is not None:
        watch, done = f"weber remote attach {folder}", f"weber {'remote' if rented.cluster is None else 'cloud'} down {folder}"
        raise CheckpointError(
            "This run is on another machine already.",
            got=f"{folder} with the run on {rented.host.words}",
            fix=f"watch it: {watch}; or be done with it there: {done}; or set output.folder",
        )
