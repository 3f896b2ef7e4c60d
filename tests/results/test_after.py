"""Adapter files after training: lower ranks, two files side by side, what becomes of a file elsewhere; of every family."""

from __future__ import annotations

import json
import math
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.adapters.test_compare import build_diagonal
from tests.adapters.test_lycoris import FORMS, put, shake
from tests.runs import BuildRun, build_watcher, write_pocket_lora
from weber.adapters.compare import Comparison
from weber.adapters.factors import Factors
from weber.adapters.files import AdapterFile, load_adapter, save_adapter
from weber.adapters.lycoris_files import save_lycoris
from weber.config.load import build_config, save_config
from weber.errors import AdapterError, CheckpointError, ConfigError
from weber.families.flux1.keys import PAIRINGS
from weber.families.flux1.variants import POCKET
from weber.families.table import FAMILIES, FamilyRow
from weber.families.tensors import Weights, build_entry, read_metadata
from weber.memory.formats import FORMATS
from weber.pocket.random_flux2 import build_random_flux2
from weber.pocket.random_flux3 import build_random_flux3
from weber.progress import ignore_progress
from weber.results import check, diff, export, merge, resize
from weber.results.survival import Survival, measure_survival
from weber.training.assemble import train

LAYERS = {
    "FluxTransformer2DModel": ("transformer_blocks.0.attn.to_q", "transformer_blocks.0.ff.net.2", (8, 32)),
    "Flux2Transformer2DModel": ("transformer_blocks.0.attn.add_k_proj", "single_transformer_blocks.1.attn.to_out", (8, 32)),
    "Flux3Transformer2DModel": ("mode_blocks.image.0.attn.to_q", "single_transformer_blocks.1.ff.linear_out", (8, 6)),
}
"""Of each family a layer and one whose inputs are more."""
TARGETS = ["transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.proj_mlp"]


def cut(source: Path, out: Path, *, rank: int | None = None, energy: float | None = None) -> resize.Resized:
    return resize.resize(source, rank=rank, energy=energy, out=out, progress=ignore_progress)


def compare(first: Path, second: Path, *, base: str | None = None) -> Comparison:
    return diff.diff(first, second, base=base, progress=ignore_progress)


def look(source: Path, *, original: Path | None = None, base: str | None = None) -> check.Check:
    return check.check(source, original=original, base=base, progress=ignore_progress)


def _write(path: Path, row: FamilyRow, layout: str, *, values: tuple[float, ...] = (4, 3, 2, 1)) -> dict[str, Factors]:
    first, second, wide = LAYERS[row.transformer_class]
    modules = {first: build_diagonal(*values, shape=(8, 8)), second: build_diagonal(*values, alpha=8.0, shape=wide)}
    facts, metadata = {"steps": 7}, {"ss_network_dim": "4", "ss_network_alpha": "4.0", "ss_note": "kept", "sshs_model_hash": "0"}
    metadata |= {"modelspec.sai_model_spec": "1.0.1"}
    save_adapter(path, modules, layout=layout, facts=facts, metadata=metadata, pairings=row.pairings)
    return modules


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "comfyui"])
@pytest.mark.parametrize("row", FAMILIES, ids=[row.transformer_class for row in FAMILIES])
def test_lower_ranks_of_every_family_in_every_layout(row: FamilyRow, layout: str, tmp_path: Path) -> None:
    """Of directions 4, 3, 2, 1 the first two stay: what is lost is sqrt(5 / 30)."""
    path, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    if layout == "kohya" and row is FAMILIES[2]:
        return  # no program reads it
    _write(path, row, layout)
    told = cut(path, out, rank=2)
    assert told.error == pytest.approx(math.sqrt(5 / 30), rel=1e-6)
    assert [one.error for one in told.cuts] == pytest.approx([math.sqrt(5 / 30)] * 2, rel=1e-6)
    before, after = load_adapter(path), load_adapter(out)
    assert (after.layout, after.classes, after.notes) == (before.layout, before.classes, before.notes)
    assert load_file(out).keys() == load_file(path).keys()
    assert after.modules.keys() == before.modules.keys() == {*LAYERS[row.transformer_class][:2]}
    for one in after.modules.values():
        assert one.rank == one.alpha == 2
        assert torch.allclose(one.build_delta()[:4, :4], torch.diag(torch.tensor([4.0, 3.0, 0.0, 0.0])), atol=1e-6)
    texts, old = read_metadata(out), read_metadata(path)
    assert (texts["ss_network_dim"], texts["ss_network_alpha"], texts["ss_note"]) == ("2", "2.0", "kept")
    assert texts["modelspec.hash_sha256"] != old["modelspec.hash_sha256"] and "sshs_model_hash" not in texts
    assert json.loads(texts["weber"]) == {"steps": 7, "resized": f"{tmp_path.name}/a.safetensors"}
    assert cut(path, out, energy=0.5).cuts[0].rank == 1, "a result may be made again"
    found = compare(path, out)
    assert found.total.share == pytest.approx(math.sqrt(14 / 30), rel=1e-6)
    assert found.total.cosine == pytest.approx(4 / math.sqrt(30), rel=1e-6)
    assert look(out, original=path).equality == pytest.approx(check.Equality(2, 2, found.layers[0].share, found.layers[0].name))


