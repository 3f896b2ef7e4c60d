"""Tiny decoders (madebyollin/taesd): from latents to pixels in a few milliseconds, good enough to see what a picture becomes.

One network for taef1 (FLUX.1) and taef2 (FLUX.2), which has a norm in its first blocks (taesd.py, `use_midblock_gn`). diffusers'
`AutoencoderTiny` is the same without that norm, and cannot hold taef2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from weber.errors import ModelError
from weber.families.hub import find_place
from weber.families.tensors import open_weights

_WIDTH = 64
_POOL_GROUPS = 4
_BLOCKS = (3, 3, 3, 1)
_DIFFUSERS = re.compile(r"decoder\.layers\.(\d+)\.(.+)")
_MAKERS = re.compile(r"(\d+)\.(.+)")
_KEY = "sampling.preview_model"


class _Block(nn.Module):
    """Three convolutions beside a shortcut; with `has_pool` what they see has been looked at through a norm over whole channels."""

    def __init__(self, *, has_pool: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(_WIDTH, _WIDTH), nn.ReLU(), _conv(_WIDTH, _WIDTH), nn.ReLU(), _conv(_WIDTH, _WIDTH))
        self.pool = _build_pool() if has_pool else None

    def forward(self, hidden_BCHW: Tensor) -> Tensor:
        """Of the same shape."""
        if self.pool is not None:
            hidden_BCHW = hidden_BCHW + self.pool(hidden_BCHW)
        return torch.relu(self.conv(hidden_BCHW) + hidden_BCHW)


class TinyDecoder(nn.Module):
    """Latents (B, C, H, W), as the network sees them, to pixels (B, 3, 8 H, 8 W) in 0..1."""

    def __init__(self, channels: int, *, has_pool: bool) -> None:
        super().__init__()
        self.channels = channels
        layers: list[nn.Module] = [_conv(channels, _WIDTH), nn.ReLU()]
        for part, number in enumerate(_BLOCKS):
            is_last = part == len(_BLOCKS) - 1
            layers += [_Block(has_pool=has_pool and part == 0) for _ in range(number)]
            layers += [] if is_last else [nn.Upsample(scale_factor=2)]
            layers.append(_conv(_WIDTH, 3 if is_last else _WIDTH, bias=is_last))
        self.layers = nn.Sequential(*layers)

    def forward(self, latents_BCHW: Tensor) -> Tensor:
        """See the class."""
        pixels: Tensor = self.layers(3 * torch.tanh(latents_BCHW / 3))
        return pixels.clamp(0, 1)


def load_tiny(place: str) -> TinyDecoder:
    """The decoder of a file, a folder or a hub id. Raises ModelError where it is none of these, or no tiny decoder."""
    file = _find(place)
    weights = open_weights([file])
    names = {name: moved for name in weights if (moved := _rename(name)) is not None}
    first = next((name for name, moved in names.items() if moved == "layers.0.weight"), None)
    if first is None or len(weights[first].shape) != 4:
        raise _refuse(file, "no tiny decoder is in it")
    decoder = TinyDecoder(weights[first].shape[1], has_pool="layers.2.pool.0.weight" in names.values())
    state = {moved: weights[name].read() for name, moved in names.items()}
    wanted = {name: tensor.shape for name, tensor in decoder.state_dict().items()}
    if {name: tensor.shape for name, tensor in state.items()} != wanted:
        raise _refuse(file, _describe_difference(state, wanted))
    decoder.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return decoder.eval().requires_grad_(False)


def _conv(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


def _build_pool() -> nn.Sequential:
    wide = 4 * _WIDTH
    first, last = nn.Conv2d(_WIDTH, wide, 1, bias=False), nn.Conv2d(wide, _WIDTH, 1, bias=False)
    return nn.Sequential(first, nn.GroupNorm(_POOL_GROUPS, wide), nn.ReLU(), last)


def _rename(name: str) -> str | None:
    """As `TinyDecoder` has it: diffusers counts the same layers; the makers count the clamp before them too. None: of an encoder."""
    if match := _DIFFUSERS.fullmatch(name):
        return f"layers.{match[1]}.{match[2]}"
    match = _MAKERS.fullmatch(name)
    return None if match is None else f"layers.{int(match[1]) - 1}.{match[2]}"


def _find(place: str) -> Path:
    path = find_place(place, ["*.safetensors"], key=_KEY)
    if path.is_file():
        return path
    files = sorted(path.glob("*.safetensors"), key=lambda file: ("decoder" not in file.name, file.name)) if path.is_dir() else []
    if not files:
        raise ModelError(
            f"{_KEY} names no tiny decoder.",
            got=place,
            expected="a .safetensors file, a folder with one, or a hub id: madebyollin/taef1 for FLUX.1, madebyollin/taef2 for FLUX.2",
            fix=f"correct {_KEY}, or remove it: previews are then made by a fit to the training pictures",
        )
    return files[0]


def _describe_difference(state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> str:
    missing, surplus = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or surplus:
        return f"it lacks {missing[0]}" if missing else f"{surplus[0]} is no part of it"
    name = next(name for name in wanted if state[name].shape != wanted[name])
    return f"{name} is {list(state[name].shape)}, not {list(wanted[name])}"


def _refuse(file: Path, why: str) -> ModelError:
    return ModelError(
        f"{_KEY} is not a tiny decoder that weber knows: {why}.",
        got=str(file),
        expected="madebyollin/taef1 for FLUX.1, madebyollin/taef2 for FLUX.2",
        fix=f"correct {_KEY}, or remove it",
    )
