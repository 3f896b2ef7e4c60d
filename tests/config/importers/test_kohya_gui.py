"""Saves of the kohya_ss GUI: what it passes on to the scripts, and what not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from weber.config.importers.load import import_run
from weber.config.importers.outcome import Imported
from weber.errors import ConfigError

SAVE = {
    "flux1_checkbox": True, "pretrained_model_name_or_path": "m/flux1-dev.safetensors", "learning_rate": 1e-4, "optimizer": "AdamW",
    "model_prediction_type": "raw", "timestep_sampling": "sigma", "mixed_precision": "bf16", "max_train_steps": 100, "seed": 1,
}
LORA = SAVE | {"LoRA_type": "Flux1", "network_dim": 16, "train_data_dir": "pictures"}
WHOLE = SAVE | {"train_data_dir": "pictures"}


def run(tmp_path: Path, tree: dict[str, Any]) -> Imported:
    """The import of a save."""
    (tmp_path / "save.json").write_text(json.dumps(tree), encoding="utf-8")
    return import_run(tmp_path / "save.json")


def tell(imported: Imported, spelled: str) -> tuple[str, str]:
    """What became of a key."""
    [found] = [one for one in imported.outcomes if one.given.spelled == spelled and not one.given.is_default]
    return found.kind, found.line


def test_zeros_are_left_out_for_a_lora(tmp_path: Path) -> None:
    imported = run(tmp_path, LORA | {"max_grad_norm": 0, "guidance_scale": 0.0})
    assert imported.tree["optim"]["clip_norm"] == 1.0
    assert imported.tree["objective"]["guidance"] == 3.5
    assert any("clipped at 1.0" in line for line in imported.faults)


def test_zeros_are_passed_on_for_a_whole_model(tmp_path: Path) -> None:
    imported = run(tmp_path, WHOLE | {"max_grad_norm": 0, "guidance_scale": 0.0, "max_train_epochs": 0})
    assert imported.tree["optim"]["clip_norm"] == "off"
    assert imported.tree["objective"]["guidance"] == 0.0
    assert imported.tree["train"]["steps"] == 100
    assert not any("clipped at 1.0" in line for line in imported.faults)


def test_what_is_of_stable_diffusion_3_stays_out(tmp_path: Path) -> None:
    """Its fields hold values in any save."""
    other = {"weighting_scheme": "logit_normal", "logit_mean": 0.4, "logit_std": 1, "mode_scale": 1.29, "clip_g": "g"}
    imported = run(tmp_path, LORA | other)
    assert imported.tree["objective"]["timesteps"] == "uniform"
    assert all(tell(imported, name) == ("no effect", "is for other models than FLUX.1") for name in other)


def test_files_of_flux_have_names_of_their_own_for_whole_models(tmp_path: Path) -> None:
    files = {"flux1_clip_l": "c", "clip_l": "x", "flux1_t5xxl": "t", "t5xxl": "y"}
    model = run(tmp_path, WHOLE | files).tree["model"]
    assert (model["text_encoder"], model["text_encoder_2"]) == ("c", "t")


@pytest.mark.parametrize(
    ("tree", "model"),
    [
        (LORA | {"sdxl": True}, "Stable Diffusion XL"),
        (LORA | {"flux1_checkbox": False, "LoRA_type": "Standard"}, "Stable Diffusion"),
        (WHOLE | {"flux1_checkbox": False, "sd3_checkbox": True}, "Stable Diffusion 3"),
        (WHOLE | {"flux1_checkbox": False, "anima_checkbox": True}, "Anima"),
        (LORA | {"model_type": "chroma"}, "another model"),
    ],
)
def test_other_models(tmp_path: Path, tree: dict[str, Any], model: str) -> None:
    with pytest.raises(ConfigError, match=f"of {model}, and weber trains FLUX"):
        run(tmp_path, tree)


def test_flux_counts_before_checkboxes_that_the_gui_asks_later(tmp_path: Path) -> None:
    assert run(tmp_path, LORA | {"sd3_checkbox": True}).tree["model"] == {"path": "m/flux1-dev.safetensors"}


def test_a_key_that_is_not_known_stops_nothing(tmp_path: Path) -> None:
    kind, line = tell(run(tmp_path, LORA | {"warp_factor": 9}), "warp_factor")
    assert kind == "refused"
    assert "no such key of the GUI" in line


def test_additional_parameters_count_last_and_are_read_strictly(tmp_path: Path) -> None:
    more = {"guidance_scale": 3, "additional_parameters": "--guidance_scale 1 --optimizer_args weight_decay=0.2"}
    imported = run(tmp_path, more | LORA)
    assert imported.tree["objective"]["guidance"] == 1.0
    assert imported.tree["optim"]["weight_decay"] == 0.2
    with pytest.raises(ConfigError, match="did you mean guidance_scale"):
        run(tmp_path, LORA | {"additional_parameters": "--guidence_scale 1"})


def test_how_long(tmp_path: Path) -> None:
    open_end = {"max_train_steps": 0, "max_train_epochs": 0, "epoch": 3}
    assert run(tmp_path, LORA | open_end).tree["train"]["epochs"] == 3
    assert run(tmp_path, LORA | {"epoch": 3}).tree["train"]["steps"] == 100
    (tmp_path / "set.toml").write_text('[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = "a"\n')
    imported = run(tmp_path, LORA | open_end | {"dataset_config": "set.toml", "train_data_dir": ""})
    assert imported.tree["train"]["steps"] == 1600
    assert "1600 steps" in tell(imported, "epoch")[1]


def test_captions_in_a_file_and_half_as_long_with_flips(tmp_path: Path) -> None:
    (tmp_path / "captions.json").write_text('{"a": {"caption": "a cat"}}')
    tree = SAVE | {"image_folder": "pictures", "train_dir": ".", "caption_metadata_filename": "captions.json", "use_latent_files": "No"}
    assert run(tmp_path, tree).tree["train"]["steps"] == 100
    imported = run(tmp_path, tree | {"flip_aug": True, "latent_metadata_filename": "latents.json"})
    assert imported.tree["train"]["steps"] == 50
    assert str(imported.tree["data"][0]["metadata"]) == "captions.json"
    assert str(imported.tree["data"][0]["path"]) == "pictures"


def test_arguments_of_each_kind_of_adapter(tmp_path: Path) -> None:
    values = {"factor": 8, "conv_dim": 0, "conv_alpha": 1, "dora_wd": True, "enable_all_linear": True, "split_qkv": True}
    own = run(tmp_path, LORA | values | {"LoRA_type": "Kohya LoKr"})
    assert own.tree["adapter"]["lycoris"]["factor"] == 8
    assert tell(own, "conv_alpha")[0] == tell(own, "dora_wd")[0] == "no effect"
    oft = LORA | {"LoRA_type": "Flux1 OFT"}
    assert run(tmp_path, oft | values).tree["adapter"]["targets"] != run(tmp_path, oft).tree["adapter"]["targets"]
    assert tell(run(tmp_path, LORA | values), "factor") == ("no effect", "the GUI passes it on for other kinds of LoRA_type alone")
    assert tell(run(tmp_path, LORA | {"loraplus_lr_ratio": 16}), "loraplus_lr_ratio")[0] == "refused"
