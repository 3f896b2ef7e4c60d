"""Files of SimpleTuner that are wrong: one clear error each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.config.importers.test_simpletuner_meaning import BASE, SET, run
from weber.config.importers.load import import_run
from weber.errors import ConfigError


def check_error(folder: Path, config: dict[str, Any] | None, *sets: dict[str, Any], says: str, fix: str = "") -> None:
    with pytest.raises(ConfigError) as caught:
        run(folder, config, *sets)
    assert says in str(caught.value)
    assert fix in caught.value.fix


def test_misspelled_option(tmp_path: Path) -> None:
    check_error(tmp_path, {"--learning_rat": 1e-4, "lora_rnk": 4}, says="did you mean learning_rate", fix="learning_rate")


@pytest.mark.parametrize("family", ["sdxl", "wan", "sd3", "chroma", "qwen_image"])
def test_other_models(tmp_path: Path, family: str) -> None:
    check_error(tmp_path, {"model_family": family}, says="does not train", fix="flux")


def test_other_model_in_variables(tmp_path: Path) -> None:
    path = tmp_path / "config.env"
    path.write_text("export STABLE_DIFFUSION_3=true\nexport DATALOADER_CONFIG=x.json\n")
    with pytest.raises(ConfigError, match="does not train"):
        import_run(path)
    path.write_text("export MODEL_NAME=stabilityai/stable-diffusion-xl-base-1.0\nexport DATALOADER_CONFIG=x.json\n")
    with pytest.raises(ConfigError, match="does not train"):
        import_run(path)


def test_video_set(tmp_path: Path) -> None:
    check_error(tmp_path, None, SET, {"id": "clips", "dataset_type": "video"}, says="video")


def test_no_set_of_pictures(tmp_path: Path) -> None:
    check_error(tmp_path, None, SET | {"disabled": True}, says="no set of pictures", fix="disabled")


def test_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"--model_family": "flux", "--lora_rank": 16,')
    with pytest.raises(ConfigError, match="not valid JSON"):
        import_run(path, tool="simpletuner")


def test_missing_sets(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(BASE | {"data_backend_config": "config/lamp/sets.json"}))
    with pytest.raises(ConfigError) as caught:
        import_run(path)
    assert "data_backend_config" in str(caught.value)
    assert "sets.json" in caught.value.fix


def test_missing_lycoris_file(tmp_path: Path) -> None:
    check_error(tmp_path, {"lora_type": "lycoris"}, says="lycoris_config", fix="lycoris_config.json")


def test_what_only_a_shell_knows(tmp_path: Path) -> None:
    path = tmp_path / "config.env"
    (tmp_path / "multidatabackend.json").write_text(json.dumps([SET]))
    path.write_text("FLUX=true\nMODEL_TYPE=lora\nDATALOADER_CONFIG=multidatabackend.json\nOUTPUT_DIR=$(mktemp -d)\n")
    with pytest.raises(ConfigError, match="OUTPUT_DIR"):
        import_run(path)


def test_environment_that_is_not_there(tmp_path: Path) -> None:
    check_error(
        tmp_path, None, SET | {"instance_data_dir": "{env:NO_SUCH_VARIABLE_FOR_WEBER}/cats"}, says="NO_SUCH_VARIABLE_FOR_WEBER", fix="set"
    )


def test_whole_model_on_packed_weights(tmp_path: Path) -> None:
    check_error(tmp_path, {"model_type": "full", "base_model_precision": "int8-quanto"}, says="cannot train a quantized model")


def test_unknown_flavour(tmp_path: Path) -> None:
    check_error(tmp_path, {"model_flavour": "turbo"}, says="has no flavour turbo")


def test_no_prompt_for_the_set(tmp_path: Path) -> None:
    check_error(tmp_path, None, SET | {"caption_strategy": "instanceprompt"}, says="instance_prompt", fix="instance_prompt")


def test_no_shapes_to_choose_from(tmp_path: Path) -> None:
    check_error(tmp_path, None, SET | {"crop": True, "crop_aspect": "closest"}, says="no shapes", fix="crop_aspect_buckets")


def test_rate_that_would_not_fall(tmp_path: Path) -> None:
    check_error(tmp_path, {"lr_scheduler": "polynomial", "learning_rate": 1e-8}, says="would not go down")
