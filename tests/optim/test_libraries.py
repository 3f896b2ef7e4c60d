"""Optimizers of libraries: every row goes on bit for bit, holds what the plan says, learns, and takes what its class takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.optim.conftest import OWN, SHAPES, Named, build_parameters, copy, is_equal, train
from weber.config.optim import OptimConfig
from weber.config.optimizers import FACTS, TAIL
from weber.errors import CheckpointError, ConfigError, MissingExtraError
from weber.optim import libraries
from weber.optim.libraries import Adopted, evaluated, load_class, load_library
from weber.optim.states import list_states, load_states
from weber.optim.table import OPTIMIZERS, build_optimizer, check_optimizer, count_state_bytes

HERE = [name for name in OPTIMIZERS if not FACTS[name].needs_gpu and name not in OWN]
CASES = [(name, dtype) for name in HERE for dtype in OPTIMIZERS[name].dtypes]
SLOW = {f"{TAIL}{name}" for name in ("DAdaptAdam", "Kate", "Ranger")}
"""Those that learn only after some steps."""

NEAR_BYTES = 64
"""Of small things beside the tensors, such as names of precisions."""

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def _build(parameters: Named, name: str, **settings: object) -> torch.optim.Optimizer:
    config = OptimConfig(name=name, **settings).build_resolved("lora")  # type: ignore[arg-type]
    return build_optimizer([parameter for _, parameter in parameters], config, seed=5)


def _save(optimizer: torch.optim.Optimizer, parameters: Named, path: Path) -> None:
    save_file({key: tensor.clone() for key, tensor in list_states(optimizer, parameters).items()}, path)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_a_run_goes_on_bit_for_bit(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """What a checkpoint holds of the weights are those that the optimizer would end with. Some do more every tenth step."""
    whole, first = build_parameters(dtype), build_parameters(dtype)
    in_one_go, optimizer = _build(whole, name), _build(first, name)
    train(in_one_go, whole, start=0, stop=12)
    train(optimizer, first, start=0, stop=7)
    _save(optimizer, first, tmp_path / "optimizer.safetensors")
    with evaluated(optimizer):
        second = copy(first)
    torch.manual_seed(99)
    fresh = _build(second, name)
    load_states(fresh, second, tensors=load_file(tmp_path / "optimizer.safetensors"))
    assert is_equal(first, second)
    train(fresh, second, start=7, stop=12)
    assert is_equal(whole, second)
    expected, got = list_states(in_one_go, whole), list_states(fresh, second)
    assert expected.keys() == got.keys()
    assert all(torch.equal(tensor, got[key]) and tensor.dtype == got[key].dtype for key, tensor in expected.items())


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_the_bytes_are_those_of_the_real_state(name: str, dtype: torch.dtype) -> None:
    """Of matrices; SaRA keeps something only for the numbers that are small."""
    parameters = build_parameters(dtype)
    optimizer = _build(parameters, name)
    train(optimizer, parameters, start=0, stop=2)
    states = list_states(optimizer, parameters)
    for (parameter_name, shape) in SHAPES.items():
        own = [tensor.nbytes for key, tensor in states.items() if key.startswith(f"{parameter_name}/") and not key.endswith("/weights")]
        expected = OPTIMIZERS[name].state_bytes(shape, dtype)
        near = NEAR_BYTES if name != f"{TAIL}SaRA" else 0.1 * expected + NEAR_BYTES
        assert abs(sum(own) - expected) <= near, parameter_name


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("torch_sgd", {"momentum": 0.9}),
        ("optimi_sgd", {"momentum": 0.9}),
        ("torch_adam", {"amsgrad": True}),
        ("prodigy", {"slice_p": 8}),
        (f"{TAIL}CAME", {"ams_bound": True}),
    ],
)
def test_options_that_take_more_or_less_are_counted(name: str, options: dict[str, object]) -> None:
    """To two hundredths: an eighth of a matrix may begin anywhere, and a third kind of block brings what its codes mean."""
    parameters = [(key, torch.nn.Parameter(torch.ones(64, 512))) for key in ("one", "other")]
    optimizer = _build(parameters, name, options=options)
    train(optimizer, parameters, start=0, stop=2)
    held = sum(tensor.nbytes for key, tensor in list_states(optimizer, parameters).items() if not key.startswith("group"))
    config = OptimConfig(name=name, options=options)
    expected = count_state_bytes(config, [(64, 512)] * 2, dtype=torch.float32)
    assert expected == pytest.approx(held, rel=0.02)
    assert expected != count_state_bytes(OptimConfig(name=name), [(64, 512)] * 2, dtype=torch.float32)


def _list_plain(optimizer: torch.optim.Optimizer) -> dict[str, str]:
    """What an optimizer keeps beside its groups and states."""
    kept = {key: value for key, value in vars(optimizer).items() if key not in ("state", "param_groups", "defaults")}
    return {key: repr(value) for key, value in kept.items() if isinstance(value, bool | int | float | list | tuple | torch.Tensor)}


@pytest.mark.parametrize("name", HERE)
def test_nothing_that_changes_is_kept_elsewhere(name: str) -> None:
    """What no checkpoint holds may not change: counters that act only after hundreds of steps would show in no short run."""
    parameters = build_parameters()
    optimizer = _build(parameters, name)
    assert isinstance(optimizer, Adopted)
    train(optimizer, parameters, start=0, stop=1)
    before = [_list_plain(one) for one in optimizer.inner]
    train(optimizer, parameters, start=1, stop=4)
    assert [_list_plain(one) for one in optimizer.inner] == before


@pytest.mark.parametrize("name", HERE)
def test_it_learns(name: str) -> None:
    """A fit of a small matrix gets nearer; those that find their rate first need some steps for that."""
    inputs, truth = (torch.randn(64, size, generator=torch.Generator().manual_seed(size)) / 8 for size in (24, 16))
    weight = torch.nn.Parameter(torch.zeros(24, 16) + 1e-4)
    optimizer = _build([("weight", weight)], name)
    losses = []
    for _ in range(60 if name in SLOW else 20):
        loss = (inputs @ weight - truth).square().sum()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]


def test_evaluated_numbers_are_others_and_the_trained_ones_come_back() -> None:
    parameters = build_parameters()
    optimizer = _build(parameters, "adamw_schedulefree", lr=1e-2)
    train(optimizer, parameters, start=0, stop=3)
    trained = copy(parameters)
    with pytest.raises(RuntimeError, match="stop"), evaluated(optimizer):
        assert not is_equal(parameters, trained)
        raise RuntimeError("stop")
    assert is_equal(parameters, trained)
    train(optimizer, parameters, start=3, stop=4)


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "prodigy"])
def test_with_one_kind_of_numbers_nothing_happens(name: str) -> None:
    parameters = build_parameters()
    optimizer = _build(parameters, name)
    train(optimizer, parameters, start=0, stop=1)
    trained = copy(parameters)
    with evaluated(optimizer):
        assert is_equal(parameters, trained)


def test_schedule_free_numbers_are_those_of_the_library() -> None:
    """Looking at the evaluated numbers in between changes nothing."""
    made = load_class("schedulefree:AdamWScheduleFree", "adamw_schedulefree")
    ours, theirs = build_parameters(), build_parameters()
    optimizer = _build(ours, "adamw_schedulefree", lr=1e-2, weight_decay=0.1)
    plain = made([one for _, one in theirs], lr=1e-2, weight_decay=0.1)  # type: ignore[call-arg]
    plain.train()  # type: ignore[attr-defined]
    for step in range(4):
        train(optimizer, ours, start=step, stop=step + 1)
        with evaluated(optimizer):
            pass
        train(plain, theirs, start=step, stop=step + 1)
    assert is_equal(ours, theirs)


def test_what_is_drawn_depends_on_seed_and_step_alone() -> None:
    """Weights in bf16 are rounded stochastically by torchao, from the generator of the process."""
    results = []
    for seed, noise in ((5, 0), (5, 1), (6, 0)):
        parameters = build_parameters(torch.bfloat16)
        config = OptimConfig(name="torchao_adamw_8bit", lr=1e-3)
        optimizer = build_optimizer([one for _, one in parameters], config, seed=seed)
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        train(optimizer, parameters, start=0, stop=2)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(parameters)
    assert is_equal(results[0], results[1])
    assert not is_equal(results[0], results[2])


@pytest.mark.parametrize("name", ["optimi_adamw", "bnb_adamw_8bit", "torchao_adamw_8bit", "adamw_schedulefree", "muon", f"{TAIL}CAME"])
def test_parameters_have_rates_of_their_own(name: str) -> None:
    together, rates = build_parameters(), [1.0, 3.0, 1.0]
    config = OptimConfig(name=name, lr=1e-3)
    optimizer = build_optimizer([one for _, one in together], config, seed=5, rates=rates)
    train(optimizer, together, start=0, stop=3)
    for position, rate in enumerate(rates):
        alone = build_parameters()
        train(_build(alone, name, lr=1e-3 * rate), alone, start=0, stop=3)
        assert torch.allclose(together[position][1], alone[position][1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["prodigy", f"{TAIL}DAdaptAdam"])
def test_one_rate_for_all_is_not_two(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_optimizer(OptimConfig(name=name), [torch.float32], rates=[1.0, 0.5])
    assert "finds one rate for all parameters" in str(caught.value)
    check_optimizer(OptimConfig(name=name), [torch.float32], rates=[0.5, 0.5])


def test_rates_may_not_come_or_go_where_groups_have_a_state() -> None:
    parameters = build_parameters()
    optimizer = _build(parameters, "adamw_schedulefree")
    train(optimizer, parameters, start=0, stop=1)
    config = OptimConfig(name="adamw_schedulefree", lr=1e-3)
    other = build_optimizer([one for _, one in parameters], config, seed=5, rates=[1.0, 2.0, 1.0])
    with pytest.raises(CheckpointError, match="1 groups of parameters, where there are 2 now"):
        load_states(other, parameters, tensors=list_states(optimizer, parameters))


def test_muon_takes_matrices_and_adamw_the_rest() -> None:
    parameters = build_parameters()
    optimizer = _build(parameters, "muon", betas=[0.8, 0.95], eps=1e-6, weight_decay=0.2, options={"momentum": 0.8})
    assert isinstance(optimizer, Adopted)
    muon, adamw = optimizer.inner
    assert (type(muon).__name__, type(adamw).__name__) == ("Muon", "AdamW")
    assert [one.ndim for one in muon.param_groups[0]["params"]] == [2, 2]
    assert (muon.defaults["momentum"], muon.defaults["weight_decay"], muon.defaults["adjust_lr_fn"]) == (0.8, 0.2, "match_rms_adamw")
    assert (adamw.defaults["betas"], adamw.defaults["eps"], adamw.defaults["weight_decay"]) == ((0.8, 0.95), 1e-6, 0.2)
    optimizer = _build(parameters, "muon", weight_decay=0.0)
    train(optimizer, parameters, start=0, stop=1)
    moved = [(one - start).square().mean().sqrt().item() for (_, one), (_, start) in zip(parameters, build_parameters(), strict=True)]
    assert moved[0] == pytest.approx(0.2 * 1e-4, rel=0.5), "as large as AdamW's in a run"


@pytest.mark.parametrize(
    ("name", "options", "fix"),
    [
        ("prodigy", {"d_coeff": 0.5}, "write d_coef"),
        ("prodigy", {"lr": 0.5}, "set optim.lr"),
        ("prodigy", {"fsdp_in_use": True}, "weber decides"),
        ("adamw_schedulefree", {"warmup_steps": 5}, "set optim.warmup_steps"),
        ("bnb_adamw_8bit", {"is_paged": True}, "choose the name"),
        ("torch_sgd", {"colour": "red"}, "remove it"),
        ("torchao_adamw_8bit", {"amsgrad": True}, "remove it"),
        ("bnb_sgd", {"nesterov": True}, "remove it"),
        ("bnb_rmsprop_8bit", {"momentum": 0.9}, "remove it"),
        ("muon", {"momentums": 0.9}, "write momentum"),
        (f"{TAIL}CAME", {"clip_treshold": 0.9}, "write clip_threshold"),
    ],
)
def test_options_that_the_class_does_not_take(name: str, options: dict[str, object], fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_optimizer(OptimConfig(name=name, options=options), [torch.float32])
    assert f'optim.name = "{name}"' in str(caught.value)
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("prodigy", {"options": {"d_coef": "much"}}, "a number"),
        ("prodigy", {"options": {"d_coef": True}}, "a number"),
        (f"{TAIL}CAME", {"options": {"ams_bound": 3}}, "true or false"),
        (f"{TAIL}SOAP", {"options": {"data_format": 1.0}}, "text"),
        (f"{TAIL}QHAdam", {"options": {"nus": [1.0]}}, "a list of 2 numbers"),
        (f"{TAIL}Lion", {"betas": (0.9, 0.99, 0.9)}, "a list of 2 numbers"),
        (f"{TAIL}AdEMAMix", {"betas": (0.9, 0.99)}, "a list of 3 numbers"),
    ],
)
def test_values_of_another_kind_than_the_class_takes(name: str, settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_optimizer(OptimConfig(name=name, **settings), [torch.float32])  # type: ignore[arg-type]
    assert caught.value.expected == expected
    assert "the library's own" in caught.value.fix


def test_a_value_may_be_of_each_kind_that_the_class_takes() -> None:
    check_optimizer(OptimConfig(name=f"{TAIL}ROSE", options={"wd_schedule": 0.5}), [torch.float32])
    check_optimizer(OptimConfig(name="prodigy", options={"d_coef": 1}), [torch.float32])


def test_options_arrive() -> None:
    optimizer = _build(build_parameters(), "prodigy", options={"d_coef": 0.5, "use_bias_correction": True})
    assert (optimizer.param_groups[0]["d_coef"], optimizer.param_groups[0]["use_bias_correction"]) == (0.5, True)
    assert optimizer.param_groups[0]["lr"] == 1.0


@pytest.mark.parametrize(("key", "value"), [("betas", [0.9, 0.99]), ("eps", 1e-6)])
def test_settings_that_a_class_of_the_long_tail_does_not_take(key: str, value: object) -> None:
    config = OptimConfig(name=f"{TAIL}SignSGD", **{key: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"remove optim.{key}"):
        check_optimizer(config, [torch.float32])


@pytest.mark.parametrize(("name", "options"), [("torch_sgd", {"nesterov": True}), ("bnb_sgd", {"momentum": 0.0})])
def test_a_value_that_the_class_refuses(name: str, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="refuses its settings"):
        check_optimizer(OptimConfig(name=name, options=options), [torch.float32])


def test_a_missing_library_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    with pytest.raises(MissingExtraError) as caught:
        check_optimizer(OptimConfig(name="adamw_schedulefree"), [torch.float32])
    assert caught.value.fix == "pip install 'weber[optimizers]'"
    with pytest.raises(MissingExtraError, match="no not_a_package"):
        load_library("not_a_package", what="This")


def test_a_library_without_the_class_is_too_old() -> None:
    with pytest.raises(MissingExtraError, match="without NoSuchClass"):
        load_class("torch.optim:NoSuchClass", "torch_none")


def test_libraries_are_imported_when_they_are_used_and_in_silence() -> None:
    """Importing the table imports none; building one says nothing."""
    program = (
        "import sys, weber, torch; from weber.optim.table import build_optimizer as b; from weber.config.optim import OptimConfig as c;"
        f"names = {sorted(set(libraries._PACKAGES) - {'bitsandbytes', 'torchao'})!r};"
        "print([one for one in names if one in sys.modules]);"
        "p = [torch.nn.Parameter(torch.ones(64, 64))];"
        "[b(p, c(name=n, lr=1.0), seed=0) for n in ('prodigy', 'optimi_adamw', 'torchao_adamw_8bit', 'pytorch_optimizer.CAME')]"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (finished.stdout, finished.stderr) == ("[]\n", "")
