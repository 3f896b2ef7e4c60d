"""Texts kept otherwise than their encoders made them, or not at all: the same run, or one with an error that is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import BuildRun, build_watcher
from tests.training.test_resume import read_losses, run_interrupted, run_whole
from weber.cache.live import LiveTexts
from weber.cache.store import Store
from weber.cache.text_forms import Fp8Text, build_text_form
from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.families.tokens import PROJECTED, TEXT
from weber.planning.plan import Plan, build_plan
from weber.planning.report import build_report
from weber.planning.space import list_disks
from weber.pocket.random_flux2 import build_random_flux2
from weber.pocket.random_flux3 import build_random_flux3
from weber.training.assemble import Encoded, encode_cache, train
from weber.training.batch import Loader, Reader


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Nothing is encoded before a test here."""
    return tmp_path / "cache"


def _build(build_run: BuildRun, form: str, name: str = "", **sections: Any) -> RunConfig:
    output = {"text_cache": form, "save_every": 4, **sections.pop("output", {})}
    return build_run(name or f"{form}/run", output=output, **sections)


def _encode(config: RunConfig) -> tuple[Plan, Store, Encoded]:
    plan = build_plan(config)
    store = Store(config.output.cache)
    return plan, store, encode_cache(plan, store, watcher=build_watcher()[0])


def test_a_text_behind_the_first_layer_is_what_that_makes_of_it_bit_for_bit(build_run: BuildRun) -> None:
    plan, store, _ = _encode(_build(build_run, "full"))
    other, _, encoded = _encode(_build(build_run, "projected"))
    assert encoded == Encoded(0, len(plan.needs.texts)), "the other encoder's are the same"
    layer = build_text_form("projected", plan.family, dtype=plan.dtype)
    for text in plan.needs.texts[:3]:
        full, kept = Reader(Store(store.folder), plan.encoders).read_text(text), Reader(Store(store.folder), other.encoders).read_text(text)
        assert TEXT not in kept and torch.equal(kept["pooled"], full["pooled"])
        assert torch.equal(layer.prepare({TEXT: full[TEXT][None]})[PROJECTED][0], kept[PROJECTED])
        with Loader(plan, Store(store.folder)) as loader, Loader(other, Store(store.folder)) as second:
            batch, same = loader.load(0)[0], second.load(0)[0]
            assert torch.equal(batch.latents_BCHW, same.latents_BCHW) and PROJECTED in same.condition


def test_runs_are_the_same_but_for_what_8_bits_lose(build_run: BuildRun) -> None:
    prompts = {"prompts": ["a zorb"], "steps": 2, "every": 8}
    losses = {form: read_losses(run_whole(_build(build_run, form, sampling=prompts))) for form in ("full", "projected", "live", "fp8")}
    _compare(losses)


def _compare(losses: dict[str, list[Any]]) -> None:
    """Texts that are encoded one by one have other last bits than those that were encoded together, on some machines."""
    numbers = {form: [one[1] for one in run] for form, run in losses.items()}
    assert losses["projected"] == losses["full"] != losses["fp8"]
    assert numbers["live"] == pytest.approx(numbers["full"], rel=1e-4)
    assert numbers["fp8"] == pytest.approx(numbers["full"], rel=0.02)


@pytest.mark.parametrize("form", ["projected", "live"])
def test_four_and_six_are_ten(build_run: BuildRun, form: str) -> None:
    whole = run_whole(_build(build_run, form, "whole/run"))
    parts, _ = run_interrupted(_build(build_run, form, "parts/run"), 4)
    train(_build(build_run, form, "parts/run"), resume=True, watcher=build_watcher()[0])
    assert read_losses(whole) == read_losses(parts)
    assert (whole / "adapter.safetensors").read_bytes() == (parts / "adapter.safetensors").read_bytes()


def test_what_the_plan_counts_is_what_is_written(build_run: BuildRun) -> None:
    folder = build_run("x").output.cache
    for form in ("full", "projected", "fp8", "live"):
        plan = build_plan(_build(build_run, form))
        before = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        (disk,) = list_disks(plan)
        need = next(one.num_bytes for one in disk.needs if one.what == "cache")
        Store(folder).collect(set())
        before = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        _encode(_build(build_run, form))
        written = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) - before
        assert need <= written <= need + 2**16, form
    assert "output.text_cache = \"live\"; what texts take on the disk: full " in build_report(plan)
    assert plan.needs.num_kept == 0 and "0 texts" in build_report(plan)


def test_8_bits_have_an_error_of_a_sixteenth_at_most() -> None:
    text = torch.randn(2, 9, 512) * torch.logspace(-4, 4, 9)[:, None]
    text[0, 3] = 0
    form = Fp8Text()
    packed = form.pack({TEXT: text, "pooled": text[:, 0]})
    assert packed[TEXT].dtype is torch.float8_e4m3fn
    back = torch.stack([form.unpack({name: one[row] for name, one in packed.items()}, torch.float32)[TEXT] for row in range(2)])
    largest = text.abs().amax(dim=-1, keepdim=True)
    assert ((back - text).abs() <= text.abs() / 16 + largest * 2.0**-17).all() and not back[0, 3].any()
    relative = (back - text).norm() / text.norm()
    assert 0.01 < relative < 0.04


@pytest.mark.parametrize("build", [build_random_flux2, build_random_flux3])
def test_other_families(build_run: BuildRun, tmp_path: Path, build: Any) -> None:
    path = build(tmp_path / "model", *(("klein-base",) if build is build_random_flux2 else ()))
    losses = {}
    for form in ("full", "projected", "live", "fp8"):
        sections = {"model": {"variant": None, "path": str(path)}, "data": [{"resolution": 64}], "train": {"steps": 2}}
        losses[form] = read_losses(run_whole(_build(build_run, form, **sections)))
    _compare(losses)


def test_a_layer_that_learns_is_refused(build_run: BuildRun) -> None:
    config = _build(build_run, "projected", adapter={"targets": ["context_embedder"]})
    with pytest.raises(ConfigError) as error:
        build_plan(config)
    assert error.value.got == 'output.text_cache = "projected"' and "context_embedder" in error.value.what
    build_plan(_build(build_run, "fp8", adapter={"targets": ["context_embedder"]}))
    with pytest.raises(ConfigError):
        build_plan(_build(build_run, "projected", adapter={"kind": "full"}))


def test_live_texts_are_remembered_up_to_a_bound(build_run: BuildRun) -> None:
    plan = build_plan(_build(build_run, "live"))
    live = LiveTexts(plan.encoders)
    first = live.read("a cat")
    assert live.read("a cat").keys() == first.keys() and live.num_encoded == 1
    num_bytes = sum(tensor.nbytes for tensor in first.values())
    small = LiveTexts(plan.encoders, most_bytes=2 * num_bytes)
    for text in ("a", "b", "a", "c", "a", "b"):  # b is forgotten for c
        small.read(text)
    assert small.num_encoded == 4
    assert all(torch.equal(one, first[name]) for name, one in small.read("a cat").items())