def test_files_of_other_trainers_keep_their_strength(tmp_path: Path) -> None:
    """Alpha beside the factors, in PEFT's settings, and in PEFT's own file; ranks and alphas of single layers too."""
    stem, other = "single_transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.attn.to_k"
    factors = build_diagonal(4, 3, 2, 1, alpha=2.0, shape=(8, 8))
    names = ("lora_down", "lora_up")
    kohya = {f"lora_unet_double_blocks_0_img_attn_proj.{names[0]}.weight": factors.down}
    kohya |= {f"lora_unet_double_blocks_0_img_attn_proj.{names[1]}.weight": factors.up}
    kohya |= {"lora_unet_double_blocks_0_img_attn_proj.alpha": torch.tensor([2.0]), "bundle_emb.word": torch.ones(2)}
    save_file(kohya, tmp_path / "kohya.safetensors")
    peft: dict[str, Tensor] = {f"transformer.{stem}.lora_A.weight": factors.down, f"transformer.{stem}.lora_B.weight": factors.up}
    peft |= {f"transformer.{other}.lora_A.weight": factors.down[:1].clone(), f"transformer.{other}.lora_B.weight": 1 * factors.up[:, :1]}
    settings = {"transformer.r": 4, "transformer.lora_alpha": 2, "transformer.alpha_pattern": {f"^{other}": 5}}
    save_file(peft, tmp_path / "peft.safetensors", metadata={"lora_adapter_metadata": json.dumps(settings)})
    (tmp_path / "own").mkdir()
    own = {name.replace("transformer.", "base_model.model.", 1): tensor for name, tensor in peft.items()}
    save_file(own, tmp_path / "own" / "adapter_model.safetensors")
    (tmp_path / "own" / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 2, "alpha_pattern": {f"^{other}": 5}}))
    for path in (tmp_path / "kohya.safetensors", tmp_path / "peft.safetensors", tmp_path / "own" / "adapter_model.safetensors"):
        out = tmp_path / "out" / path.name.replace("_model", "")
        assert cut(path, out, rank=3).error == pytest.approx(math.sqrt(1 / (30 if "kohya" in path.name else 30 + 1600)), rel=1e-4)
        before, after = load_adapter(path), load_adapter(out)
        assert after.layout == before.layout and load_file(out).keys() == load_file(path).keys()
        for name, one in after.modules.items():
            expected = before.modules[name].build_delta()
            assert (one.build_delta() - expected).abs().max() <= (1 if expected[0, 0] == 4 else 0) + 1e-5
    assert load_file(tmp_path / "out" / "kohya.safetensors")["lora_unet_double_blocks_0_img_attn_proj.alpha"].tolist() == [3.0]


