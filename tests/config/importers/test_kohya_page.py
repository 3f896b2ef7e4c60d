"""Saves of lora-scripts' page: what it makes of its own keys before kohya's scripts see them."""

from __future__ import annotations

from pathlib import Path

from weber.config.importers.load import import_run
from weber.config.importers.outcome import Imported

SAVE = """
model_train_type = "flux-lora"
pretrained_model_name_or_path = "./sd-models/flux1-dev.safetensors"
train_data_dir = "./train/cat"
model_prediction_type = "raw"
network_module = "networks.lora_flux"
network_dim = 8
network_train_unet_only = true
max_train_epochs = 3
mixed_precision = "bf16"
"""


def run(tmp_path: Path, *lines: str) -> Imported:
    """The import of a save."""
    (tmp_path / "save.toml").write_text(SAVE + "\n".join(lines) + "\n", encoding="utf-8")
    return import_run(tmp_path / "save.toml")


def tell(imported: Imported, spelled: str) -> tuple[str, str]:
    """What became of a key."""
    [found] = [one for one in imported.outcomes if one.given.spelled == spelled and not one.given.is_default]
    return found.kind, found.line


def test_prodigy_gets_arguments_that_are_not_in_the_file(tmp_path: Path) -> None:
    lines = ('optimizer_type = "Prodigy"', 'prodigy_d_coef = "2.0"', 'learning_rate = "1"', "lr_warmup_steps = 10")
    optim = run(tmp_path, *lines).tree["optim"]
    assert optim["weight_decay"] == 0.01
    assert optim["options"] == {"decouple": True, "use_bias_correction": True, "safeguard_warmup": True, "d_coef": 2.0}


def test_what_the_user_adds_counts_before_what_the_page_adds(tmp_path: Path) -> None:
    imported = run(tmp_path, 'optimizer_type = "Prodigy"', 'learning_rate = "1"', 'optimizer_args_custom = ["weight_decay=0.05"]')
    assert imported.tree["optim"]["weight_decay"] == 0.05


def test_the_rate_is_1_with_dadaptation(tmp_path: Path) -> None:
    imported = run(tmp_path, 'optimizer_type = "DAdaptation"', 'learning_rate = "1e-4"', 'unet_lr = "5e-4"')
    assert imported.tree["optim"]["lr"] == 1.0
    assert imported.tree["optim"]["name"] == "pytorch_optimizer.DAdaptAdam"


def test_keys_of_lycoris_count_with_lycoris_alone(tmp_path: Path) -> None:
    lines = ('lycoris_algo = "lokr"', "lokr_factor = 8", "conv_dim = 4", "dropout = 0", "train_norm = false")
    assert "lycoris" not in run(tmp_path, *lines).tree["adapter"]
    (tmp_path / "lycoris").mkdir()
    text = SAVE.replace("networks.lora_flux", "lycoris.kohya") + "\n".join(lines)
    (tmp_path / "lycoris" / "save.toml").write_text(text, encoding="utf-8")
    adapter = import_run(tmp_path / "lycoris" / "save.toml").tree["adapter"]
    assert adapter["kind"] == "lycoris"
    assert adapter["lycoris"] == {"algo": "lokr", "factor": 8, "linear_dim": 8, "linear_alpha": 1.0}


def test_prompts_with_the_values_of_the_page(tmp_path: Path) -> None:
    imported = run(tmp_path, "enable_preview = true", 'positive_prompts = "a cat"', "sample_width = 768", "sample_every_n_epochs = 2")
    sampling = imported.tree["sampling"]
    assert sampling == {"prompts": ["a cat"], "width": 768, "height": 512, "steps": 24, "seed": 2333, "cfg": 7.0, "every": "2 epochs"}


def test_a_file_of_prompts_counts_before_them(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a dog --w 640\n")
    lines = ("enable_preview = true", 'positive_prompts = "a cat"', 'prompt_file = "prompts.txt"', "sample_every_n_epochs = 2")
    sampling = run(tmp_path, *lines).tree["sampling"]
    assert (sampling["prompts"], sampling["width"]) == (["a dog"], 640)


def test_without_a_preview_nothing_is_painted(tmp_path: Path) -> None:
    imported = run(tmp_path, "enable_preview = false", 'positive_prompts = "a cat"', "sample_every_n_epochs = 2")
    assert "prompts" not in imported.tree.get("sampling", {})
    assert "enable_preview" in tell(imported, "positive_prompts")[1]


def test_a_prompt_at_random_is_refused(tmp_path: Path) -> None:
    lines = ("enable_preview = true", "randomly_choice_prompt = true", 'positive_prompts = "a cat"', "sample_every_n_epochs = 2")
    assert tell(run(tmp_path, *lines), "randomly_choice_prompt")[0] == "refused"


def test_parameters_of_the_users_own_count_last(tmp_path: Path) -> None:
    imported = run(tmp_path, "seed = 1", "guidance_scale = 4", 'ui_custom_params = "seed = 7\\nguidance_scale = 1"')
    assert imported.tree["train"]["seed"] == 7
    assert imported.tree["objective"]["guidance"] == 1.0


def test_what_is_passed_where_nobody_reads_it(tmp_path: Path) -> None:
    imported = run(tmp_path, "train_t5xxl = true", "enable_base_weight = false", 'base_weights = "a.safetensors"')
    assert tell(imported, "train_t5xxl")[0] == tell(imported, "base_weights")[0] == "no effect"
