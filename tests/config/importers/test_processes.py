"""Several processes of other trainers: a step has as many pictures, and what each held is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.config.importers.test_diffusers import find_line, import_flags
from tests.config.importers.test_published import import_kohya, import_simpletuner
from weber.config.importers.load import import_run
from weber.errors import ConfigError


def test_simpletuner(tmp_path: Path) -> None:
    imported = import_simpletuner(tmp_path, gradient_accumulation_steps=2, num_processes=4, fsdp_enable=True)
    assert imported.config.train.accumulation == 8
    assert "4 processes x 2" in find_line(imported, "num_processes")[1] and "takes the GPUs" in find_line(imported, "num_processes")[1]
    kind, line = find_line(imported, "fsdp_enable")
    assert kind == "translated" and 'parallel.strategy = "fsdp"; memory.gradient_checkpointing = "all"' in line
    assert find_line(import_simpletuner(tmp_path, fsdp_reshard_after_forward=True), "fsdp_reshard_after_forward")[0] == "no effect"
    kept = import_simpletuner(tmp_path, fsdp_enable=True, fsdp_reshard_after_forward=False, model_type="full")
    assert kept.tree["parallel"] == {"strategy": "fsdp", "reshard": False}
    cut = import_simpletuner(tmp_path, context_parallel_size=2)
    assert find_line(cut, "context_parallel_size")[0] == "refused" and "docs/parallel.md" in find_line(cut, "context_parallel_size")[1]


def test_kohya(tmp_path: Path) -> None:
    import_kohya(tmp_path, "--gradient_accumulation_steps=3")
    [script] = tmp_path.glob("*.sh")
    script.write_text(script.read_text().replace("python ", "accelerate launch --num_processes 2 --multi_gpu "))
    imported = import_run(script, tool="kohya")
    assert imported.config.train.accumulation == 6
    assert find_line(imported, "multi_gpu")[0] == "no effect"
    script.write_text(script.read_text().replace("--num_processes 2", "--use_deepspeed"))
    assert import_run(script, tool="kohya").config.train.accumulation == 3
    import_kohya(tmp_path, "--deepspeed --zero_stage=3 --offload_param_device=cpu")
    assert import_run(script, tool="kohya").tree["parallel"] == {"strategy": "fsdp", "offload": True}


LORA, FULL = "train_dreambooth_lora_flux.py", "train_dreambooth_flux.py"
WANTED: dict[str, tuple[str, str, dict[str, object]]] = {
    "whole": (LORA, "distributed_type: MULTI_GPU", {}),
    "not on": (LORA, "distributed_type: MULTI_GPU\nfsdp_config: {fsdp_sharding_strategy: FULL_SHARD, fsdp_offload_params: true}", {}),
    "alone": (LORA, "distributed_type: FSDP\nnum_processes: 1", {}),
    "full shard": (LORA, "distributed_type: FSDP\nnum_processes: 4", {"strategy": "fsdp"}),
    "by number": (LORA, "distributed_type: FSDP\nfsdp_config: {fsdp_sharding_strategy: 3}", {"strategy": "ddp"}),
    "gradients of an adapter": (LORA, "distributed_type: FSDP\nfsdp_config: {fsdp_sharding_strategy: SHARD_GRAD_OP}", {"strategy": "ddp"}),
    "gradients": (
        FULL,
        "distributed_type: FSDP\nfsdp_config: {fsdp_version: 1, fsdp_sharding_strategy: SHARD_GRAD_OP}",
        {"strategy": "fsdp", "reshard": False},
    ),
    "the second FSDP": (
        FULL,
        "distributed_type: FSDP\nfsdp_config: {fsdp_version: 2, fsdp_sharding_strategy: NO_SHARD, fsdp_reshard_after_forward: false}",
        {"strategy": "fsdp", "reshard": False},
    ),
    "by machines": (
        LORA,
        "distributed_type: FSDP\nnum_machines: 2\nnum_processes: 8\nfsdp_config: {fsdp_sharding_strategy: HYBRID_SHARD}",
        {"strategy": "fsdp", "group": 4},
    ),
    "on the host": (LORA, "distributed_type: FSDP\nfsdp_config: {fsdp_offload_params: true}", {"strategy": "fsdp", "offload": True}),
    "what learns stays": (FULL, "distributed_type: FSDP\nfsdp_config: {fsdp_offload_params: true}", {"strategy": "fsdp"}),
    "ZeRO-2": (FULL, "distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 2}", {"strategy": "fsdp", "reshard": False}),
    "ZeRO-2 by default": (LORA, "distributed_type: DEEPSPEED", {"strategy": "ddp"}),
    "ZeRO-3": (
        LORA,
        "distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 3, offload_param_device: cpu, offload_optimizer_device: none}",
        {"strategy": "fsdp", "offload": True},
    ),
}


@pytest.mark.parametrize("name", WANTED)
def test_files_of_accelerate(tmp_path: Path, name: str) -> None:
    """What is divided there is divided here, and the run can be had; each key is answered once."""
    script, text, wanted = WANTED[name]
    file = tmp_path / "accelerate.yaml"
    file.write_text(text, encoding="utf-8")
    imported = import_flags(tmp_path, "", script=script, launch=f"accelerate launch --config_file={file}")
    assert imported.tree.get("parallel", {}) == wanted
    assert imported.config.memory.gradient_checkpointing == "all" or wanted.get("strategy") != "fsdp"
    names = [one.given.name for one in imported.outcomes if one.given.where == file.name]
    assert len(names) == len(set(names)) == text.count(":") - text.count("config:")


@pytest.mark.parametrize("named_by", ["the launcher", "its file"])
def test_the_file_of_deepspeed_is_read(tmp_path: Path, named_by: str) -> None:
    """What it asks for counts, each of its keys is answered once; where it is not here, nothing is guessed."""
    asked: dict[str, object] = {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}, "gradient_clipping": "auto"}
    asked |= {"bf16": {"enabled": "auto"}}
    launch, file = "accelerate launch --use_deepspeed --deepspeed_config_file=ds.json", tmp_path / "accelerate.yaml"
    if named_by == "its file":
        file.write_text("distributed_type: DEEPSPEED\ndeepspeed_config: {deepspeed_config_file: ds.json}\n", encoding="utf-8")
        launch = f"accelerate launch --config_file={file}"
    assert "parallel" not in import_flags(tmp_path, "", script=LORA, launch=launch).tree
    (tmp_path / "ds.json").write_text(json.dumps(asked), encoding="utf-8")
    imported = import_flags(tmp_path, "", script=LORA, launch=launch)
    assert imported.tree["parallel"] == {"strategy": "fsdp", "offload": True}
    names = [one.given.spelled for one in imported.outcomes if one.given.where == "ds.json"]
    wanted = ["bf16.enabled", "gradient_clipping", "zero_optimization.offload_param.device", "zero_optimization.stage"]
    assert sorted(names) == wanted
    (tmp_path / "ds.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigError, match="is no file of DeepSpeed"):
        import_flags(tmp_path, "", script=LORA, launch=launch)
