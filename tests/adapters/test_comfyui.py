"""Files in ComfyUI's hands, by the table of what it reads: every kind, layout and set of targets gives what weber merges, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.adapters.comfyui import read_file
from tests.adapters.conftest import DrawFactors
from tests.adapters.test_lycoris import FORMS, put, shake
from weber.adapters import layouts
from weber.adapters.files import save_adapter
from weber.adapters.layouts import LAYOUTS, check_layout
from weber.adapters.lycoris import list_changes
from weber.adapters.lycoris_files import load_lycoris, save_lycoris
from weber.adapters.lycoris_merge import build_changed_weights
from weber.adapters.lycoris_names import list_readers
from weber.adapters.merge import build_merged_weights
from weber.adapters.target import list_targets
from weber.errors import AdapterError
from weber.families.flux1 import keys as flux1
from weber.families.flux2 import keys as flux2
from weber.families.pairing import Pairing, build_original_weights
from weber.families.tensors import Entry, build_entry

Build = Callable[[], nn.Module]
ELSEWHERE = ("tiny", "nano", "controlnet", "all+ffs+embedder+controlnet")
"""Sets of layers that the tiny networks do not have."""
FIRST_LAYERS = ("img_in", "txt_in", "time_in", "vector_in", "guidance_in")
BY_ORIGINAL = {
    "time_guidance_embed.timestep_embedder.linear_1",
    "time_guidance_embed.timestep_embedder.linear_2",
    "time_guidance_embed.guidance_embedder.linear_1",
    "time_guidance_embed.guidance_embedder.linear_2",
    "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.linear",
    "single_stream_modulation.linear",
}
"""Layers of the second family that ComfyUI does not know by the library's names."""


class Family:
    """A tiny network with its tables."""

    def __init__(self, build: Build, pairings: Sequence[Pairing], sets: Mapping[str, Sequence[str]]) -> None:
        self.build, self.pairings = build, pairings
        self.base = {name: build_entry(tensor) for name, tensor in build().state_dict().items()}
        self.targets: list[str | list[str]] = [*(name for name in sets if name not in ELSEWHERE), ["*"]]
        self.sets = sets

    def list_names(self, target: str | list[str]) -> list[str]:
        return list_targets(self.build(), target, sets=self.sets)

    def to_originals(self, weights: Mapping[str, Entry]) -> dict[str, Tensor]:
        return {name: entry.read() for name, entry in build_original_weights(weights, self.pairings).items()}


@pytest.fixture(params=["first", "second"])
def family(request: pytest.FixtureRequest, load_network: Build, build_second: Build) -> Iterator[Family]:
    if request.param == "first":
        yield Family(load_network, flux1.PAIRINGS, flux1.ADAPTER_TARGETS)
    else:
        yield Family(build_second, flux2.PAIRINGS, flux2.ADAPTER_TARGETS)


def _is_equal(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> list[str]:
    return [name for name, tensor in ours.items() if not torch.equal(theirs[name], tensor)]


def test_every_set_of_targets_in_every_layout(family: Family, tmp_path: Path, draw_factors: DrawFactors) -> None:
    """Ranks and scales of their own, as with rules and rslora; what a layout does not carry is refused."""
    originals = family.to_originals(family.base)
    for target in family.targets:
        modules = draw_factors(family.build(), family.list_names(target), ranks=(4, 1, 3), alphas=(7.0, 2**0.5, 16.0))
        expected = family.to_originals(build_merged_weights(family.base, [(modules, 1.0)]))
        assert _is_equal(originals, expected), "an adapter without effect would show nothing"
        for layout in LAYOUTS:
            try:
                check_layout(modules, layout=layout, pairings=family.pairings)
            except AdapterError:
                continue
            path = tmp_path / f"{layout}.safetensors"
            save_adapter(path, modules, layout=layout, facts={}, metadata={}, pairings=family.pairings)
            theirs, lost = read_file(path, originals)
            absent = {f"transformer.{name}" for name in BY_ORIGINAL & modules.keys()} if layout == "diffusers" else set()
            assert set(lost) == absent
            notes = layouts.list_readers(modules, pairings=family.pairings) if layout == "diffusers" else []
            assert [note.startswith(f"ComfyUI does not find {len(absent)} layers") for note in notes] == [True] * bool(absent)
            assert absent or not _is_equal(theirs, expected), (target, layout)


def test_which_sets_a_layout_carries(family: Family) -> None:
    """Of all layers one at a time: `norm_out` only the library's, and kohya's what kohya's trainers write."""
    for name in family.list_names(["*"]):
        carried = []
        for layout in LAYOUTS:
            try:
                check_layout([name], layout=layout, pairings=family.pairings)
                carried.append(layout)
            except AdapterError:
                pass
        is_first = any(name in pairing.modules and pairing.original.startswith(FIRST_LAYERS) for pairing in family.pairings)
        kohya = ["kohya"] if is_first or "transformer_blocks" in name else []
        assert carried == ["diffusers", *([] if name == "norm_out.linear" else [*kohya, "comfyui"])]


@pytest.mark.parametrize("form", [form for form in FORMS if "dora" not in form and "bound" not in form])
def test_every_form_of_lycoris_on_every_layer(form: str, family: Family, tmp_path: Path) -> None:
    """Weights and biases; where ComfyUI turns the rows of `norm_out` after a change that depends on them, weber says so."""
    originals = family.to_originals(family.base)
    path = tmp_path / "adapter.safetensors"
    for target in ("blocks", ["*"]):
        network = family.build()
        shake(put(network, FORMS[form] | ({"linear_dim": 64} if form.startswith("boft") else {}), names=family.list_names(target)))
        save_lycoris(path, network, architecture="", title="", facts={}, pairings=family.pairings)
        expected = family.to_originals(build_changed_weights(family.base, load_lycoris(path).changes))
        theirs, lost = read_file(path, originals)
        assert not lost
        misread = form.split(",")[0] in ("diag-oft", "boft", "glora") and target == ["*"]
        assert _is_equal(theirs, expected) == (["final_layer.adaLN_modulation.1.weight"] if misread else [])
        notes = list_readers({one.name: one.settings for one in list_changes(network)}, pairings=family.pairings)
        told = "ComfyUI reads norm_out.linear otherwise, which has its rows in another order there: for it merge the adapter into its model"
        assert notes == ([told] if misread else [])
