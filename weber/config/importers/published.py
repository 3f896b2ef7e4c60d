"""What other trainers send to the hub, as settings of [publish]. What everyone may see needs a person's own word here: it stays private."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.values import UNSET, read_bool
from weber.config.publish import check_target

IS_PRIVATE = 'private here; publish.visibility = "public" with publish.consent = true shows it to everyone'
TOKEN = "the token is that of `hf auth login` or HF_TOKEN; it is in no settings"
BESIDE = "files are sent beside training in any case"
CARD = "the page is written from what the run knows; publish.trigger_words adds the words that call it up"


@dataclass(frozen=True)
class Names:
    """Keys of a trainer: `place`: the repository; `wish`: without it nothing is sent, None: the place alone asks for it; `checkpoints`:
    send each of them, None: it always does, empty: never; `is_whole`: whether the
    model itself is trained, which is sent at the end alone."""

    place: str
    wish: str | None
    checkpoints: str | None
    is_whole: Callable[[Keys], bool]

    def set_place(self, draft: Draft, keys: Keys, *, value: Any) -> str:
        """The repository: `owner/name`."""
        if self.wish is not None and not keys.read_bool(self.wish):
            return f"{NO_EFFECT}nothing is sent without {self.wish}"
        try:
            target = check_target(str(value).strip())
        except ValueError as error:
            return f"{REFUSED}publish.to needs owner/name: {error}"
        line = draft.set("publish.to", target, origin=keys.find(self.place))
        if self._sends_checkpoints(keys):
            line += ", " + draft.set("publish.when", "checkpoints", origin=keys.find(self.checkpoints or self.place))
        return f"{line}; {IS_PRIVATE}"

    def answer_wish(self, draft: Draft, keys: Keys, *, value: Any) -> str:
        """A wish to send; where to is said by another key."""
        if not read_bool(value, name=self.wish or self.place):
            return NO_EFFECT + "asks for nothing, here as there"
        if self.place in keys:
            return f"publish.to, of {keys.find(self.place).spelled}"
        return f"{REFUSED}there it goes to a repository called after the folder; write publish.to = owner/name"

    def answer_checkpoints(self, draft: Draft, keys: Keys, *, value: Any) -> str:
        """A wish to send every checkpoint."""
        if not read_bool(value, name=self.checkpoints or self.place) or (self.wish is not None and not keys.read_bool(self.wish)):
            return NO_EFFECT + "asks for nothing, here as there"
        return 'publish.when = "checkpoints"' if self._sends_checkpoints(keys) else REFUSED + "whole models are sent at the end alone"

    def _sends_checkpoints(self, keys: Keys) -> bool:
        is_wanted = self.checkpoints is None or self.checkpoints != "" and keys.read_bool(self.checkpoints)
        return is_wanted and not self.is_whole(keys)


def answer_private(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Whether the repository is private, as yes and no or as a word."""
    is_private = value in UNSET or str(value).strip().lower() in ("private", "true", "1", "yes", "on")
    return f"{NO_EFFECT}it is private here too" if is_private else REFUSED + IS_PRIVATE
