"""Files that are none of kohya's scripts for FLUX, or not whole: one clear error each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weber.config.importers.load import import_run
from weber.errors import ConfigError

MODEL = "--pretrained_model_name_or_path m --train_data_dir p --resolution 512"
LORA = f"flux_train_network.py {MODEL} --network_module networks.lora_flux"

COMMANDS = [
    (f"{LORA} --learning_rat_e 1e-4", "--learning_rat_e", "write learning_rate"),
    (f"{LORA} --networkdim 8 --max_train_epoch_s 3", "--networkdim (did you mean network_dim?)", "network_dim"),
    (f"{LORA} --shuffel_caption", "--shuffel_caption (did you mean shuffle_caption?)", "shuffle_caption"),
    (f"{LORA} --model_type chroma", "weber trains FLUX", "FLUX.1"),
    (f"{LORA} --v2", "Stable Diffusion 2", "FLUX.1"),
    (f"sdxl_train_network.py {MODEL}", "starts sdxl_train_network.py, which trains another model", "FLUX.1"),
    (f"flux_train_control_net.py {MODEL}", "ControlNet", "FLUX.1"),
    (f"src/musubi_tuner/flux_kontext_train_network.py {MODEL}", "musubi-tuner", "FLUX.1"),
    ("tag_images_by_wd14_tagger.py p --onnx", "starts no training", "name the script"),
    (f"{LORA} --seed $(date +%s)", "--seed", "write the value"),
    (f"{LORA} --seed soon", "--seed is no number", "correct"),
    (f"{LORA} --max_train_steps 10.5", "no whole number", "correct"),
    (f"{LORA} --timestep_sampling beta", "no law of noise levels", "correct"),
    (f"{LORA} --lr_scheduler sine", "names no schedule", "correct"),
    (f"{LORA} --optimizer_type AdamX", "names no optimizer", "AdamW8bit"),
    (f"{LORA} --resolution big", "--resolution is no", "correct"),
    (f'{LORA} --network_args "in_dims=[1,2]"', "not five ranks", "correct"),
    (f'{LORA} --network_args "network_reg_dims=(a+)+=4"', "cannot be read", "correct"),
    (f"flux_train_network.py {MODEL} --network_module lycoris.kohya --network_args algo=dylora", "weber does not train", "lokr"),
    (f"{LORA} --dataset_config gone.toml", "gone.toml", "copy gone.toml beside go.sh"),
    (f"{LORA} --config_file gone", "gone, which holds all settings", "copy gone beside go.sh"),
    (f"{LORA} --sample_prompts gone.txt --sample_every_n_steps 5", "gone.txt", "copy gone.txt beside go.sh"),
    ("flux_train.py --pretrained_model_name_or_path m", "names no pictures", "--dataset_config"),
    (f"{LORA} && python flux_train.py {MODEL}", "starts 2 trainings, in the lines 1 and 1", "in a file of its own"),
]


@pytest.mark.parametrize(("command", "what", "fix"), COMMANDS, ids=[what for _, what, _ in COMMANDS])
def test_a_wrong_command(tmp_path: Path, command: str, what: str, fix: str) -> None:
    (tmp_path / "go.sh").write_text(f"python {command}")
    with pytest.raises(ConfigError) as caught:
        import_run(tmp_path / "go.sh")
    assert what in str(caught.value)
    assert fix in caught.value.fix


SCRIPTS = [
    ("go.sh", f"LR=1e-4\npython {LORA} --learning_rate $LR \\\n  --output_dir ${{HOME}}/out", "uses HOME", "in place of HOME"),
    ("go.sh", f"args=()\nargs+=(--seed 3)\npython {LORA} ${{args[@]}}", "builds a list of flags", "print the whole command"),
    ("go.bat", f"set LR=1\npython {LORA} --learning_rate %lr% ^\n  --output_dir %USERPROFILE%\\out", "uses USERPROFILE", "in place of"),
    ("go.ps1", f"$lr = 1\npython {LORA} --learning_rate=$LR `\n  --output_dir=$env:OUT/x", "uses OUT", "in place of OUT"),
    ("go.ps1", f'$more = @()\n[void]$more.Add("--seed=3")\npython {LORA} $more', "builds a list of flags", "print the whole command"),
]


@pytest.mark.parametrize(("name", "text", "what", "fix"), SCRIPTS, ids=[f"{name} {what}" for name, _, what, _ in SCRIPTS])
def test_what_only_running_a_script_would_say(tmp_path: Path, name: str, text: str, what: str, fix: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        import_run(tmp_path / name)
    assert what in str(caught.value)
    assert fix in caught.value.fix


def test_a_notebook_with_a_value_that_python_works_out(tmp_path: Path) -> None:
    source = ["out = os.path.join(root, 'out')\n", f"!python {LORA} --output_dir {{out}}"]
    (tmp_path / "go.ipynb").write_text(json.dumps({"cells": [{"cell_type": "code", "source": source}]}))
    with pytest.raises(ConfigError, match="uses out, and nothing in the file says what that is"):
        import_run(tmp_path / "go.ipynb")


DATASETS = [
    ('[general]\nshuffel_caption = true\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"', "shuffel_caption", "shuffle_caption"),
    ('general = 3\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"', "general is no table", "correct"),
    ("[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nnum_repeats = 2", "datasets.0.subsets.0 names no pictures", "add image_dir"),
    ('[[datasets]]\nresolution = [1, 2, 3]\n[[datasets.subsets]]\nimage_dir = "a"', "datasets.0.resolution is no size", "correct"),
    ('[[datasets]\nresolution = 512', "not valid TOML", ""),
    ("[general]\nflip_aug = true", "names no pictures", "data.0.path=FOLDER"),
]


@pytest.mark.parametrize(("dataset", "what", "fix"), DATASETS, ids=[what for _, what, _ in DATASETS])
def test_a_wrong_dataset(tmp_path: Path, dataset: str, what: str, fix: str) -> None:
    (tmp_path / "set.toml").write_text(dataset)
    (tmp_path / "go.sh").write_text("python flux_train.py --pretrained_model_name_or_path m --resolution 512 --dataset_config set.toml")
    with pytest.raises(ConfigError) as caught:
        import_run(tmp_path / "go.sh")
    assert what in str(caught.value)
    assert fix in caught.value.fix


TREES = [
    ("save.json", {"LoRA_type": "Standard", "sdxl": True, "pretrained_model_name_or_path": "sdxl"}, "Stable Diffusion XL"),
    ("save.json", {"LoRA_type": "Standard", "pretrained_model_name_or_path": "sd15", "unet_lr": 1e-4}, "Stable Diffusion"),
    ("meta.json", {"1": {"caption": "a cat", "tags": "cat"}, "2": {"caption": "a dog"}}, "the metadata that --in_json"),
    ("set.json", {"datasets": [{"subsets": [{"image_dir": "a"}]}]}, "says which pictures are trained on, and nothing else"),
]


@pytest.mark.parametrize(("name", "tree", "what"), TREES, ids=[what for _, _, what in TREES])
def test_a_tree_of_another_kind(tmp_path: Path, name: str, tree: object, what: str) -> None:
    (tmp_path / name).write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match=what):
        import_run(tmp_path / name)


def test_a_page_of_lora_scripts_for_another_model(tmp_path: Path) -> None:
    (tmp_path / "page.toml").write_text('model_train_type = "sdxl-lora"\npretrained_model_name_or_path = "sdxl.safetensors"')
    with pytest.raises(ConfigError, match="model_train_type = sdxl-lora"):
        import_run(tmp_path / "page.toml")


def test_a_dataset_alone_names_the_script_beside_it(tmp_path: Path) -> None:
    (tmp_path / "set.toml").write_text('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"')
    (tmp_path / "train.sh").write_text("python flux_train.py")
    with pytest.raises(ConfigError) as caught:
        import_run(tmp_path / "set.toml")
    assert caught.value.fix.endswith("train.sh")


def test_half_a_save_of_the_gui(tmp_path: Path) -> None:
    (tmp_path / "save.json").write_text('{"LoRA_type": "Flux1", "ae": ')
    with pytest.raises(ConfigError, match="not valid JSON"):
        import_run(tmp_path / "save.json", tool="kohya")


def test_what_stands_behind_the_file_counts(tmp_path: Path) -> None:
    (tmp_path / "go.sh").write_text(f"python {LORA}")
    imported = import_run(tmp_path / "go.sh", ["adapter.rank=64", "train.steps=null"])
    assert imported.config.adapter.rank == 64
    assert imported.config.train.steps is None
