"""What can go wrong, as a tree. Every leaf is a message for a person: what was got, what was expected, what to change.

WeberError
├── ConfigError        a key, a value or a combination of settings
├── DataError          pictures, captions, folders
├── CacheError         the folder of encoded tensors
├── ModelError         the base model: folder, files, variant
├── AdapterError       targets that match nothing, adapter files
├── CheckpointError    a run folder that cannot be resumed or read
├── TrainingError      a loss that is not finite
├── PublishError       a result that could not be sent
├── RemoteError        another machine that cannot be reached, or does not do what is asked
├── ChangedError       a file that somebody else has changed in between
└── MissingExtraError  an optional package that is not installed

The command line prints the message and exits with code 2. `assert` is for our own invariants only.
"""

from __future__ import annotations

from collections.abc import Callable


class WeberError(Exception):
    """A problem that a person can fix.

    `what` is one sentence; `got`, `expected` and `fix` complete it. Shown as one message, never as a traceback.
    """

    def __init__(self, what: str, *, got: str = "", expected: str = "", fix: str = "") -> None:
        self.what, self.got, self.expected, self.fix = what, got, expected, fix
        super().__init__(self._build_text())

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Put what it says in other words, for a person who does not use the command line."""
        self.what, self.got, self.expected, self.fix = map(change, (self.what, self.got, self.expected, self.fix))
        self.args = (self._build_text(),)

    def _build_text(self) -> str:
        parts = (("got", self.got), ("expected", self.expected), ("fix", self.fix))
        return "\n".join([self.what, *(f"  {label}: {text}" for label, text in parts if text)])


class ConfigError(WeberError):
    """A key, a value or a combination of settings that cannot be."""


class DataError(WeberError):
    """Pictures, captions or folders that cannot be used."""


class CacheError(WeberError):
    """The folder of encoded tensors cannot be read or written."""


class ModelError(WeberError):
    """The base model cannot be found, recognized or read."""


class AdapterError(WeberError):
    """Targets that match nothing, or an adapter file that does not fit."""


class CheckpointError(WeberError):
    """A run folder that cannot be resumed or read."""


class TrainingError(WeberError):
    """Training had to stop, for example at a loss that is not finite."""


class PublishError(WeberError):
    """What a run has learned could not be sent. `is_passing`: another try may help."""

    is_passing = False


class RemoteError(WeberError):
    """Another machine cannot be reached, or does not do what is asked of it. `is_passing`: the connection was lost, and another try may
    help."""

    is_passing = False


class ChangedError(WeberError):
    """A file is not as it was when it was read, so nothing was written over it."""


class MissingExtraError(WeberError):
    """An optional package is missing; the message names the exact pip command."""
