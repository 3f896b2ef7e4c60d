"""What keys of OneTrainer mean, computed by hand; and files that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from weber.config.importers.load import import_run
from weber.config.importers.onetrainer.train import build_densities
from weber.config.importers.outcome import Imported
from weber.data.geometry_onetrainer import list_onetrainer_buckets
from weber.errors import ConfigError

BASE: dict[str, Any] = {
    "base_model_name": "black-forest-labs/FLUX.1-dev",
    "model_type": "FLUX_DEV_1",
    "training_method": "LORA",
    "text_encoder": {"train": False},
    "text_encoder_2": {"train": False},
}


def run(folder: Path, config: dict[str, Any] | None = None, concepts: Any = None, samples: Any = None) -> Imported:
    (folder / "training_concepts").mkdir(exist_ok=True)
    (folder / "training_concepts" / "concepts.json").write_text(json.dumps([{"path": "dog"}] if concepts is None else concepts))
    if samples is not None:
        (folder / "training_samples").mkdir(exist_ok=True)
        (folder / "training_samples" / "samples.json").write_text(json.dumps(samples))
    path = folder / "#my preset.json"
    path.write_text(json.dumps(BASE | (config or {})))
    return import_run(path)


def outcome(imported: Imported, name: str) -> tuple[str, str]:
    [found] = [one for one in imported.outcomes if one.given.name == name and not one.given.is_default]
    return found.kind, found.line


def test_what_is_taken_where_nothing_is_said(tmp_path: Path) -> None:
    tree = run(tmp_path).tree
    assert {name: value for name, value in tree.items() if name != "data"} == {
        "model": {"path": "black-forest-labs/FLUX.1-dev", "text_tokens": 77},
        "adapter": {"kind": "lora", "rank": 16, "alpha": 1.0, "targets": ["*"]},
        "objective": {"timesteps": "uniform"},
        "optim": {"name": "adamw", "lr": 3e-6, "schedule": "constant", "warmup_steps": 200},
        "train": {"epochs": 100},
        "output": {"folder": "workspace/run", "name": "model"},
    }
    assert (tree["data"][0]["resolution"], tree["data"][0]["bucket_step"], tree["data"][0]["geometry"]) == (512.0, 64, "onetrainer")


def test_a_concept_for_validation_is_held_out(tmp_path: Path) -> None:
    held = {"path": "val", "type": "VALIDATION", "balancing": 3, "loss_weight": 0.5}
    imported = run(tmp_path, {"validation": True, "validate_after": 2, "validate_after_unit": "EPOCH"}, [{"path": "dog"}, held])
    of_held = imported.tree["data"][1]
    assert of_held["evaluation"] == 1.0 and not {"repeats", "share", "loss_weight"} & of_held.keys()
    assert imported.tree["evaluation"] == {"every": "2 epochs"}
    assert outcome(run(tmp_path, {"validation": False, "validate_after": 2}), "validate_after")[0] == "no effect"


def test_sizes_of_768() -> None:
    """768 x sqrt(1.25) = 858.7 -> 832, / sqrt(1.25) = 686.9 -> 704, and so on, to multiples of 64."""
    sizes = [[one.width, one.height] for one in list_onetrainer_buckets(768, step=64)]
    assert [832, 704] in sizes
    assert [704, 832] in sizes
    assert [1536, 384] in sizes
    assert len(sizes) == len({tuple(one) for one in sizes})
    assert all(side % 64 == 0 for one in sizes for side in one)


@pytest.mark.parametrize(
    ("config", "objective"),
    [
        ({"timestep_distribution": "UNIFORM", "timestep_shift": 3.0}, {"timesteps": "uniform", "shift": 3.0}),
        ({"timestep_distribution": "LOGIT_NORMAL"}, {"timesteps": "logit_normal"}),
        (
            {"timestep_distribution": "LOGIT_NORMAL", "noising_weight": 0.5, "noising_bias": -0.25, "dynamic_timestep_shifting": True},
            {"timesteps": "logit_normal", "logit_mean": -0.25, "logit_std": 1.5, "shift": "tokens"},
        ),
        ({"timestep_distribution": "HEAVY_TAIL", "noising_weight": 1.29}, {"timesteps": "mode", "mode_scale": 1.29}),
        ({"timestep_distribution": "BETA", "noising_weight": 0.5, "noising_bias": 1.0}, {"timesteps": "beta", "beta_shape": [0.5, 1.0]}),
        ({"transformer": {"guidance_scale": 3.5}}, {"timesteps": "uniform", "guidance": 3.5}),
        ({"mse_strength": 0.0, "mae_strength": 1.0}, {"timesteps": "uniform", "loss": "l1"}),
    ],
)
def test_noise_levels_guidance_and_loss(tmp_path: Path, config: dict[str, Any], objective: dict[str, Any]) -> None:
    assert run(tmp_path, config).tree["objective"] == objective


def test_densities() -> None:
    flat = build_densities("SIGMOID", weight=0.0, bias=0.0, shift=1.0)
    assert set(flat) == {0.5}
    rising = build_densities("SIGMOID", weight=10.0, bias=0.0, shift=1.0)
    assert rising[0] == pytest.approx(0.006693, abs=1e-6)
    assert rising[10] == 0.5
    assert build_densities("INVERTED_PARABOLA", weight=8.0, bias=0.0, shift=1.0)[::10] == [0.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("config", "optim"),
    [
        ({"learning_rate": "1e-4"}, {"lr": 1e-4}),
        ({"learning_rate": 1e-4, "transformer": {"learning_rate": 2e-4}}, {"lr": 2e-4}),
        ({"learning_rate": 1e-4, "learning_rate_scaler": "BATCH", "batch_size": 4}, {"lr": 4e-4}),
        (
            {"learning_rate_scheduler": "LINEAR", "learning_rate": 1e-3, "learning_rate_min_factor": 0.5},
            {"schedule": "linear", "end_lr": 5e-4},
        ),
        ({"learning_rate_scheduler": "COSINE_WITH_HARD_RESTARTS", "learning_rate_cycles": 1.0}, {"schedule": "cosine"}),
        ({"learning_rate_warmup_steps": 100, "gradient_accumulation_steps": 4}, {"warmup_steps": 25}),
        ({"learning_rate_warmup_steps": 0}, {}),
        ({"clip_grad_norm": 0.5}, {"clip_norm": 0.5}),
        ({"ema": "CPU", "ema_decay": 0.99, "ema_update_step_interval": 1}, {"ema_decay": 0.99}),
        ({"optimizer": {"optimizer": "ADAMW", "beta1": 0.8, "beta2": 0.95}}, {"betas": [0.8, 0.95]}),
        ({"optimizer": {"optimizer": "SCHEDULE_FREE_ADAMW"}}, {"name": "adamw_schedulefree"}),
    ],
)
def test_optimizer_and_rate(tmp_path: Path, config: dict[str, Any], optim: dict[str, Any]) -> None:
    tree = run(tmp_path, config).tree["optim"]
    expected = {name: pytest.approx(one) if isinstance(one, float) else one for name, one in optim.items()}
    assert {name: tree.get(name) for name in optim} == expected


def test_warmup_of_nothing(tmp_path: Path) -> None:
    assert "warmup_steps" not in run(tmp_path, {"learning_rate_warmup_steps": 0}).tree["optim"]


@pytest.mark.parametrize(
    ("dtype", "memory"),
    [
        ("NFLOAT_4", {"quantize": "nf4"}),
        ("FLOAT_8", {"quantize": "fp8"}),
        ("INT_W8A8", {"quantize": "int8", "int8_matmul": True}),
        ("FLOAT_W8A8_COMPRESSED", {"quantize": "fp8", "fp8_matmul": True}),
        ("BFLOAT_16", None),
    ],
)
def test_packed_weights(tmp_path: Path, dtype: str, memory: Any) -> None:
    assert run(tmp_path, {"transformer": {"weight_dtype": dtype}}).tree.get("memory") == memory


def test_older_name_of_the_transformer(tmp_path: Path) -> None:
    imported = run(tmp_path, {"prior": {"weight_dtype": "NFLOAT_4", "guidance_scale": 2.0}})
    assert imported.tree["memory"] == {"quantize": "nf4"}
    assert imported.tree["objective"]["guidance"] == 2.0
    both = run(tmp_path, {"prior": {"weight_dtype": "NFLOAT_4"}, "transformer": {"weight_dtype": "FLOAT_8"}})
    assert both.tree["memory"] == {"quantize": "fp8"}
    old = run(tmp_path, {"__version": 7, "prior": {"weight_dtype": "NFLOAT_4"}, "transformer": {"weight_dtype": "FLOAT_8"}})
    assert old.tree["memory"] == {"quantize": "nf4"}


@pytest.mark.parametrize(
    ("config", "output"),
    [
        ({"save_every": 2, "save_every_unit": "EPOCH"}, {"save_every": "2 epochs"}),
        ({"save_every": 500, "save_every_unit": "STEP", "backup_after": 1, "backup_after_unit": "EPOCH"}, {"save_every": 500}),
        ({"backup_after": 1, "backup_after_unit": "EPOCH"}, {"save_every": "1 epochs"}),
        ({"backup_after": 30, "backup_after_unit": "MINUTE"}, {}),
        ({"rolling_backup": False}, {"keep_last": "all"}),
        ({"output_model_destination": "E:\\out\\cat"}, {"name": "cat"}),
    ],
)
def test_what_is_left_behind(tmp_path: Path, config: dict[str, Any], output: dict[str, Any]) -> None:
    assert run(tmp_path, config).tree["output"] == {"folder": "workspace/run", "name": "model"} | output


@pytest.mark.parametrize(
    ("concept", "data"),
    [
        ({"balancing": 10}, {"repeats": 10}),
        ({"balancing": 0.25}, {"share": 0.25}),
        ({"image": {"enable_crop_jitter": True}, "image_variations": 5}, {"crop": "random", "num_crops": 5}),
        ({"include_subdirectories": True}, {"recursive": True}),
        ({"text": {"prompt_source": "filename"}}, {"captions": "filename"}),
        (
            {"text": {"enable_tag_shuffling": True, "keep_tags_count": 0}, "text_variations": 4},
            {"caption_steps": [{"kind": "shuffle"}], "caption_variants": 4},
        ),
    ],
)
def test_concepts(tmp_path: Path, concept: dict[str, Any], data: dict[str, Any]) -> None:
    tree = run(tmp_path, None, [{"path": "dog"} | concept]).tree["data"][0]
    assert {name: tree.get(name) for name in data} == data


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ({"tag_dropout_enable": True, "tag_dropout_probability": 0.1}, "caption_dropout"),
        ({"tag_dropout_enable": True, "tag_dropout_probability": 0.1, "tag_dropout_mode": "RANDOM WEIGHTED"}, "same probability"),
        (
            {
                "tag_dropout_enable": True,
                "tag_dropout_probability": 0.1,
                "tag_dropout_mode": "RANDOM",
                "tag_dropout_special_tags_mode": "BLACKLIST",
            },
            "filter",
        ),
    ],
)
def test_tags_that_cannot_be_left_out_so(tmp_path: Path, text: dict[str, Any], says: str) -> None:
    kind, line = outcome(run(tmp_path, None, [{"path": "dog", "text": text}]), "text.tag_dropout_enable")
    assert kind == "refused"
    assert says in line


def test_weber_defaults(tmp_path: Path) -> None:
    run(tmp_path)
    imported = import_run(tmp_path / "#my preset.json", weber_defaults=True)
    assert {name: value for name, value in imported.tree.items() if name != "data"} == {
        "model": {"path": "black-forest-labs/FLUX.1-dev"},
        "adapter": {"kind": "lora"},
    }


# ---- what is wrong


def check_error(folder: Path, config: dict[str, Any], *, says: str, concepts: Any = None, samples: Any = None) -> None:
    with pytest.raises(ConfigError) as caught:
        run(folder, config, concepts, samples)
    assert says in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("kind", ["STABLE_DIFFUSION_XL_10_BASE", "HUNYUAN_VIDEO", "CHROMA_1", "Z_IMAGE"])
def test_other_models(tmp_path: Path, kind: str) -> None:
    check_error(tmp_path, {"model_type": kind}, says="does not train")


@pytest.mark.parametrize("method", ["EMBEDDING", "FINE_TUNE_VAE"])
def test_other_trainings(tmp_path: Path, method: str) -> None:
    check_error(tmp_path, {"training_method": method}, says="does not have")


def test_packed_model_that_learns(tmp_path: Path) -> None:
    check_error(tmp_path, {"training_method": "FINE_TUNE", "transformer": {"weight_dtype": "NFLOAT_4"}}, says="packed")


def test_missing_concepts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, {"concept_file_name": "training_concepts/other.json"})
    assert "concept_file_name" in str(caught.value)
    assert "other.json" in caught.value.fix


def test_missing_samples(tmp_path: Path) -> None:
    check_error(tmp_path, {"sample_definition_file_name": "training_samples/other.json"}, says="sample_definition_file_name")


@pytest.mark.parametrize("concepts", [{}, ["dog"], []])
def test_no_list_of_concepts(tmp_path: Path, concepts: Any) -> None:
    check_error(tmp_path, {}, concepts=concepts, says="concept")


def test_no_list_of_samples(tmp_path: Path) -> None:
    check_error(tmp_path, {}, samples={"prompt": "a dog"}, says="no list of samples")


def test_unknown_law(tmp_path: Path) -> None:
    check_error(tmp_path, {"timestep_distribution": "GAUSS"}, says="no law of OneTrainer")


def test_misspelled_key_names_its_nearest(tmp_path: Path) -> None:
    kind, line = outcome(run(tmp_path, {"learning_rat": 1e-4}), "learning_rat")
    assert kind == "no effect"
    assert "learning_rate" in line


def test_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "half.json"
    path.write_text('{"model_type": "FLUX_DEV_1", "transformer": {')
    with pytest.raises(ConfigError, match="not valid JSON"):
        import_run(path, tool="onetrainer")
