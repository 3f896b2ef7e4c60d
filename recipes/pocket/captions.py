"""What is said about a picture: its name, sometimes a keyword, the style and the background."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

STYLES = ("noto", "twemoji")
BACKGROUNDS = {
    "white": (255, 255, 255),
    "red": (238, 100, 100),
    "orange": (250, 170, 90),
    "yellow": (250, 225, 110),
    "green": (120, 200, 120),
    "blue": (110, 170, 240),
    "purple": (175, 130, 220),
    "pink": (250, 170, 205),
    "black": (30, 30, 35),
}
"""Names and colors; white is the one that captions do not mention."""

_OPENINGS = ("a picture of {}", "a photo of {}", "a drawing of {}", "an emoji of {}", "a {}", "one {}")


@dataclass(frozen=True)
class Concept:
    """One emoji: its characters, its Unicode short name, its keywords, and the version of Unicode Emoji that brought it."""

    emoji: str
    name: str
    tags: tuple[str, ...]
    version: float

    @property
    def is_familiar(self) -> bool:
        """One of the first few hundred, with a short name: what people ask for."""
        return self.version <= 0.6 and len(self.name.split()) <= 2


@dataclass(frozen=True)
class CaptionRecipe:
    """Shares of the captions that differ from "name, style"."""

    empty: float = 0.07
    no_style: float = 0.08
    opening: float = 0.15
    tags: float = 0.10
    background: float = 0.12
    spelled: float = 0.06


def draw_caption(concept: Concept, style: str, *, background: str, recipe: CaptionRecipe, rng: random.Random) -> str:
    """One caption of a picture."""
    if rng.random() < recipe.empty:
        return ""
    subject = concept.name
    if rng.random() < recipe.opening:
        subject = rng.choice(_OPENINGS).format(subject)
    elif concept.tags and rng.random() < recipe.tags:
        subject = f"{subject}, {rng.choice(concept.tags)}"
    words = [subject] if rng.random() < recipe.no_style else [f"{subject}, {style} style"]
    if background != "white":
        words.append(f"on a {background} background")
    return ", ".join(words)


def list_words(concepts: Sequence[Concept]) -> list[str]:
    """Every word that a caption can hold, in order: the vocabulary."""
    texts = [*STYLES, *BACKGROUNDS, *_OPENINGS, "style on a background"]
    for concept in concepts:
        texts += [concept.name, *concept.tags]
    return sorted({word for text in texts for word in re.findall(r"[a-z]+", text.lower()) if len(word) > 1})


class Speller:
    """Caption to token ids, now and then with one word spelled in letters, so that letters mean something in words never seen."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, letters: PreTrainedTokenizerBase, *, words: Sequence[str]) -> None:
        """`letters` is the same tokenizer made from no words; its ids are looked up by their pieces in `tokenizer`."""
        self.tokenizer = tokenizer
        self._spelled: dict[int, list[int]] = {}
        for word in words:
            whole = tokenizer(word, add_special_tokens=False).input_ids
            pieces = letters.convert_ids_to_tokens(letters(word, add_special_tokens=False).input_ids)
            if len(whole) == 1:
                self._spelled[whole[0]] = tokenizer.convert_tokens_to_ids(pieces)

    def encode(self, caption: str, num_tokens: int, *, share: float, rng: random.Random) -> list[int]:
        """Ids of `num_tokens` tokens: as the tokenizer gives them, but that in `share` of the captions one word is spelled."""
        ids = list(self.tokenizer(caption).input_ids)
        places = [place for place, number in enumerate(ids) if number in self._spelled]
        if places and rng.random() < share:
            place = rng.choice(places)
            ids[place : place + 1] = self._spelled[ids[place]]
        last = ids[-1]
        ids = ids if len(ids) <= num_tokens else [*ids[: num_tokens - 1], last]
        return ids + [self.tokenizer.pad_token_id] * (num_tokens - len(ids))
