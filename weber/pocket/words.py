"""Two small tokenizers of the classes that FLUX.1 uses, made from a list of words: no download, the same files on every machine.

The trainers of the tokenizers library break ties by hash order and so write another file at each run; these rules do not.
A word of the list is one token, any other word falls into characters (T5) or bytes (CLIP).
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE

if TYPE_CHECKING:
    from transformers import CLIPTokenizer, T5Tokenizer

_TEXT = """
a an the of and in on at to with without up down left right upper lower open
red green blue yellow orange purple pink brown black white gray dark light bright shiny small big round old new
one two three 3d fluent style picture photo drawing painting face ears leaf flying
alarm clock automobile avocado balloon banana bicycle butterfly camera crown cupcake doughnut elephant evergreen tree fox frog
hamburger house key bulb locomotive octopus owl penguin pizza apple rocket sailboat soccer ball strawberry sunflower turtle umbrella
cat dog bird fish horse man woman child person car bus train boat flower hat cup book chair table sun moon star sky sea
"""

WORDS = tuple(_TEXT.split())
"""The words of the pictures in `examples/`, and some more that people try."""

CLIP_TOKENS = 77
T5_TOKENS = 512
_START, _END, _END_OF_WORD = "<|startoftext|>", "<|endoftext|>", "</w>"
_RARE = -20.0  # log-probability of a character beside -1 of a word: T5 takes the most probable split


def build_clip_tokenizer(words: Iterable[str] = WORDS) -> CLIPTokenizer:
    """Byte-level BPE as in CLIP: 256 bytes, the same ending a word, merges, then the start and end tokens."""
    from transformers import CLIPTokenizer

    symbols, merges = _build_bytes_and_words(tuple(words))
    vocabulary = dict(symbols) | {_START: len(symbols), _END: len(symbols) + 1}
    return CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=CLIP_TOKENS)  # type: ignore[arg-type]


@lru_cache(maxsize=2)
def _build_bytes_and_words(words: tuple[str, ...]) -> tuple[Mapping[str, int], Sequence[tuple[str, str]]]:
    """Vocabulary and merges of CLIP's BPE, without the marks of start and end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = {symbol: index for index, symbol in enumerate(alphabet + [letter + _END_OF_WORD for letter in alphabet])}
    merges: list[tuple[str, str]] = []
    for word in words:
        while len(pieces := _split(word, symbols, merges)) > 1:
            merges.append((pieces[0], pieces[1]))
            symbols.setdefault(pieces[0] + pieces[1], len(symbols))
    return symbols, merges


def build_t5_tokenizer(words: Iterable[str] = WORDS) -> T5Tokenizer:
    """Unigram as in T5: words with their leading space, and printable ASCII; other characters are `<unk>`."""
    from transformers import T5Tokenizer

    pieces = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, "▁": _RARE}
    pieces |= dict.fromkeys(string.digits + string.ascii_letters + string.punctuation, _RARE)
    pieces |= {f"▁{word}": -1.0 for word in words}
    return T5Tokenizer(vocab=list(pieces.items()), extra_ids=0, model_max_length=T5_TOKENS)


def _split(word: str, symbols: dict[str, int], merges: list[tuple[str, str]]) -> list[str]:
    return Tokenizer(BPE(symbols, merges, end_of_word_suffix=_END_OF_WORD)).encode(word).tokens