def test_resizing_that_cannot_be(tmp_path: Path) -> None:
    path, out, dora = (tmp_path / f"{name}.safetensors" for name in ("a", "b", "dora"))
    _write(path, FAMILIES[0], "kohya")
    for rank, energy in ((None, None), (0, None), (-1, None), (None, 0.0), (None, 1.5)):
        with pytest.raises(ConfigError, match="not said how much of the change"):
            cut(path, out, rank=rank, energy=energy)
    for rank, energy in ((4, None), (64, None), (None, 1.0)):
        with pytest.raises(ConfigError, match="No layer would get a lower rank") as caught:
            cut(path, out, rank=rank, energy=energy)
        assert "ranks up to 4" in caught.value.got
    with pytest.raises(ConfigError, match="would replace what it is made from"):
        cut(path, path, rank=1)
    save_file(load_file(path), out)
    with pytest.raises(ConfigError, match="would replace something"):
        cut(path, out, rank=1)
    write_pocket_lora(dora, dora=True)
    with pytest.raises(AdapterError, match="A DoRA cannot be resized"):
        cut(dora, tmp_path / "c.safetensors", rank=1)
    save_file({"lycoris_single_transformer_blocks_0_attn_to_q.lokr_w1": torch.ones(2, 2)}, tmp_path / "lokr.safetensors")
    with pytest.raises(AdapterError, match="but a LoKr"):
        cut(tmp_path / "lokr.safetensors", tmp_path / "c.safetensors", rank=1)
    assert not (tmp_path / "c.safetensors").exists()


def test_half_files_and_files_of_other_models(tmp_path: Path) -> None:
    first, second, half = (tmp_path / f"{name}.safetensors" for name in ("first", "second", "half"))
    _write(first, FAMILIES[0], "comfyui")
    _write(second, FAMILIES[2], "comfyui")
    half.write_bytes(first.read_bytes()[:-40])
    one_sided = tmp_path / "one.safetensors"
    save_file({name: tensor for name, tensor in load_file(first).items() if "lora_up" not in name}, one_sided)
    for broken in (half, one_sided):
        asks = (partial(cut, broken, tmp_path / "c.safetensors", rank=1), partial(compare, first, broken), partial(look, broken))
        for ask in asks:
            with pytest.raises(AdapterError) as caught:
                ask()
            assert str(broken) in str(caught.value)
    with pytest.raises(AdapterError, match="not adapters of one model"):
        compare(first, second)
    with pytest.raises(AdapterError, match="not adapters of one model"):
        look(first, original=second)
    with pytest.raises(AdapterError, match="not for this model"):
        look(first, base="pocket")
    with pytest.raises(ConfigError, match="no such adapter file"):
        compare(first, tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="no adapter"):
        look(tmp_path)


def _open(name: str, delta: Tensor) -> AdapterFile:
    return AdapterFile("diffusers", {name: Factors(torch.eye(delta.shape[1]), delta, float(delta.shape[1]))}, {}, {})


@pytest.mark.parametrize(
    ("format", "largest", "weight", "lost", "left"), [("int8", 127.0, 5.0, 0.25, 2.0), ("fp8", 448.0, 16.0, 0.5, 2.0)]
)
def test_what_survives_by_hand(format: str, largest: float, weight: float, lost: float, left: float) -> None:
    """The largest weight of each row makes its scale 1: so whole numbers stay in int8, and between 16 and 32 steps of 2 in fp8."""
    base = torch.full((4, 8), weight)
    base[:, 0] = largest
    delta = torch.zeros(4, 8)
    delta[:, 1:4], delta[:, 4:6] = lost, -left
    delta[3] = 0
    [found] = measure_survival(_open("a", delta), {"a.weight": build_entry(base)}, formats=[format])
    whole = 9 * lost**2 + 6 * left**2
    if format == "fp8":  # below 16 steps are of 1, so that 14 is one of them
        assert float((base - left)[0, 4]) == 14
    assert found.share == pytest.approx(6 * left**2 / whole, rel=1e-6)
    assert found.error == pytest.approx(math.sqrt(9 * lost**2 / whole), rel=1e-6)
    assert found.layers == {"a": found.share}
    assert measure_survival(_open("a", 0 * delta), {"a.weight": build_entry(base)}) == []


