"""Files of a hub repository on this machine, fetched where they are missing, or one message with the exact steps to get them."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import huggingface_hub
from huggingface_hub import constants

from weber.errors import ModelError

_UNAUTHORIZED = 401
_HUB_ID = re.compile(r"[^/~.\\]+/[^/\\]+")


def load_snapshot(repository: str, patterns: Sequence[str], *, revision: str | None, key: str) -> Path:
    """Folder of a repository with the files that match (`*` matches `/` too), fetched unless HF_HUB_OFFLINE is set.

    A pattern that begins with `!` leaves files out. `key` is the setting that names the repository. Where the hub cannot be asked, the
    folder is what an earlier run has left, and may lack files. Raises ModelError.
    """
    chosen = [pattern for pattern in patterns if not pattern.startswith("!")]
    left_out = [pattern[1:] for pattern in patterns if pattern.startswith("!")] or None
    return _fetch(
        lambda: huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=chosen, ignore_patterns=left_out),
        _Wish(repository, chosen, revision=revision, key=key),
    )


def find_place(place: str, patterns: Sequence[str], *, key: str) -> Path:
    """A path on this machine, or where nothing is there and the place reads as a hub id, its files that match. Raises ModelError."""
    path = Path(place).expanduser()
    return load_snapshot(place, patterns, revision=None, key=key) if not path.exists() and _HUB_ID.fullmatch(place) else path


def load_file(repository: str, name: str, *, revision: str | None, key: str) -> Path:
    """One file of a repository, fetched unless HF_HUB_OFFLINE is set. Raises ModelError."""
    wish = _Wish(repository, [name], revision=revision, key=key)
    return _fetch(lambda: huggingface_hub.hf_hub_download(repository, name, revision=revision), wish)


def list_files(repository: str, pattern: str, *, key: str) -> list[str]:
    """Names of files at the top of a repository that match, in order; where the hub cannot be asked, of those that are on this machine.

    Nothing is fetched. Raises ModelError.
    """
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]

    try:
        names = [file.filename for file in huggingface_hub.snapshot_download(repository, allow_patterns=[pattern], dry_run=True)]
    except (OSError, HTTPError, HFValidationError, RuntimeError):
        folder = load_snapshot(repository, [pattern], revision=None, key=key)
        names = [file.name for file in folder.glob(pattern)]
    return sorted(name for name in names if "/" not in name)


class _Wish:
    """What was asked for, to be said again where it cannot be had."""

    def __init__(self, repository: str, patterns: Sequence[str], *, revision: str | None, key: str) -> None:
        self.repository, self.revision, self.key = repository, revision, key
        self.page = f"{constants.ENDPOINT}/{repository}"
        # All configurations are asked for first: without them nothing of the model is here.
        self.files = " ".join(f'--include "{pattern}"' if "*" in pattern else pattern for pattern in patterns if pattern != "*.json")
        words = ["hf download", repository, self.files, f"--revision {revision}" if revision else ""]
        self.command = " ".join(word for word in words if word)


def _fetch(download: Callable[[], str], wish: _Wish) -> Path:
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError  # type: ignore[attr-defined]

    try:
        return Path(download())
    except (OSError, HTTPError, HFValidationError, RuntimeError) as error:
        if isinstance(error, LocalEntryNotFoundError) and (kept := getattr(error, "snapshot_path", None)):
            return Path(kept)
        _refuse(error, wish)


def _refuse(error: Exception, wish: _Wish) -> NoReturn:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    first_line = (str(error).strip() or type(error).__name__).splitlines()[0].removeprefix("Got: ")
    if isinstance(error, GatedRepoError):
        raise ModelError(
            f"The model {wish.repository} asks you to accept its license first.",
            got="no access with the token that is set, or no token",
            fix=f"accept the license at {wish.page}, then run `hf auth login` with a token of the same account",
        ) from error
    if isinstance(error, RevisionNotFoundError):
        raise ModelError(
            f"The model {wish.repository} has no such revision.",
            got=f"model.revision = {wish.revision!r}",
            expected=f"a branch, tag or commit that {wish.page} has",
            fix="correct model.revision, or leave it out",
        ) from error
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        raise ModelError(
            f"The hub has no model {wish.repository}.",
            got=f"{wish.key} names {wish.repository!r}, and there is nothing at {wish.page} that this account can see",
            expected="a local folder or file that exists, or a hub id that your account can see",
            fix=f"correct {wish.key} (a local folder must exist), or run `hf auth login` if the model is private",
        ) from error
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        raise ModelError(
            f"The model {wish.repository} has no such file.",
            got=wish.files,
            expected=f"a file that {wish.page}/tree/{wish.revision or 'main'} lists",
            fix=f"correct {wish.key}",
        ) from error
    if isinstance(error, HfHubHTTPError) and error.response.status_code == _UNAUTHORIZED:
        raise ModelError(
            f"The hub does not accept your token, so the model {wish.repository} could not be downloaded.",
            got=first_line,
            fix="run `hf auth login` again (a token in HF_TOKEN wins over it)",
        ) from error
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        raise ModelError(
            f"There is no room on the disk for the model {wish.repository}.",
            got=f"{constants.HF_HUB_CACHE} is full",
            fix="free space there, or set HF_HOME to a folder on a larger disk",
        ) from error
    if constants.HF_HUB_OFFLINE:
        raise ModelError(
            f"The model {wish.repository} is not on this machine and could not be downloaded.",
            got=f"HF_HUB_OFFLINE is set, and {constants.HF_HUB_CACHE} does not hold all the files that are needed",
            fix=f"run `{wish.command}` where there is a connection (unset HF_HUB_OFFLINE), or set {wish.key} to a local folder",
        ) from error
    raise ModelError(
        f"The model {wish.repository} is not on this machine and could not be downloaded.",
        got=first_line,
        fix=f"check the connection to {constants.ENDPOINT} and try `{wish.command}`, or set {wish.key} to a local folder",
    ) from error
