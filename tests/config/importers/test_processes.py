"""Several processes of other trainers: a step has as many pictures, and what each held is said."""

from __future__ import annotations

from pathlib import Path

from tests.config.importers.test_diffusers import find_line
from tests.config.importers.test_published import import_kohya, import_simpletuner
from weber.config.importers.load import import_run


def test_simpletuner(tmp_path: Path) -> None:
    imported = import_simpletuner(tmp_path, gradient_accumulation_steps=2, num_processes=4, fsdp_enable=True)
    assert imported.config.train.accumulation == 8
    assert "4 processes x 2" in find_line(imported, "num_processes")[1] and "takes the GPUs" in find_line(imported, "num_processes")[1]
    assert find_line(imported, "fsdp_enable")[0] == "no effect" and "parallel.strategy" in find_line(imported, "fsdp_enable")[1]


def test_kohya(tmp_path: Path) -> None:
    import_kohya(tmp_path, "--gradient_accumulation_steps=3")
    [script] = tmp_path.glob("*.sh")
    script.write_text(script.read_text().replace("python ", "accelerate launch --num_processes 2 --multi_gpu "))
    imported = import_run(script, tool="kohya")
    assert imported.config.train.accumulation == 6
    assert find_line(imported, "multi_gpu")[0] == "no effect"
    script.write_text(script.read_text().replace("--num_processes 2", "--use_deepspeed"))
    assert import_run(script, tool="kohya").config.train.accumulation == 3
