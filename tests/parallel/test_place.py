"""Which of several processes this one is, as those that start them say it."""

from __future__ import annotations

import pytest

from weber.errors import ConfigError
from weber.parallel.place import Place, find_place, read_first_host

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "gpu1", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_JOB_ID": "70001",
}


def test_torchrun_and_kubernetes() -> None:
    assert find_place(TORCHRUN) == Place(5, 8, 1, 4)
    pod = {name: text for name, text in TORCHRUN.items() if not name.startswith("LOCAL")}
    assert find_place(pod) == Place(5, 8, 0, 1)


def test_slurm() -> None:
    assert find_place(SLURM) == Place(3, 4, 1, 2, "tcp://gpu03:30001")
    assert find_place(SLURM | {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "4000"}) == Place(3, 4, 1, 2, "tcp://10.0.0.7:4000")


@pytest.mark.parametrize(
    ("nodes", "first"), [("gpu03", "gpu03"), ("gpu[03-07,9],cpu1", "gpu03"), ("a1,a2", "a1"), ("rack2-n[7]-ib", "rack2-n7-ib")]
)
def test_the_first_machine_of_a_list(nodes: str, first: str) -> None:
    assert read_first_host(nodes) == first


def test_a_process_on_its_own() -> None:
    assert find_place({}) is None
    assert find_place(TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert find_place({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}) is None, "the script of a job is no task of it"


@pytest.mark.parametrize("wrong", [{"RANK": "8"}, {"RANK": "first"}, {"LOCAL_RANK": "-1"}])
def test_variables_that_make_no_sense(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="makes no sense"):
        find_place(TORCHRUN | wrong)
