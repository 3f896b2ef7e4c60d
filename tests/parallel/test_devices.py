"""Which devices train a run, and those that are not here."""

from __future__ import annotations

import pytest
import torch

from tests.runs import BuildRun
from weber.errors import ConfigError
from weber.parallel.devices import check_alone, choose_device, list_devices


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with four GPUs, of which nothing but their number is asked."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


def test_processes_on_the_cpu(build_run: BuildRun) -> None:
    train = {"accumulation": 4}
    assert list_devices(build_run(train=train)) == [None]
    assert list_devices(build_run(train=train, parallel={"devices": 3})) == [None] * 3
    assert choose_device(build_run()) == torch.device("cpu")
    check_alone(build_run())
    with pytest.raises(ConfigError, match="this is one process"):
        check_alone(build_run(train={"accumulation": 2}, parallel={"devices": 2}))
    with pytest.raises(ConfigError, match="where there are several"):
        check_alone(build_run(parallel={"strategy": "ddp"}))


def test_gpus(build_run: BuildRun, four: None) -> None:
    gpu = {"device": "auto"}
    assert list_devices(build_run(memory=gpu, train={"batch_size": 8})) == [0, 1, 2, 3]
    assert list_devices(build_run(memory=gpu, train={"batch_size": 3})) == [0, 1, 2], "no more than a step has pictures"
    assert list_devices(build_run(memory=gpu, train={"batch_size": 8}, parallel={"devices": [3, 1]})) == [3, 1]
    assert list_devices(build_run(memory={"device": "cuda:1"}, train={"batch_size": 8})) == [None], "which is one device, and is said"
    for devices in (5, [0, 4]):
        with pytest.raises(ConfigError, match="no such device") as caught:
            list_devices(build_run(memory=gpu, train={"batch_size": 8}, parallel={"devices": devices}))
        assert f"parallel.devices = {5 if devices == 5 else [4]}" in str(caught.value) and "GPUs 0, 1, 2, 3" in str(caught.value)


def test_numbers_of_gpus_where_none_is(build_run: BuildRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no GPU is here"):
        list_devices(build_run(memory={"device": "auto"}, parallel={"devices": [0, 1]}))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"parallel": {"devices": 5}}, "raise train.accumulation to 3"),
        ({"parallel": {"devices": [0, 0]}}, "twice"),
        ({"parallel": {"devices": 1, "strategy": "fsdp"}}, "has no effect on one device"),
        ({"parallel": {"devices": [0, 1]}}, "numbers GPUs"),
        ({"parallel": {"devices": 2}, "memory": {"device": "cuda:0"}}, "is one device"),
        ({"parallel": {"devices": 2}, "optim": {"fused_backward": True, "clip_norm": "off"}}, "fused_backward cannot act"),
    ],
)
def test_what_cannot_act_is_refused(build_run: BuildRun, sections: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_run(**sections)
