"""Pictures from what is no run: an adapter file from anywhere on a model, and a model as it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import weber
from tests.runs import BuildRun, build_watcher, write_pocket_lora
from weber.errors import WeberError
from weber.training.assemble import train

ASKED: dict[str, Any] = {"seed": 3, "steps": 2}


def paint(place: object, **asked: Any) -> np.ndarray[Any, Any]:
    [picture] = weber.sample(str(place), "red apple", progress=lambda *_: None, **(ASKED | asked))
    return np.asarray(picture).astype(int)


def train_whole(config: weber.RunConfig) -> Path:
    return train(config, resume=False, watcher=build_watcher()[0])


def test_a_file_from_anywhere_paints_what_its_run_paints(tmp_path: Path, build_run: BuildRun) -> None:
    """CLIP that was trained with it too. Without its effect, it is the model as it is."""
    file = train_whole(build_run(adapter={"text_encoder": True}, optim={"lr": 1e-2}, train={"steps": 2}))
    away = shutil.copyfile(file, tmp_path / "downloaded.safetensors")
    learned, base = paint(file.parent), paint("pocket")
    assert np.array_equal(paint(away, base="pocket"), learned)
    assert np.array_equal(paint(away, base="pocket", strength=0.5), paint(file.parent, strength=0.5))
    assert np.array_equal(paint(away, base="pocket", strength=0.0), base)
    assert np.abs(learned - base).max() > 0


def test_every_form_of_lycoris_paints_what_its_run_paints(tmp_path: Path, build_run: BuildRun) -> None:
    """Each on layers of its own, all in one file."""
    forms = ["lokr", "loha", "locon", "full", "diag-oft", "boft", "glora"]
    layers = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj"]
    maps = {f"*.attn.{layer}": {"algo": form} | ({} if form == "full" else {"dim": 8}) for form, layer in zip(forms, layers, strict=True)}
    maps["*.proj_mlp"] = {"algo": "lokr", "dim": 8, "weight_decompose": True}
    table = {"apply_preset": {"target_module": [], "name_algo_map": maps, "use_fnmatch": True}}
    adapter = {"kind": "lycoris", "lycoris": table, "rank": 16}
    file = train_whole(build_run(adapter=adapter, optim={"lr": 1e-2}, train={"steps": 2}))
    away = shutil.copyfile(file, tmp_path / "downloaded.safetensors")
    for strength in (1.0, 0.5):
        assert np.array_equal(paint(away, base="pocket", strength=strength), paint(file.parent, strength=strength))


def test_an_open_model_paints_many_times(tmp_path: Path) -> None:
    """The same each time, and each of `num` has its own seed."""
    with weber.open_run("pocket", memory={"quantize": "int8"}) as opened:
        first = opened.sample(["red apple", "a dog"], num=2, **ASKED)
        again = opened.sample("red apple", **(ASKED | {"seed": 4}))
    assert len(first) == 4 and [picture.size for picture in first] == [(64, 64)] * 4
    assert np.array_equal(first[1], again[0]) and not np.array_equal(first[0], first[1])
    assert not list(tmp_path.iterdir())


def test_references_and_sizes(tmp_path: Path) -> None:
    with pytest.raises(WeberError, match="takes no references"):
        weber.sample("pocket", "red apple", conditioning=[tmp_path / "a.png"])
    assert paint("pocket", size=(96, 64)).shape == (64, 96, 3)


@pytest.mark.parametrize(
    ("place", "asked", "words"),
    [
        ("{tmp}/nowhere", {}, ["not a run folder", "nowhere"]),
        ("runs/of/nobody", {}, ["not a run folder"]),
        ("poket", {}, ["no such model", "'pocket'"]),
        ("{tmp}/lora.safetensors", {}, ["lies in no run folder", "add base with the model"]),
        ("{tmp}/none.safetensors", {"base": "pocket"}, ["no such adapter"]),
        ("{tmp}/text.safetensors", {"base": "pocket"}, ["text.safetensors"]),
        ("{tmp}/lora.safetensors", {"base": "poket"}, ["no such model"]),
        ("{tmp}/lora.safetensors", {"base": "{tiny}"}, ["not for this model"]),
        ("pocket", {"strength": 0.5}, ["no adapter with a strength", "remove strength"]),
        ("pocket", {"num": 0}, ["num 0"]),
        ("pocket", {"memory": {"fit": "auto"}}, ["no effect on pictures", "memory.fit"]),
        ("pocket", {"memory": {"quantise": "nf4"}}, ["memory.quantise", "memory.quantize"]),
        ("pocket", {"size": (65, 64)}, ["multiples of 16", "size.width = 65"]),
        ("pocket", {"cfg": 0.5}, ["cfg 0.5"]),
    ],
)
def test_what_cannot_be_painted_is_one_message(
    place: str, asked: dict[str, Any], words: list[str], tmp_path: Path, tiny_model: Path
) -> None:
    """And none speaks of flags of the command line."""
    write_pocket_lora(tmp_path / "lora.safetensors")
    (tmp_path / "text.safetensors").write_text("not tensors")
    asked = {key: value.replace("{tiny}", str(tiny_model)) if isinstance(value, str) else value for key, value in asked.items()}
    with pytest.raises(WeberError) as error:
        weber.sample(place.replace("{tmp}", str(tmp_path)), "red apple", **asked)
    for word in words:
        assert word in str(error.value), str(error.value)
    assert "--" not in str(error.value)


def test_pictures_of_a_file_lie_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from weber.commands.sample import Asked, sample

    file = write_pocket_lora(tmp_path / "lora.safetensors")
    sample(str(file), prompt=["red apple"], base="pocket", asked=Asked(steps=1, num=2))
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [one.parent for one in files] == [tmp_path / "samples"] * 2
    assert [Image.open(one).size for one in files] == [(64, 64)] * 2