def test_what_survives_by_the_formula() -> None:
    """Of several layers together, on weights in bf16, and more of a large change than of a small one."""
    generator = torch.Generator().manual_seed(0)
    base: Weights = {f"{name}.weight": build_entry(torch.randn(64, 128, generator=generator).bfloat16() / 20) for name in "ab"}
    shares = []
    for scale in (1e-4, 1e-2):
        deltas = {name: scale * torch.randn(64, 128, generator=generator) for name in "ab"}
        modules = {name: _open(name, delta).modules[name] for name, delta in deltas.items()}
        for one in measure_survival(AdapterFile("diffusers", modules, {}, {}), base):
            along = missing = whole = 0.0
            for name in deltas:
                weight, format = base[f"{name}.weight"].read().float(), FORMATS[one.format]
                delta = (weight + deltas[name] - weight).double()
                low = format.unpack(format.pack(weight), shape=(64, 128), dtype=torch.float32)
                arrived = (format.unpack(format.pack(low + delta.float()), shape=(64, 128), dtype=torch.float32) - low).double()
                along, whole = along + float((arrived * delta).sum()), whole + float((delta**2).sum())
                missing += float(((arrived - delta) ** 2).sum())
            assert one.share == pytest.approx(along / whole, rel=1e-3, abs=1e-6)
            assert one.error == pytest.approx(math.sqrt(missing / whole), rel=1e-3)
            shares.append((one.format, one.share))
    assert [name for name, _ in shares] == ["fp8", "int8", "nf4"] * 2
    assert all(large > small for (_, small), (_, large) in zip(shares[:3], shares[3:], strict=True))
    assert str(Survival("fp8", 0.9234, 0.31, {"a": 0.95, "b": 0.4})) == "92.3% of the change survives, error 31.0%; least in b: 40.0%"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """A tiny model of every family."""
    place = tmp_path_factory.mktemp("models")
    second, third = build_random_flux2(place / "second", "klein-base"), build_random_flux3(place / "third")
    return {row.transformer_class: path for row, path in zip(FAMILIES, (tiny_model, second, third), strict=True)}


@pytest.mark.parametrize("row", FAMILIES, ids=[row.transformer_class for row in FAMILIES])
def test_checks_of_every_family(row: FamilyRow, models: dict[str, Path], tmp_path: Path) -> None:
    """The adapter, the same in another layout, and a whole model with it."""
    base, path, other, whole = str(models[row.transformer_class]), *(tmp_path / f"{name}.safetensors" for name in "abc")
    shapes = {name: entry.shape for name, entry in check._open_model(path, None, base, architecture="")[0].weights.items()}  # type: ignore[union-attr]
    generator = torch.Generator().manual_seed(0)
    modules = {}
    for name in LAYERS[row.transformer_class][:2]:
        rows, columns = shapes[f"{name}.weight"]
        modules[name] = Factors(torch.randn(4, columns, generator=generator), 0.02 * torch.randn(rows, 4, generator=generator), 4.0)
    save_adapter(path, modules, layout="diffusers", facts={}, metadata={}, pairings=row.pairings)
    save_adapter(other, modules, layout="comfyui", facts={}, metadata={}, pairings=row.pairings)
    found = look(other, original=path, base=base)
    assert found.equality == check.Equality(2, 0, 0.0, found.equality.name)  # type: ignore[union-attr]
    assert {one.program: not one.left for one in found.readings} == {
        **dict.fromkeys(("diffusers", "ComfyUI", "BFL"), True),
        **dict.fromkeys(("kohya", "LyCORIS"), False),
        "ai-toolkit": row.transformer_class == "Flux2Transformer2DModel",  # there in the names of its makers, as in this layout
    }
    assert [one.format for one in found.survival] == ["fp8", "int8", "nf4"]
    assert all(0 < one.share < 1.5 and set(one.layers) == set(modules) for one in found.survival)
    assert all(words in str(found) for words in ("are equal to the original, to the bit", "in nf4"))
    assert "+ diffusion_model." in found.describe_keys()
    bare = look(other, original=path)
    assert not bare.survival and "add --base" in bare.notes[-1]
    merge.merge([(path, 1.0)], base=base, out=whole, layout=None, rank=None, progress=ignore_progress)
    for one in (whole, tmp_path / "folder"):
        if one.suffix == "":
            merge.merge([(path, 1.0)], base=base, out=one, layout=None, rank=None, progress=ignore_progress)
        told = look(one, original=other, base=base)
        assert told.equality is not None and told.equality.num_different == 0 and told.equality.num_layers == len(shapes)
        loads = {reading.program: bool(reading.loaded) and not reading.left for reading in told.readings}
        assert loads["diffusers"] and loads["BFL"] == loads["ComfyUI"] == (one is whole) or row is FAMILIES[0]
        assert loads["BFL"] == (one is whole)
    merge.merge([(path, 0.5)], base=base, out=whole, layout=None, rank=None, progress=ignore_progress)
    assert look(whole, original=path, base=base).equality.num_different == 2  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="was merged into is not known"):
        look(whole, original=path)
    with pytest.raises(ConfigError, match="--base has no effect"):
        look(whole, base=base)


