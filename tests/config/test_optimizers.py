"""Names of optimizers as everybody writes them, and the settings that each takes."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from weber.config.optim import OptimConfig
from weber.config.optimizers import ALIASES, FACTS, REFUSED, TAIL, read_optimizer_name

SIMPLETUNER = (
    "torch-adam torch-adamw torch-sgd torch-radam torch-nadam torch-rmsprop torch-adagrad torch-adadelta torch-adafactor torch-adamax"
    " torch-asgd torch-sparseadam adamw_bf16 adamw_schedulefree adamw_schedulefree+aggressive adamw_schedulefree+no_kahan soap muon"
    " ao-adamw8bit ao-adamw4bit ao-adamfp8 ao-adamwfp8 optimi-stableadamw optimi-adamw optimi-lion optimi-radam optimi-ranger optimi-adan"
    " optimi-adam optimi-sgd bnb-adagrad bnb-adagrad8bit bnb-adam bnb-adam8bit bnb-adamw bnb-adamw8bit bnb-adamw-paged bnb-adamw8bit-paged"
    " bnb-lion bnb-lion8bit bnb-lion-paged bnb-lion8bit-paged bnb-ademamix bnb-ademamix8bit bnb-ademamix-paged bnb-ademamix8bit-paged"
    " prodigy sdnq-adamw sdnq-adamw+no_quant sdnq-adafactor sdnq-came sdnq-lion sdnq-muon sdnq-muon+quantized_matmul"
)
KOHYA = (
    "AdamW AdamW8bit PagedAdamW PagedAdamW8bit PagedAdamW32bit Lion Lion8bit PagedLion8bit SGDNesterov SGDNesterov8bit DAdaptation"
    " DAdaptAdamPreprint DAdaptAdaGrad DAdaptAdam DAdaptAdan DAdaptAdanIP DAdaptLion DAdaptSGD Prodigy AdaFactor AdamWScheduleFree"
    " RAdamScheduleFree SGDScheduleFree bitsandbytes.optim.AdEMAMix8bit bitsandbytes.optim.PagedAdEMAMix8bit torch.optim.NAdam"
)
AI_TOOLKIT = "dadaptation prodigy prodigy8bit adam8bit adamw8bit ademamix8bit adam adamw lion lion8bit adagrad adafactor automagic"
ONE_TRAINER = (
    "ADAGRAD ADAGRAD_8BIT ADAM ADAM_8BIT AdEMAMix_8BIT AdEMAMix SIMPLIFIED_AdEMAMix ADOPT ADOPT_ADV ADAMW ADAMW_8BIT ADAMW_ADV LAMB"
    " LAMB_8BIT LARS LARS_8BIT LION LION_8BIT LION_ADV LION_PRODIGY_ADV RMSPROP RMSPROP_8BIT SGD SGD_8BIT SIGNSGD_ADV SCHEDULE_FREE_ADAMW"
    " SCHEDULE_FREE_SGD DADAPT_ADA_GRAD DADAPT_ADAN DADAPT_ADAM DADAPT_SGD DADAPT_LION PRODIGY PRODIGY_PLUS_SCHEDULE_FREE PRODIGY_ADV"
    " ADAFACTOR CAME CAME_8BIT MUON MUON_ADV ADAMUON_ADV ADABELIEF TIGER AIDA YOGI"
)
DIFFUSERS = "AdamW prodigy use_8bit_adam"
OTHERS = " ".join([SIMPLETUNER, KOHYA, AI_TOOLKIT, ONE_TRAINER, DIFFUSERS]).split()


@pytest.mark.parametrize("name", dict.fromkeys(OTHERS))
def test_every_name_of_other_trainers_is_known_or_refused_with_what_to_take(name: str) -> None:
    try:
        assert read_optimizer_name(name) in FACTS
    except ValueError as error:
        assert "is no optimizer" not in str(error)
        assert '; write name = "' in str(error)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("AdamW8bit", "adamw_8bit"),
        ("ADAMW", "adamw"),
        ("PagedAdamW8bit", "bnb_paged_adamw_8bit"),
        ("bnb-adamw8bit", "bnb_adamw_8bit"),
        ("bnb-adamw8bit-paged", "bnb_paged_adamw_8bit"),
        ("bitsandbytes.optim.AdEMAMix8bit", "bnb_ademamix_8bit"),
        ("torch.optim.NAdam", "torch_nadam"),
        ("bitsandbytes.optim.lion.Lion8bit", "lion_8bit"),
        ("torchao.prototype.low_bit_optim.AdamW4bit", "torchao_adamw_4bit"),
        ("optimi.StableAdamW", "optimi_stableadamw"),
        ("pytorch_optimizer.optimizer.came.CAME", "pytorch_optimizer.CAME"),
        ("transformers.optimization.Adafactor", "adafactor"),
        ("lion_pytorch.Lion", "lion"),
        ("dadaptation.DAdaptAdam", "pytorch_optimizer.DAdaptAdam"),
        ("optimi-stableadamw", "optimi_stableadamw"),
        ("ao-adamw4bit", "torchao_adamw_4bit"),
        ("AdamWScheduleFree", "adamw_schedulefree"),
        ("soap", "pytorch_optimizer.SOAP"),
        ("pytorch_optimizer.came", "pytorch_optimizer.CAME"),
        ("pytorch_optimizer.Lion", "pytorch_optimizer.Lion"),
        ("Lion", "lion"),
        (" Prodigy ", "prodigy"),
    ],
)
def test_what_a_name_means(name: str, meant: str) -> None:
    assert read_optimizer_name(name) == meant
    assert OptimConfig(name=name).name == meant


def test_names_and_aliases_lead_to_themselves() -> None:
    assert {name: read_optimizer_name(name) for name in FACTS} == {name: name for name in FACTS}
    assert {alias: read_optimizer_name(alias) for alias in ALIASES} == ALIASES
    assert not [alias for alias in ALIASES if alias in FACTS]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_names_what_can_be_written(name: str) -> None:
    with pytest.raises(ValueError, match="; write name = ") as caught:
        read_optimizer_name(name)
    assert REFUSED[name][0] in str(caught.value)
    assert REFUSED[name][1].split('"')[1] in FACTS


@pytest.mark.parametrize(
    ("name", "near"),
    [("adamw_8bits", "adamw_8bit"), ("prodgy", "prodigy"), ("stable_adam_w2", "optimi_stableadamw"), ("adamw_torch_fused", "adamw")],
)
def test_an_unknown_name_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f'"{name}" is no optimizer; write name = "{near}"'):
        read_optimizer_name(name)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"name": "adafactor", "betas": (0.9, 0.99)}, 'betas has no effect with name = "adafactor"'),
        ({"name": "lion", "betas": (0.9, 0.99, 0.9)}, "betas has 3 numbers"),
        ({"name": "optimi_adan", "betas": (0.9, 0.99)}, "takes 3; write betas"),
        ({"name": "lion", "eps": 1e-6}, 'eps = 1e-06 has no effect with name = "lion"'),
        ({"name": "torch_sgd", "eps": 1e-6}, 'eps = 1e-06 has no effect with name = "torch_sgd"'),
        ({"name": "adamw", "options": {"amsgrad": True}}, "options has no effect"),
        ({"name": "prodigy", "fused_backward": True}, "fused_backward cannot act"),
        ({"name": "muon", "state_on": "host"}, 'state_on = "host" cannot act'),
        ({"name": "adamw_schedulefree", "schedule": "linear"}, 'schedule = "linear" cannot act'),
        ({"name": "adamw_schedulefree", "ema_decay": 0.99}, "ema_decay has no effect"),
        ({"ema_warmup": False}, "ema_warmup = false has no effect without ema_decay"),
        ({"ema_on": "device"}, 'ema_on = "device" has no effect without ema_decay'),
        ({"cycles": 3}, "cycles has no effect"),
        ({"schedule": "cosine_with_restarts", "power": 2.0}, "power has no effect"),
        ({"fused_backward": True, "clip_norm": 1.0}, "clip_norm = 1.0 cannot act"),
    ],
)
def test_what_cannot_act_is_refused(settings: dict[str, object], what: str) -> None:
    with pytest.raises(ValidationError) as caught:
        OptimConfig(**settings)  # type: ignore[arg-type]
    message = str(caught.value.errors()[0]["ctx"]["error"])
    assert what in message
    assert "; " in message, "no fix"


@pytest.mark.parametrize("name", FACTS)
def test_a_resolved_section_is_one_that_can_be_read(name: str) -> None:
    config = OptimConfig(name=name)
    resolved = config.build_resolved("lora")
    again = OptimConfig.model_validate(resolved.model_dump())
    assert again == resolved == again.build_resolved("full")
    assert resolved.lr == config.choose_lr("lora")
    assert (resolved.decays, resolved.chosen_eps, resolved.norm_limit) == (config.decays, config.chosen_eps, config.norm_limit)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("adamw", (1e-4, 1e-3, 1e-5)),
        ("lion_8bit", (1e-5, 1e-4, 1e-6)),
        ("optimi_lion", (1e-5, 1e-4, 1e-6)),
        ("muon", (1e-4, 1e-3, 1e-5)),
        ("prodigy", (1.0, 1.0, 1.0)),
        (f"{TAIL}DAdaptAdam", (1.0, 1.0, 1.0)),
        ("torch_sgd", (1e-2, 1e-2, 1e-2)),
    ],
)
def test_usual_rates(name: str, rates: tuple[float, float, float]) -> None:
    config = OptimConfig(name=name)
    assert tuple(config.choose_lr(form) for form in ("lora", "lokr", "full")) == pytest.approx(rates, rel=1e-12)
    assert OptimConfig(name=name, lr=0.5).choose_lr("lora") == 0.5


def test_optimizers_that_bound_their_updates_are_not_clipped_unless_asked() -> None:
    assert OptimConfig().norm_limit == 1.0
    assert OptimConfig(name="optimi_stableadamw").norm_limit is None
    assert OptimConfig(name="prodigy").norm_limit is None
    assert OptimConfig(name="prodigy", clip_norm=1.0).norm_limit == 1.0


@pytest.mark.parametrize("name", ["prodigy", f"{TAIL}DAdaptAdam"])
def test_a_rate_of_another_optimizer_is_refused_where_the_rate_is_found(name: str) -> None:
    with pytest.raises(ValidationError, match="finds the rate itself"):
        OptimConfig(name=name, lr=1e-4)
