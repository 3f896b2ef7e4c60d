"""What is asked of a captioner, and which of it each kind can be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from PIL import Image

from weber.errors import ConfigError

Describe = Callable[[Sequence[Image.Image]], list[str]]
"""From pictures in RGB to a text for each."""


@dataclass(frozen=True)
class Wish:
    """How texts are made; what is left out is as the model has it.

    `question`: what it is asked, or how its text begins; `system`: who it is told to be. `beams`: how many texts are followed, of which the
    likeliest is taken; with `top_p` or `temperature` words are drawn instead, by `seed`. Lengths are in tokens.
    """

    question: str | None = None
    system: str | None = None
    beams: int | None = None
    top_p: float | None = None
    temperature: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    seed: int = 0

    @property
    def draws(self) -> bool:
        """Has chance a part in it?"""
        return self.top_p is not None or self.temperature is not None

    def build_generation(self, max_length: int) -> dict[str, Any]:
        """The same as `generate` of transformers takes it; `max_length`: where none is given."""
        found: dict[str, Any] = {"do_sample": self.draws, "num_beams": self.beams or 1, "max_new_tokens": self.max_length or max_length}
        if self.draws:
            found |= {"top_p": self.top_p or 1.0, "top_k": 0, "temperature": self.temperature or 1.0}
        else:
            found |= {"top_p": None, "top_k": None, "temperature": None}
        if self.min_length is not None:
            found["min_new_tokens"] = self.min_length
        return found


def check_wish(wish: Wish, *, takes: Sequence[str], name: str) -> None:
    """Refuse what cannot be, and texts that a captioner does not take. Raises ConfigError."""
    for field in fields(wish):
        if field.name in ("question", "system") and field.name not in takes and vars(wish)[field.name] is not None:
            raise ConfigError(
                f"{name} takes no {field.name}.",
                got=f"--{field.name} {vars(wish)[field.name]!r}",
                expected=f"what it takes: {', '.join(takes) or 'the picture alone'}",
                fix=f"remove --{field.name}, or choose another captioner (`weber caption --list`)",
            )
    for flag, number, least in (("beams", wish.beams, 1), ("min-length", wish.min_length, 1), ("max-length", wish.max_length, 1)):
        if number is not None and number < least:
            raise ConfigError(f"--{flag} is {least} or more.", got=f"--{flag} {number}", fix="leave it out, or write a larger number")
    if wish.min_length is not None and wish.max_length is not None and wish.min_length > wish.max_length:
        raise ConfigError(
            "No text is so long and so short.", got=f"--min-length {wish.min_length} --max-length {wish.max_length}", fix="lower the former"
        )
    if wish.top_p is not None and not 0 < wish.top_p <= 1:
        raise ConfigError("A share of probability lies in 0..1.", got=f"--top-p {wish.top_p:g}", fix="write --top-p 0.9")
    if wish.temperature is not None and not 0 < wish.temperature <= 5:
        raise ConfigError("A temperature lies above 0, up to 5.", got=f"--temperature {wish.temperature:g}", fix="write --temperature 0.7")
    if wish.draws and wish.beams is not None and wish.beams > 1:
        raise ConfigError(
            "Texts are searched for with beams, or drawn.",
            got=f"--beams {wish.beams} beside --top-p or --temperature",
            expected="one of both",
            fix="remove --beams, or what draws",
        )