def test_runs_are_taken_wherever_files_are(build_small: BuildRun, tmp_path: Path) -> None:
    """The base is then the run's; of LyCORIS too, whose turns need it."""
    config = build_small("lora", adapter={"rank": 4, "targets": TARGETS}, optim={"lr": 1e-2})
    train(config, resume=False, watcher=build_watcher()[0])
    lora, turns = config.output.folder, tmp_path / "turns"
    turns.mkdir()
    shutil.copy(lora / "config.toml", turns)
    network = FluxTransformer2DModel.from_pretrained(POCKET / "transformer")
    shake(put(network, FORMS["diag-oft"], names=TARGETS))
    save_lycoris(turns / "adapter.safetensors", network, architecture="", title="", facts={}, pairings=PAIRINGS)
    assert compare(lora, lora / "checkpoint-000004").total.share < 1e-6
    early = compare(lora, lora / "checkpoint-000002")
    assert early.different and 0 < early.total.share < 1
    told = cut(lora, tmp_path / "small.safetensors", rank=1)
    assert told.cuts and {one.rank for one in told.cuts} == {1} and 0 < told.error < 1
    found = look(lora)
    assert len(found.survival) == 3 and all(not reading.left for reading in found.readings if reading.program in ("diffusers", "ComfyUI"))
    [written] = export.export(lora, ["kohya"], base=None, out=None, progress=ignore_progress)
    assert look(written, original=lora).equality.num_different == 0  # type: ignore[union-attr]
    of_turns = look(turns)
    assert len(of_turns.survival) == 3 and {reading.program for reading in of_turns.readings if not reading.left} >= {"LyCORIS", "ComfyUI"}
    with pytest.raises(AdapterError, match="depends on the weights"):
        compare(turns, lora)
    assert compare(turns, turns, base="pocket").total.share == 0
    merge.merge([(lora, 0.5)], base=None, out=tmp_path / "half.safetensors", layout=None, rank=None, progress=ignore_progress)
    assert compare(lora, tmp_path / "half.safetensors").total.share == pytest.approx(0.5)
    assert 0 < compare(turns, lora, base="pocket").total.share <= 2
    bare = Path(shutil.copy(turns / "adapter.safetensors", tmp_path / "turns.safetensors"))
    assert look(bare, original=turns).equality.num_different == 0  # type: ignore[union-attr]


def test_changes_of_clip_beside_the_transformers(tmp_path: Path) -> None:
    """They are cut and compared as others; a whole model lacks them, and its bits say nothing of them."""
    text = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    modules = {TARGETS[0]: build_diagonal(2, 1, shape=(192, 192)), text: build_diagonal(3, 1)}
    for layout in ("diffusers", "kohya", "comfyui"):
        path, out = tmp_path / f"{layout}.safetensors", tmp_path / f"{layout}-1.safetensors"
        save_adapter(path, modules, layout=layout, facts={}, metadata={}, pairings=PAIRINGS)
        assert cut(path, out, rank=1).error == pytest.approx(math.sqrt(2 / 15), rel=1e-6)
        assert {one.name for one in compare(path, out).different} == set(modules)
        found = look(out, original=path, base="pocket")
        loads = {one.program: not one.left for one in found.readings}
        assert loads["diffusers"] and loads["ComfyUI"] and loads["kohya"] == (layout == "kohya") and not loads["BFL"]
        assert all(set(one.layers) == {TARGETS[0]} for one in found.survival)


def test_a_run_whose_model_is_away_is_checked_without_it(tmp_path: Path) -> None:
    path = write_pocket_lora(tmp_path / "adapter.safetensors")
    tree = {"model": {"path": str(tmp_path / "away")}, "data": [{"path": str(tmp_path)}], "train": {"steps": 1}}
    save_config(build_config(tree), tmp_path / "config.toml")
    found = look(path)
    assert not found.survival and found.notes[-1].startswith("the run's model cannot be read")
