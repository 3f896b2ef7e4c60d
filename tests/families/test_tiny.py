"""Tiny decoders: the library's own where it has them, and files of taef2, whose layers are written out here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from weber.errors import ModelError
from weber.families.tiny import TinyDecoder, load_tiny


@pytest.fixture(scope="module")
def library() -> AutoencoderTiny:
    torch.manual_seed(0)
    return AutoencoderTiny(latent_channels=16, encoder_block_out_channels=(64,) * 4, decoder_block_out_channels=(64,) * 4).eval()


def test_the_decoder_is_that_of_the_library(library: AutoencoderTiny, tmp_path: Path) -> None:
    library.save_pretrained(tmp_path / "taef1")
    decoder = load_tiny(str(tmp_path / "taef1"))
    latents = 3 * torch.randn(2, 16, 6, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = (library.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    assert decoder.channels == 16 and (decoder(latents) - expected).abs().max() < 1e-5
    assert not any(weight.requires_grad for weight in decoder.parameters())


def _build_state(*, shift: int, prefix: str, has_pool: bool) -> dict[str, Tensor]:
    """Random weights under the names that files have; layers as madebyollin/taesd counts them."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return 0.2 * torch.randn(shape, generator=generator)

    state = {"1.weight": draw(64, 32, 3, 3), "1.bias": draw(64)}
    for number in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18):
        for layer in (0, 2, 4):
            state |= {f"{number}.conv.{layer}.weight": 0.3 * draw(64, 64, 3, 3), f"{number}.conv.{layer}.bias": draw(64)}
        if has_pool and number < 6:
            state |= {f"{number}.pool.0.weight": draw(256, 64, 1, 1), f"{number}.pool.3.weight": draw(64, 256, 1, 1)}
            state |= {f"{number}.pool.1.weight": 1 + draw(256), f"{number}.pool.1.bias": draw(256)}
    for number in (7, 12, 17):
        state[f"{number}.weight"] = draw(64, 64, 3, 3)
    state |= {"19.weight": draw(3, 64, 3, 3), "19.bias": draw(3)}
    moved = {}
    for name, tensor in state.items():
        number, _, rest = name.partition(".")
        moved[f"{prefix}{int(number) + shift}.{rest}"] = tensor
    return moved


def _decode(state: dict[str, Tensor], latents: Tensor) -> Tensor:
    """taesd.py's decoder of FLUX.2, one operation after the other."""

    def convolve(hidden: Tensor, name: str) -> Tensor:
        return functional.conv2d(hidden, state[f"{name}.weight"], state.get(f"{name}.bias"), padding=1)

    def run_block(hidden: Tensor, number: int) -> Tensor:
        if f"{number}.pool.0.weight" in state:
            wide = functional.conv2d(hidden, state[f"{number}.pool.0.weight"])
            wide = functional.group_norm(wide, 4, state[f"{number}.pool.1.weight"], state[f"{number}.pool.1.bias"]).relu()
            hidden = hidden + functional.conv2d(wide, state[f"{number}.pool.3.weight"])
        inner = convolve(convolve(convolve(hidden, f"{number}.conv.0").relu(), f"{number}.conv.2").relu(), f"{number}.conv.4")
        return (inner + hidden).relu()

    hidden = convolve(torch.tanh(latents / 3) * 3, "1").relu()
    for blocks, after in (((3, 4, 5), 7), ((8, 9, 10), 12), ((13, 14, 15), 17)):
        for number in blocks:
            hidden = run_block(hidden, number)
        hidden = convolve(functional.interpolate(hidden, scale_factor=2.0), str(after))
    return convolve(run_block(hidden, 18), "19").clamp(0, 1)


@pytest.mark.parametrize("has_pool", [True, False])
@pytest.mark.parametrize(("shift", "prefix"), [(0, ""), (-1, "decoder.layers.")])
def test_files_of_their_makers(tmp_path: Path, shift: int, prefix: str, has_pool: bool) -> None:
    plain = _build_state(shift=0, prefix="", has_pool=has_pool)
    encoder = {"encoder.layers.0.weight": torch.zeros(64, 3, 3, 3)} if prefix else {}
    save_file({**_build_state(shift=shift, prefix=prefix, has_pool=has_pool), **encoder}, tmp_path / "taef2.safetensors")
    decoder = load_tiny(str(tmp_path / "taef2.safetensors"))
    latents = torch.randn(1, 32, 4, 6, generator=torch.Generator().manual_seed(1))
    found, expected = decoder(latents), _decode(plain, latents)
    assert decoder.channels == 32 and found.shape == (1, 3, 32, 48)
    assert (found - expected).abs().max() < 1e-5 and expected.std() > 0.05


def test_what_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"(?s)names no tiny decoder.*nowhere.*madebyollin/taef2"):
        load_tiny(str(tmp_path / "nowhere"))
    save_file({"a.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="no tiny decoder is in it"):
        load_tiny(str(tmp_path / "other.safetensors"))
    state = {f"decoder.{name}": tensor for name, tensor in TinyDecoder(16, has_pool=False).state_dict().items()}
    save_file(state | {"decoder.layers.18.bias": torch.zeros(4)}, tmp_path / "wide.safetensors")
    with pytest.raises(ModelError, match=r"layers.18.bias is \[4\], not \[3\]"):
        load_tiny(str(tmp_path / "wide.safetensors"))
    state.pop("decoder.layers.18.bias")
    save_file(state, tmp_path / "half.safetensors")
    with pytest.raises(ModelError, match="it lacks layers.18.bias"):
        load_tiny(str(tmp_path / "half.safetensors"))
