"""What the trainer may ask of a model, whatever its family.

Shapes: B batch, C latent channels, H W latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from weber.blocks.own import OwnBlocks
from weber.families.graphs import BuildGraph
from weber.families.pairing import Pairing
from weber.families.route import Route
from weber.families.tensors import Weights
from weber.families.weights import Fill

Condition = Mapping[str, Tensor]
"""All that the network is told beside the noisy latents: what `encode_prompts` returned for every part, batched; `guidance` (B,) fp32
where the model has that input; `reference_0`, `reference_1`, ... latents (B, C, h, w) of reference pictures, each with its own size;
`masked` and `mask`, as `encode_images` returns them, for a model that repaints; where tokens are to skip blocks (`route.py`),
`route_scores` (N,) fp32, a uniform number for each token of the picture, and `route_kept` (N,) bool, those that never do. The step never
looks inside."""

REFERENCE = "reference_"
TRANSFORMER = "transformer"


def list_references(condition: Condition) -> list[Tensor]:
    """The latents of the reference pictures of a condition, in order."""
    num_references = sum(name.removeprefix(REFERENCE).isdecimal() for name in condition)
    return [condition[f"{REFERENCE}{number}"] for number in range(num_references)]


@dataclass(frozen=True)
class SampleDefaults:
    """How a variant is meant to be sampled and trained; `None` guidance: the model has no guidance input.

    `cfg`: scale of classifier-free guidance with a second, negative prompt; 1 = one pass. `timesteps`: the law that it is trained with.
    """

    steps: int
    guidance: float | None
    training_guidance: float | None
    cfg: float = 1.0
    timesteps: str = "sigmoid"


@dataclass(frozen=True)
class PictureInputs:
    """Pictures that a model looks at beside the noise: up to `max_references` references, or a picture with a mask (`repaints`).

    `sizes`: (width, height) of the pictures that it was made for, where it was made for a list of them. `mask_channels`: channels that a
    mask has at the latents' size.
    """

    max_references: int = 0
    repaints: bool = False
    sizes: tuple[tuple[int, int], ...] = ()
    mask_channels: int = 0


@dataclass(frozen=True)
class TextLimit:
    """How much a text part reads: the first `most_tokens` of a prompt, of which `count` says how many tokens each has, uncut."""

    most_tokens: int
    count: Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True)
class TextRange:
    """How many tokens the network may see of a text, padding included: `most` is what the model was made for."""

    fewest: int
    most: int


TextLimits = Mapping[str, Callable[[], TextLimit]]
"""What says so of each text part; it opens a tokenizer."""


class Run(Protocol):
    """How a block is run: what checkpoints, swaps or shards a network is put here, so that the loop over the blocks knows of none of it."""

    def __call__(self, block: nn.Module, call: Callable[..., Any], *inputs: Any) -> Any:
        """`call(*inputs)`, where `call` is the block or a stand-in that runs it."""
        ...


def run_plainly(block: nn.Module, call: Callable[..., Any], *inputs: Any) -> Any:
    """A block as it is."""
    return call(*inputs)


class Predictor(Protocol):
    """The network as a callable nn.Module over unpacked latents; `transformer` is the library's model that adapters are put on.

    Its blocks are run by `run`, in the order of `Family.blocks`; `routes` lead past some of them, where the condition says so. With
    `is_fused`, blocks that are plain have a forward of their own; the library's is then equal to its last bits, and slower. `attention`:
    the backend (`kernels/attention.py`) that attends in all blocks; None: what PyTorch takes by itself.
    """

    transformer: nn.Module
    run: Run
    routes: Sequence[Route]
    is_fused: bool
    own_blocks: OwnBlocks
    attention: str | None

    def __call__(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Velocity (B, C, H, W) at noise level t (B,) fp32 in 0..1 of noisy latents (B, C, H, W)."""
        ...


