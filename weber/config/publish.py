"""`[publish]`: where what a run has learned is shown to others."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from weber.config.elsewhere import is_address
from weber.config.section import Section

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"{_NAME}/{_NAME}")
_MOST_LETTERS = 96
_HUB_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?:models/)?([^?#]+?)/?")

PublishFormat = Literal["diffusers", "kohya", "comfyui", "merged-diffusers", "merged-bfl"]


def check_target(text: str) -> str:
    """A place that something can be sent to. Raises ValueError in words."""
    page = _HUB_PAGE.fullmatch(text)
    if page is not None:
        raise ValueError(f'of the hub the name alone is written; write to = "{page[1]}"')
    if is_address(text):
        scheme, _, place = text.partition("://")
        if scheme.lower() == "hf":
            raise ValueError(f'of the hub the name alone is written; write to = "{place}"')
        if "@" in place.partition("/")[0]:
            raise ValueError("it holds a name or a password before @; leave them out, a storage has settings of its own for them")
        if scheme.lower() in ("http", "https") or not all(place.strip("/").partition("/")[::2]):
            raise ValueError("it is no folder in a storage; write it as s3://bucket/folder, or owner/name for the hub")
        return text.rstrip("/")
    if not _HUB_ID.fullmatch(text) or len(text) > _MOST_LETTERS or "--" in text or ".." in text:
        raise ValueError("it is no name on the hub; write owner/name, of letters, digits, -, _ and ., or an address such as s3://bucket/folder")
    return text


class PublishConfig(Section):
    """Where what a run has learned is shown to others: a repository of the Hugging Face hub, or a folder in a storage. Nothing is sent
    unless `to` is set. Names of files of the data are never sent, and captions only where `captions` says so."""

    to: Annotated[str, AfterValidator(check_target)] | None = None
    """`owner/name` of a repository of the hub, which is made if it is not there, or a folder in a storage that fsspec knows:
    `s3://bucket/folder`. The hub's token is that of `hf auth login` or `HF_TOKEN`, never a setting. Left out: nothing is sent."""

    when: Literal["end", "checkpoints"] = "end"
    """`end`: when the run is done; `checkpoints`: after each checkpoint too, beside training, each as a commit of the same files. Where a
    newer one is there before an older one was sent, the older one is left out."""

    formats: Annotated[list[PublishFormat], Field(min_length=1)] = ["diffusers"]
    """Layouts that are sent, as in `output.formats`. `diffusers` is the file of the run as it is."""

    visibility: Literal["private", "public"] = "private"
    """Who can see a repository that is made: you alone, or everyone. One that everyone sees already takes nothing that is private."""

    consent: bool = False
    """That everyone may see it: you have the rights to the pictures that were learned, those who can be recognized agree, and the license
    of the base model allows it. Needed for, and only for, `visibility = "public"`."""

    trigger_words: str | None = None
    """The words that call up what was learned, as the page shows them. Left out: none are told."""

    captions: bool = False
    """The page lists captions of the pictures that were learned, a hundred different ones at most: they show how prompts are written.
    Names of files are never sent."""

    @property
    def is_to_hub(self) -> bool:
        """Whether it goes to the hub, not to a storage."""
        return self.to is not None and not is_address(self.to)

    @model_validator(mode="after")
    def _refuse_unused(self) -> PublishConfig:
        changed = sorted(self.model_dump(exclude_defaults=True))
        if self.to is None and changed:
            raise ValueError(f'{", ".join(changed)} cannot take effect without a place; set publish.to = "owner/name", or remove it')
        if self.visibility == "public" and not self.is_to_hub:
            raise ValueError('visibility = "public" has no effect in a storage, which says itself who may read; remove it')
        if self.visibility == "public" and not self.consent:
            raise ValueError('visibility = "public" shows it to everyone; set consent = true if that may be, or leave it private')
        if self.consent and self.visibility == "private":
            raise ValueError('consent = true has no effect on what is private; remove it, or set visibility = "public"')
        return self
