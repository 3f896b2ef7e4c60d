"""What other trainers send to the hub, as [publish]: where to, when, private in any case, and no token in any report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weber.config.importers.load import import_run
from weber.config.importers.outcome import Imported

FLUX = "--pretrained_model_name_or_path=black-forest-labs/FLUX.1-dev"
KOHYA = "--pretrained_model_name_or_path m/flux1-dev.safetensors --train_data_dir pictures --resolution 512"


def write(folder: Path, name: str, text: str) -> Imported:
    """A file of settings, imported."""
    (folder / name).write_text(text, encoding="utf-8")
    return import_run(folder / name)


def import_diffusers(folder: Path, flags: str) -> Imported:
    line = f'accelerate launch train_dreambooth_lora_flux.py {FLUX} --instance_data_dir=dogs --instance_prompt="a dog" {flags}'
    return write(folder, "train.sh", line)


def import_kohya(folder: Path, flags: str, *, is_whole: bool = False) -> Imported:
    program = "flux_train.py" if is_whole else "flux_train_network.py --network_module networks.lora_flux"
    return write(folder, "go.sh", f"python {program} {KOHYA} {flags}")


def import_simpletuner(folder: Path, **keys: object) -> Imported:
    sets = [{"id": "p", "type": "local", "instance_data_dir": "pictures", "caption_strategy": "textfile"}]
    (folder / "sets.json").write_text(json.dumps(sets), encoding="utf-8")
    tree = {"model_family": "flux", "model_type": "lora", "data_backend_config": str(folder / "sets.json"), "max_train_steps": 10}
    return write(folder, "config.json", json.dumps({**tree, "output_dir": "out", **keys}))


def import_ai_toolkit(folder: Path, **keys: object) -> Imported:
    process = {
        "type": "sd_trainer",
        "training_folder": "out",
        "network": {"type": "lora", "linear": 16},
        "save": keys,
        "datasets": [{"folder_path": "pictures"}],
        "train": {"steps": 10},
        "model": {"name_or_path": "black-forest-labs/FLUX.1-dev", "is_flux": True},
    }
    return write(folder, "job.json", json.dumps({"job": "extension", "config": {"name": "one", "process": [process]}}))


def tell(imported: Imported, name: str) -> tuple[str, str]:
    """What became of a key."""
    [found] = [one for one in imported.outcomes if one.given.name == name]
    return found.kind, found.line


def test_each_says_where_to(tmp_path: Path) -> None:
    there = {"to": "me/cat"}
    assert import_diffusers(tmp_path, "--push_to_hub --hub_model_id=me/cat").tree["publish"] == there
    assert import_kohya(tmp_path, "--huggingface_repo_id me/cat").tree["publish"] == {**there, "when": "checkpoints"}
    assert import_kohya(tmp_path, "--huggingface_repo_id me/cat", is_whole=True).tree["publish"] == there
    assert import_simpletuner(tmp_path, push_to_hub=True, hub_model_id="me/cat").tree["publish"] == there
    all_of_them = import_simpletuner(tmp_path, push_to_hub=True, push_checkpoints_to_hub=True, hub_model_id="me/cat")
    assert all_of_them.tree["publish"] == {**there, "when": "checkpoints"} and all_of_them.config.publish.visibility == "private"
    imported = import_ai_toolkit(tmp_path, push_to_hub=True, hf_repo_id="me/cat", hf_private=False)
    assert imported.tree["publish"] == there
    kind, line = tell(imported, "save.hf_private")
    assert kind == "refused" and "publish.consent" in line


@pytest.mark.parametrize("flags", ["--hub_model_id=me/cat", "--push_to_hub", "--push_to_hub --hub_model_id=cat", ""])
def test_what_sends_nothing_there_or_cannot_here(flags: str, tmp_path: Path) -> None:
    imported = import_diffusers(tmp_path, flags)
    assert "publish" not in imported.tree
    kinds = {one.given.name: one.kind for one in imported.outcomes if one.given.name in ("push_to_hub", "hub_model_id")}
    expected = {"--hub_model_id=me/cat": {"hub_model_id": "no effect"}, "--push_to_hub": {"push_to_hub": "refused"}}
    assert kinds == expected.get(flags, {"push_to_hub": "translated", "hub_model_id": "refused"} if flags else {})


def test_names_without_an_owner_are_told(tmp_path: Path) -> None:
    imported = import_simpletuner(tmp_path, push_to_hub=True, hub_model_id="simpletuner-lora")
    kind, line = tell(imported, "hub_model_id")
    assert kind == "refused" and "owner/name" in line and "publish" not in imported.tree


def test_no_token_is_in_a_report(tmp_path: Path) -> None:
    for imported in (
        import_diffusers(tmp_path, "--push_to_hub --hub_model_id=me/cat --hub_token=hf_SECRET"),
        import_kohya(tmp_path, "--huggingface_repo_id me/cat --huggingface_token hf_SECRET"),
    ):
        assert all("SECRET" not in f"{one.given.text} {one.line}" for one in imported.outcomes) and "publish" in imported.tree
        assert "SECRET" not in str(imported.tree)
