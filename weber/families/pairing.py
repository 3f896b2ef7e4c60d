"""Names in the makers' files (BFL, ComfyUI, kohya) beside names in the library's models, as a table per family.

Legend: a *module* is a name in the library's model, an *original* is a name in the makers' files. `{}` stands for the block's number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
from torch import Tensor

from weber.families.tensors import Entry, Weights


@dataclass(frozen=True)
class Pairing:
    """One original, made of the rows of `modules` in that order, in parts of `rows`.

    `swapped`: the two halves of its rows (shift, scale) stand in the other order. `is_norm`: a norm's scale, not a linear layer.
    `only_original`: programs that read adapters with either names know this layer by the makers' name alone.
    """

    original: str
    modules: tuple[str, ...]
    rows: tuple[int, ...] = (1,)
    swapped: bool = False
    is_norm: bool = False
    only_original: bool = False

    def split(self, num_rows: int) -> list[int]:
        """Rows of each module, of that many in all."""
        unit = num_rows // sum(self.rows)
        return [unit * part for part in self.rows]


@dataclass(frozen=True)
class Match:
    """A pairing at one block; `position` is the place among its modules."""

    pairing: Pairing
    number: str
    position: int = 0

    @property
    def original(self) -> str:
        """The original's name, without `.weight`."""
        return self.pairing.original.replace("{}", self.number)

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules' names, without `.weight`."""
        return tuple(module.replace("{}", self.number) for module in self.pairing.modules)


DOUBLE, SINGLE = "double_blocks.{}.", "single_blocks.{}."
OUR_DOUBLE, OUR_SINGLE = "transformer_blocks.{}.", "single_transformer_blocks.{}."


def build_stream(
    original: str, *, attention: tuple[str, str, str, str], norms: tuple[str, str], layers: Mapping[str, str]
) -> list[Pairing]:
    """The image or the text stream of a double-stream block: query, key, value and output; the norms of the first two; other layers."""
    *projections, out = [f"{OUR_DOUBLE}attn.{name}" for name in attention]
    return [
        Pairing(f"{DOUBLE}{original}_attn.qkv", tuple(projections), (1, 1, 1)),
        Pairing(f"{DOUBLE}{original}_attn.proj", (out,)),
        *(Pairing(f"{DOUBLE}{original}_{name}", (OUR_DOUBLE + module,)) for name, module in layers.items()),
        *build_norms(f"{DOUBLE}{original}_attn", *(f"{OUR_DOUBLE}attn.{norm}" for norm in norms)),
    ]


def build_norms(original: str, *modules: str) -> list[Pairing]:
    """The norms of queries and of keys."""
    names = ("query_norm", "key_norm")
    return [Pairing(f"{original}.norm.{name}", (module,), is_norm=True) for name, module in zip(names, modules, strict=True)]


def build_embedder(original: str, module: str, *, only_original: bool = False) -> list[Pairing]:
    """The two layers of an embedding of a number or a vector."""
    names = {"in_layer": "linear_1", "out_layer": "linear_2"}
    return [Pairing(f"{original}.{one}", (f"{module}.{two}",), only_original=only_original) for one, two in names.items()]


def find_module(pairings: Sequence[Pairing], module: str) -> Match | None:
    """Where a module of the library goes."""
    for pairing in pairings:
        for position, template in enumerate(pairing.modules):
            found = _compile(template).fullmatch(module)
            if found:
                return Match(pairing, found["number"] if "{}" in template else "", position)
    return None


def find_original(pairings: Sequence[Pairing], original: str) -> Match | None:
    """What an original is made of."""
    for pairing in pairings:
        found = _compile(pairing.original).fullmatch(original)
        if found:
            return Match(pairing, found["number"] if "{}" in pairing.original else "")
    return None


def build_library_weights(originals: Weights, pairings: Sequence[Pairing]) -> tuple[dict[str, Entry], list[str]]:
    """The same tensors under the library's names, and the names that no pairing knows."""
    weights: dict[str, Entry] = {}
    unknown = []
    recent: dict[str, Tensor] = {}
    for name, entry in originals.items():
        stem, suffix = _cut(name)
        match = find_original(pairings, stem)
        if match is None:
            unknown.append(name)
            continue
        start = 0
        for module, num_rows in zip(match.modules, match.pairing.split(entry.shape[0]), strict=True):
            if num_rows == entry.shape[0]:
                read = partial(_read_stacked, [entry], match.pairing.swapped)
            else:
                read = partial(_read_rows, recent, name, entry, start, num_rows)
            weights[module + (".weight" if suffix == ".scale" else suffix)] = replace(entry, shape=(num_rows, *entry.shape[1:]), read=read)
            start += num_rows
    return weights, unknown


def build_original_weights(weights: Weights, pairings: Sequence[Pairing]) -> dict[str, Entry]:
    """The tensors of a whole library model under the makers' names. Every name must have its pairing."""
    originals: dict[str, Entry] = {}
    for name in weights:
        stem, suffix = _cut(name)
        match = find_module(pairings, stem)
        assert match is not None, name
        if match.position == 0:
            entries = [weights[module + suffix] for module in match.modules]
            shape = (sum(entry.shape[0] for entry in entries), *entries[0].shape[1:])
            read = partial(_read_stacked, entries, match.pairing.swapped)
            originals[match.original + (".scale" if match.pairing.is_norm else suffix)] = replace(entries[0], shape=shape, read=read)
    return originals


def build_converted(weights: Weights, pairings: Sequence[Pairing], *, library_mark: str) -> tuple[Weights, list[str]]:
    """As `build_library_weights`, for a file that may have the library's names already: then it has `library_mark`."""
    return (weights, []) if library_mark in weights else build_library_weights(weights, pairings)


def read_num_layers(weights: Weights, prefix: str) -> int:
    """How many numbers, or other words up to a dot, follow a prefix such as `double_blocks.`."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in weights if name.startswith(prefix)})


def swap_halves(tensor: Tensor) -> Tensor:
    """(shift, scale) to (scale, shift) along the rows, and back."""
    first, second = tensor.chunk(2, dim=0)
    return torch.cat([second, first])


def _read_rows(recent: dict[str, Tensor], name: str, entry: Entry, start: int, num_rows: int) -> Tensor:
    """Some rows of a tensor that several layers are cut from; `recent` keeps it until the last of them has been read."""
    if name not in recent:
        recent.clear()
        recent[name] = entry.read()
    rows = recent[name][start : start + num_rows].clone()
    if start + num_rows == entry.shape[0]:
        recent.clear()
    return rows


def _read_stacked(entries: Iterable[Entry], swapped: bool) -> Tensor:
    tensors = [entry.read() for entry in entries]
    tensor = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
    return swap_halves(tensor) if swapped else tensor


def _cut(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    return stem, dot + suffix


@lru_cache(maxsize=1024)
def _compile(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{\}", r"(?P<number>\d+)"))
