"""CLIP while it learns: adapters on it, trained with those of the transformer, and captions encoded anew in each step.

It hangs on the transformer, as `text_encoder`: so whatever is put on that, scaled, saved, averaged and moved is so on both, and the names
of its layers are those that adapter files have (`adapters/text.py`). The other text encoder's captions stay in the cache.

Which layers: attention and feed-forward of all of CLIP's layers, as kohya's trainers do (sd-scripts: all of CLIPAttention and
CLIPMLP); the library's scripts take attention alone. Readers take both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from weber.adapters.files import AdapterFile
from weber.adapters.lora import build_lora
from weber.adapters.rules import check_start
from weber.adapters.text import TEXT_PREFIX, find_text_module, is_text
from weber.cache.encode import Encoders
from weber.config.adapter import AdapterConfig
from weber.config.run import RunConfig
from weber.data.seeds import build_seed
from weber.errors import ConfigError
from weber.families.family import Family
from weber.kinds.kind import Put, Trained, list_linears
from weber.sampling.euler import Painting

_NAME = TEXT_PREFIX.removesuffix(".")


@dataclass(frozen=True)
class TextLearner:
    """CLIP as it is by now."""

    family: Family
    part: str
    encoder: nn.Module

    def encode(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """What it adds to the condition of these captions, with gradients for its adapters."""
        return self.family.encode_prompts(self.part, self.encoder, captions)

    @torch.no_grad()
    def build_anew(self, painting: Painting) -> Painting:
        """The same picture with its texts as they are read now."""
        assert painting.texts is not None
        told, away = (self.encode([text]) for text in painting.texts)
        negative = None if painting.negative is None else {**painting.negative, **away}
        return replace(painting, condition={**painting.condition, **told}, negative=negative)


def choose_text(config: RunConfig, family: Family) -> Trained:
    """What learns of CLIP; nothing where `adapter.text_encoder` is not set. Raises ConfigError."""
    adapter = config.adapter
    if not adapter.text_encoder:
        return Trained({}, {}, torch.float32)
    if family.adapted_text is None:
        raise ConfigError(
            f"The model {family.variant} has no CLIP.",
            got="adapter.text_encoder = true",
            expected="a model whose first text encoder is CLIP-L",
            fix="remove adapter.text_encoder",
        )
    linears = {TEXT_PREFIX + name: shape for name, shape in list_linears(family.load_skeleton(family.adapted_text)).items()}
    modules = {name: shape for name, shape in linears.items() if find_text_module(name.removeprefix(TEXT_PREFIX)) == name}
    rank, largest = _choose_rank(adapter), max(min(shape) for shape in modules.values())
    if rank > largest:
        raise ConfigError(
            "The rank is higher than any layer of CLIP has.",
            got=f"adapter.text_encoder_rank = {rank}" if adapter.text_encoder_rank is not None else f"adapter.rank = {rank}",
            expected=f"at most {largest}; 4 to 32 is usual",
            fix="lower adapter.text_encoder_rank, or set it",
        )
    check_start(adapter, dict.fromkeys(modules, rank))
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (inputs, outputs) in modules.items():
        shapes |= {f"{name}.lora_A.default.weight": (rank, inputs), f"{name}.lora_B.default.weight": (outputs, rank)}
    own, lr = config.optim.text_encoder_lr, config.optim.choose_lr(adapter.form)
    return Trained(modules, shapes, torch.float32, {} if own is None else dict.fromkeys(shapes, own / lr))


def build_text_lora(
    transformer: nn.Module, config: RunConfig, *, trained: Trained, start: AdapterFile | None
) -> list[tuple[str, nn.Parameter]]:
    """Put adapters on the CLIP that hangs on a transformer; returns the parameters that learn. B is zero, so it starts as it was, or as
    `start` left it."""
    modules = [name.removeprefix(TEXT_PREFIX) for name in trained.modules if is_text(name)]
    if not modules:
        return []
    if start is not None:
        start = replace(start, modules={name.removeprefix(TEXT_PREFIX): one for name, one in start.modules.items() if is_text(name)})
    adapter = config.adapter
    own = AdapterConfig(rank=_choose_rank(adapter), alpha=adapter.alpha, dropout=adapter.dropout, rslora=adapter.rslora, init=adapter.init)
    encoder = transformer.get_submodule(_NAME)
    parameters = build_lora(encoder, own, modules=modules, seed=build_seed(config.train.seed, "adapter", "text"), start=start)
    return [(TEXT_PREFIX + name, parameter) for name, parameter in parameters]


def build_text_put(put: Put, *, encoders: Encoders, learns: bool) -> Put:
    """`put`, and before it CLIP is hung on the transformer, if it `learns`."""
    part = encoders.family.adapted_text
    if not learns or part is None:
        return put

    def put_both(transformer: nn.Module) -> None:
        add_encoder(transformer, encoders.load(part))
        put(transformer)

    return put_both


def add_encoder(transformer: nn.Module, encoder: nn.Module) -> None:
    """Hang an encoder on a transformer."""
    transformer.add_module(_NAME, encoder)


def find_text(family: Family, transformer: nn.Module) -> TextLearner | None:
    """The CLIP that learns, if one hangs on the transformer."""
    encoder = transformer._modules.get(_NAME)
    return None if encoder is None or family.adapted_text is None else TextLearner(family, family.adapted_text, encoder)


def describe_text(config: RunConfig, trained: Trained) -> str:
    """A line about it for a person."""
    own = choose_own(trained)
    lr = config.optim.text_encoder_lr or config.optim.choose_lr(config.adapter.form)
    numbers = f"{own.num_parameters:,} of these numbers on {len(own.modules)} of its layers"
    return f"CLIP learns too: rank {_choose_rank(config.adapter)}, {numbers}, lr {lr:g}; captions are encoded by it in each step"


def choose_own(trained: Trained) -> Trained:
    """Of all that learns, what is of CLIP."""
    modules = {name: one for name, one in trained.modules.items() if is_text(name)}
    shapes = {name: one for name, one in trained.shapes.items() if is_text(name)}
    return replace(trained, modules=modules, shapes=shapes)


def _choose_rank(adapter: AdapterConfig) -> int:
    return adapter.text_encoder_rank or adapter.rank