class Family(Protocol):
    """One base model: where its parts are and what its tensors mean. Building one reads configuration files only, no weights.

    Sides of pictures are multiples of `alignment_pixels`; a latent has `latent_patch` cells of 8 pixels on a side, whose channels lie
    behind each other; the model was made for squares of about `native_pixels`. `pairings` are the names of the makers' files;
    `transformer_config` is the library's configuration; `architecture` is what files say of themselves (`modelspec.architecture`,
    without its ending); `assistant` is the LoRA that takes part in training unless something else is said. `takes_reference_t`: the
    tokens of references may be told a noise level of their own, `reference_t` (B,) in the condition. `takes_routes`: its predictor's
    `routes` may be set. `reference_modules` are patterns of layers that take part only with references. `prompts_per_batch` limits
    `encode_prompts`, for text tensors whose shape is the prompt's own; `adapted_text` is the text part that adapters can be put on
    (CLIP), None where there is none. `modulation_modules` are patterns of linear layers inside the blocks that are fed by one vector
    per sample. `lean_layers` are patterns of linear layers in blocks whose outputs lean checkpointing does not keep: `recompute`, or
    `skip` where nothing in the block's backward pass needs them. `joined_layers` are names inside a block of layers that read the same
    input, the longest group first. `text_limits`: for each text part what says how much of a prompt it reads; it opens a tokenizer.
    `text_range`: what `model.text_tokens` may be for the last text part, None where the padded length is part of the model.
    `build_graph`: a picture as a graph of ComfyUI. `skeleton`: the transformer as `load_skeleton` makes it, made once: to be looked at,
    and never changed.
    """

    variant: str
    is_local: bool
    alignment_pixels: int
    latent_patch: int
    native_pixels: int
    image_part: str
    text_parts: tuple[str, ...]
    sample_defaults: SampleDefaults
    picture_inputs: PictureInputs
    adapter_targets: Mapping[str, Sequence[str]]
    pairings: Sequence[Pairing]
    transformer_config: dict[str, object]
    architecture: str
    assistant: str | None
    takes_reference_t: bool
    takes_routes: bool
    reference_modules: Sequence[str]
    prompts_per_batch: int | None
    adapted_text: str | None
    modulation_modules: Sequence[str]
    lean_layers: Mapping[str, str]
    joined_layers: Sequence[Sequence[str]]
    text_limits: TextLimits
    text_range: TextRange | None
    build_graph: BuildGraph
    skeleton: nn.Module

    def identify(self, part: str) -> str:
        """Identity of a part's weights, configuration and tokenizer, as text; part of every cache key made with it."""
        ...

    def load(self, part: str, *, device: torch.device, dtype: torch.dtype, fill: Fill | None = None) -> nn.Module:
        """Read an encoder (`image_part` or one of `text_parts`), frozen, in eval mode.

        With `fill`, of text parts only, the weights are put into their places by it, one tensor at a time.
        """
        ...

    def build_predictor(self, transformer: nn.Module, *, is_modulation_apart: bool = False) -> Predictor:
        """The network around a transformer that `load_skeleton` made and that has weights by now.

        With its modulation apart, `modulation_modules` stay on the device where they are, and compute there.
        """
        ...

    def load_skeleton(self, part: str = TRANSFORMER) -> nn.Module:
        """The transformer on the meta device: names and shapes without weights; or the encoder of the part `adapted_text`."""
        ...

    def open_transformer(self) -> Weights:
        """The weights of the transformer, under the library's names, one tensor at a time."""
        ...

    def blocks(self, predictor: Predictor) -> list[nn.Module]:
        """The blocks in order: the list that checkpointing, swap, sharding and compilation all use."""
        ...

    def encode_images(self, encoder: nn.Module, pixels: Tensor, *, masks: Tensor | None = None) -> dict[str, Tensor]:
        """Pixels (B, 3, 8H, 8W) fp32 in -1..1 to `{"latents": (B, C, H, W)}`, normalized as the network expects.

        With masks (B, 1, 8H, 8W) fp32, 1 = to be painted anew, for a model that repaints: `masked`, the latents of what is kept, and
        `mask`, as the network expects them.
        """
        ...

    def reference_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) that a reference picture of that many pixels has when it keeps its own shape."""
        ...

    def encode_prompts(self, part: str, encoder: nn.Module, prompts: Sequence[str]) -> dict[str, Tensor]:
        """What this text part adds to the condition; the first dimension of every tensor is the prompt."""
        ...

    def decode_latents(self, encoder: nn.Module, latents: Tensor) -> Tensor:
        """Latents (B, C, H, W) to pixels (B, 3, 8H, 8W) fp32 in -1..1."""
        ...

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, H, W) of a picture of that many pixels."""
        ...

    def text_shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """Shapes of what `encode_prompts` returns for one prompt, without the first dimension."""
        ...

    def num_tokens(self, latent_height: int, latent_width: int) -> int:
        """Image tokens that the network sees for latents of that size."""
        ...

    def shift(self, num_tokens: int) -> float:
        """k of the timestep shift t' = k t / (1 + (k - 1) t) for that many image tokens."""
        ...

    def sigmas(self, num_steps: int, num_tokens: int) -> list[float]:
        """Noise levels of the sampler, from 1 down to 0, `num_steps` + 1 of them."""
        ...
