"""Optimizer, its arguments, rates and schedules of kohya's scripts, as settings of weber."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from weber.config.importers.answers import Call, Table, ignored, refused, translated, used
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.values import read_bool, read_float, simplify
from weber.config.optimizers import FACTS, read_optimizer_name
from weber.config.optimizers import REFUSED as REFUSED_OPTIMIZERS
from weber.errors import ConfigError

_NESTEROV = ("sgdnesterov", "sgdnesterov8bit")
_NO_DECAY = (
    "adafactor", "lion", "lion_8bit", "bnb_lion", "bnb_lion_8bit", "bnb_paged_lion", "bnb_paged_lion_8bit", "prodigy", "adamw_schedulefree",
)
"""Optimizers whose libraries have no weight decay if nothing is said, and that have some here."""

_ROUNDING = ("adafactor", "adamw_8bit", "adamw_bf16", "lion", "lion_8bit")
"""Optimizers that train weights in bf16 here: with stochastic rounding."""

_LOWEST_FACTOR = 0.01
_ADAFACTOR_EPS = 1e-15
_POLYNOMIAL_END = 1e-7  # lr_end of transformers' get_polynomial_decay_schedule_with_warmup


def is_adapter(keys: Keys) -> bool:
    """Whether it is flux_train_network.py that runs."""
    return bool(keys["run.is_adapter"])


def name_optimizer(keys: Keys) -> str:
    """The optimizer here; of one that weber has not the one that it names as the nearest."""
    text = _spell(keys)
    if text.lower().replace("_", "") in _NESTEROV:
        return "torch_sgd"
    try:
        return read_optimizer_name(text)
    except ValueError as error:
        named = re.search(r'name = "([^"]+)"', str(error))
        plain = re.sub(r"[-_. ]", "", text.rpartition(".")[2]).lower()
        is_known = any(plain == re.sub(r"[-_. ]", "", name).lower() for name in REFUSED_OPTIMIZERS)
        if not is_known or named is None:
            raise ConfigError(
                f"{keys.find('optimizer_type').spelled} names no optimizer that weber knows: {error}",
                got=keys.find("optimizer_type").text,
                expected="an optimizer of kohya's scripts, such as AdamW8bit, Prodigy, Adafactor or Lion",
                fix="correct its name, or write AdamW8bit",
            ) from error
        return named[1]


def _spell(keys: Keys) -> str:
    if keys.read_bool("use_8bit_adam"):
        return "AdamW8bit"
    return "Lion" if keys.read_bool("use_lion_optimizer") else str(keys["optimizer_type"] or "AdamW").strip()


def is_relative(keys: Keys) -> bool:
    """Whether Adafactor has the rate of its own that it has if nothing is said."""
    if name_optimizer(keys) != "adafactor":
        return False
    relative = keys["optimizer_args.relative_step"]
    warm = keys["optimizer_args.warmup_init"]
    return relative is None or read_bool(relative, name="relative_step") or (warm is not None and read_bool(warm, name="warmup_init"))


def is_schedule_free(keys: Keys) -> bool:
    """Whether it is an optimizer for which the scripts make no schedule."""
    return _spell(keys).lower().endswith("schedulefree")


def _put_optimizer(draft: Draft, keys: Keys, value: Any) -> str:
    """`optim.name`, and what its library has where weber has something else."""
    name, given = name_optimizer(keys), keys.find("optimizer_type")
    line = draft.set("optim.name", name, origin=given)
    if name in _NO_DECAY and "optimizer_args.weight_decay" not in keys and not draft.weber_defaults:
        line += "; " + draft.set("optim.weight_decay", 0.0, origin=f"the default of {_spell(keys)}")
    if name == "adafactor" and "optimizer_args.eps" not in keys and not draft.weber_defaults:
        line += "; " + draft.set("optim.eps", _ADAFACTOR_EPS, origin="the root of the 1e-30 that it adds to squares there")
    if _spell(keys).lower() in _NESTEROV:
        for option, worth in (("momentum", keys["optimizer_args.momentum"] or 0.9), ("nesterov", True)):
            line += "; " + draft.set(f"optim.options.{option}", worth, origin=given)
    if not is_adapter(keys) and keys["mixed_precision"] == "bf16" and not _rounds(name):
        line += "; " + draft.set("adapter.precision", "fp32", origin=f"{_spell(keys)} would lose updates of weights in bf16")
    try:
        read_optimizer_name(_spell(keys))
    except ValueError as error:
        return line if _spell(keys).lower() in _NESTEROV else f"{line}, the nearest: {error}"
    return line


def _rounds(name: str) -> bool:
    return name in _ROUNDING or name.startswith(("optimi_", "torchao_"))


def _put_old_flag(draft: Draft, keys: Keys, value: Any) -> str:
    """`use_8bit_adam` and `use_lion_optimizer`, of before `optimizer_type`."""
    return _put_optimizer(draft, keys, value) if read_bool(value, name="the flag") else NO_EFFECT + "asks for nothing, here as there"


# ---- rates


def _put_lr(draft: Draft, keys: Keys, value: Any) -> str:
    """`learning_rate`: of the transformer, unless `unet_lr` is given, and of CLIP, unless `text_encoder_lr` is."""
    if "unet_lr" in keys and is_adapter(keys):
        if not trains_text(keys) or read_text_rate(keys) != read_float(value, name="learning_rate"):
            return NO_EFFECT + "unet_lr counts for the transformer" + (", and text_encoder_lr for CLIP" if trains_text(keys) else "")
        return _put_text_rate(draft, keys, value, "learning_rate")
    return _put_rate(draft, keys, value, "learning_rate")


def _put_unet_lr(draft: Draft, keys: Keys, value: Any) -> str:
    """`unet_lr`: the rate of adapters on the transformer."""
    return _put_rate(draft, keys, value, "unet_lr") if is_adapter(keys) else NO_EFFECT + "flux_train.py has no such option"


def _put_rate(draft: Draft, keys: Keys, value: Any, name: str) -> str:
    rate, optimizer = read_float(value, name=keys.find(name).spelled), name_optimizer(keys)
    facts = FACTS[optimizer]
    if rate == 0:
        return REFUSED + "with a rate of 0 nothing is learned; the usual one is taken: set optim.lr"
    if facts.fixed_lr == 1 and not facts.has_rates and rate < _LOWEST_FACTOR:
        return REFUSED + f"{optimizer} multiplies the rate that it finds by it, and {rate:g} would all but stop it; 1.0 is taken"
    line = draft.set("optim.lr", rate, origin=keys.find(name))
    if is_relative(keys):
        return f"{line}; there Adafactor with relative_step had a rate of its own, which weber has not"
    return line


def trains_text(keys: Keys) -> bool:
    """Whether adapters on CLIP are trained there: they are unless it is switched off."""
    if not is_adapter(keys) or keys.read_bool("network_train_unet_only"):
        return False
    rate = read_text_rate(keys)
    return rate is None or rate > 0


def read_text_rate(keys: Keys) -> float | None:
    """The rate of CLIP: the first of `text_encoder_lr`, or `learning_rate`."""
    value = keys["text_encoder_lr"]
    first = _list(value)[0] if _list(value) else keys["learning_rate"]
    return None if first is None else read_float(first, name="text_encoder_lr")


def _list(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value in (None, "") else [one for one in re.split(r"[,\s]+", str(value).strip("[] ")) if one]


def _put_text_lr(draft: Draft, keys: Keys, value: Any) -> str:
    """`text_encoder_lr`: of CLIP, and of T5, which is not trained."""
    rates = _list(value)
    if not trains_text(keys) or not rates:
        return NO_EFFECT + "CLIP is not trained" if rates else NO_EFFECT + "empty: left out, here as there"
    line = _put_text_rate(draft, keys, rates[0], "text_encoder_lr")
    return f"{line}; the second rate is of T5, which is trained with train_t5xxl alone" if len(rates) > 1 else line


def _put_text_rate(draft: Draft, keys: Keys, value: Any, name: str) -> str:
    rate = read_float(value, name=keys.find(name).spelled)
    if is_lycoris(keys):
        return NO_EFFECT + "CLIP is not trained with LyCORIS here"
    if not FACTS[name_optimizer(keys)].has_rates:
        return NO_EFFECT + "the optimizer finds one rate for all, there as here"
    main = keys["unet_lr"] if "unet_lr" in keys else keys["learning_rate"]
    if main is not None and read_float(main, name="learning_rate") == rate:
        return NO_EFFECT + "the same rate as that of the transformer"
    return draft.set("optim.text_encoder_lr", rate, origin=keys.find(name))


def is_lycoris(keys: Keys) -> bool:
    """Whether what is trained is a form of LyCORIS."""
    return str(keys["network_module"] or "").startswith(("lycoris.", "networks.lo", "networks.oft")) and not str(
        keys["network_module"]
    ).startswith("networks.lora")


# ---- clipping and schedules


def _put_clip(draft: Draft, keys: Keys, value: Any) -> str:
    """`max_grad_norm`: 0 leaves gradients as they are."""
    norm, origin = read_float(value, name="max_grad_norm"), keys.find("max_grad_norm")
    if moves_at_once(keys):
        if norm == 0:
            return draft.set("optim.clip_norm", "off", origin=origin)
        return REFUSED + "with fused updates each gradient was clipped alone there, and the norm of all is not known here: none is clipped"
    return draft.set("optim.clip_norm", norm if norm > 0 else "off", origin=origin)


def moves_at_once(keys: Keys) -> bool:
    """Whether each weight moves as soon as its gradient is there."""
    if is_adapter(keys) or (keys.read_int("gradient_accumulation_steps") or 1) > 1:
        return False
    asked = keys.read_bool("fused_backward_pass") or keys.read_bool("blockwise_fused_optimizers")
    return asked and FACTS[name_optimizer(keys)].is_own


def _put_fused(draft: Draft, keys: Keys, value: Any) -> str:
    """`fused_backward_pass`, `blockwise_fused_optimizers`: memory alone, for whole models."""
    if not read_bool(value, name="fused_backward_pass"):
        return NO_EFFECT + "asks for nothing, here as there"
    if is_adapter(keys):
        return NO_EFFECT + "flux_train_network.py does not read it"
    if not moves_at_once(keys):
        return NO_EFFECT + "it saves memory alone; here only weber's own optimizers can, without accumulation"
    name = "fused_backward_pass" if keys["fused_backward_pass"] else "blockwise_fused_optimizers"
    return draft.set("optim.fused_backward", True, origin=keys.find(name))


_SCHEDULES: Mapping[str, str] = {
    "constant": "constant",
    "constant_with_warmup": "constant",
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_restarts": "cosine_with_restarts",
    "cosine_with_min_lr": "cosine",
    "polynomial": "polynomial",
}
_NEAREST: Mapping[str, tuple[str, str]] = {
    "inverse_sqrt": ("cosine", "it falls with the root of the step"),
    "warmup_stable_decay": ("constant", "it is constant, and falls in the last lr_decay_steps"),
    "piecewise_constant": ("linear", "it falls in steps"),
    "cosine_warmup_with_min_lr": ("cosine", "its warm-up begins above 0"),
    "reduce_lr_on_plateau": ("cosine", "it waits for a loss that stays"),
    "adafactor": ("constant", "it is Adafactor's own rate, which weber has not"),
    "rex": ("polynomial", "it is slower at first; optim.power = 0.6 is near"),
}


def _put_schedule(draft: Draft, keys: Keys, value: Any) -> str:
    """`lr_scheduler`."""
    name, origin = str(value).strip().lower(), keys.find("lr_scheduler")
    if is_schedule_free(keys):
        return NO_EFFECT + "schedule-free optimizers have no schedule, there as here"
    if "lr_scheduler_type" in keys:
        return NO_EFFECT + "lr_scheduler_type counts"
    if is_relative(keys):
        return NO_EFFECT + "Adafactor with relative_step has its own schedule there"
    if name not in _SCHEDULES:
        nearest, why = _NEAREST.get(name, ("", ""))
        if not nearest:
            raise ConfigError(
                f"{origin.spelled} names no schedule that kohya's scripts have.",
                got=origin.text,
                expected=", ".join((*_SCHEDULES, *_NEAREST)),
                fix=f"correct {origin.spelled}",
            )
        draft.set("optim.schedule", nearest, origin=origin)
        return REFUSED + f'{why}; the nearest is taken, optim.schedule = "{nearest}"'
    schedule = _SCHEDULES[name]
    cycles = keys.read_int("lr_scheduler_num_cycles") or 1
    if schedule == "cosine_with_restarts" and cycles < 2:
        return draft.set("optim.schedule", "cosine", origin=origin) + ": with lr_scheduler_num_cycles = 1 there is no restart"
    line = draft.set("optim.schedule", schedule, origin=origin)
    if schedule == "polynomial" and not draft.weber_defaults and _end_fits(keys, _POLYNOMIAL_END):
        line += "; " + draft.set("optim.end_lr", _POLYNOMIAL_END, origin="where polynomial ends there")
    return line


def _has_course(keys: Keys, name: str) -> bool:
    """Whether it is that schedule which acts."""
    is_other = "lr_scheduler_type" in keys or is_schedule_free(keys) or is_relative(keys)
    return not is_other and str(keys["lr_scheduler"]).strip().lower() == name


def _end_fits(keys: Keys, end: float) -> bool:
    rate = keys["unet_lr"] if "unet_lr" in keys else keys["learning_rate"]
    return rate is not None and read_float(rate, name="learning_rate") > end


def _put_cycles(draft: Draft, keys: Keys, value: Any) -> str:
    """`lr_scheduler_num_cycles`."""
    number = simplify(read_float(value, name="lr_scheduler_num_cycles"))
    if not _has_course(keys, "cosine_with_restarts"):
        return NO_EFFECT + "is for cosine_with_restarts"
    if number < 2:
        return NO_EFFECT + "one fall, without a restart"
    return draft.set("optim.cycles", int(number), origin=keys.find("lr_scheduler_num_cycles"))


def _put_power(draft: Draft, keys: Keys, value: Any) -> str:
    """`lr_scheduler_power`."""
    if not _has_course(keys, "polynomial"):
        return NO_EFFECT + "is for polynomial"
    return draft.set("optim.power", read_float(value, name="lr_scheduler_power"), origin=keys.find("lr_scheduler_power"))


def _put_min_ratio(draft: Draft, keys: Keys, value: Any) -> str:
    """`lr_scheduler_min_lr_ratio`: the end of `cosine_with_min_lr`, as a share of the rate."""
    rate = keys["unet_lr"] if "unet_lr" in keys else keys["learning_rate"]
    if not _has_course(keys, "cosine_with_min_lr") or rate is None:
        return NO_EFFECT + "is for cosine_with_min_lr"
    end = read_float(rate, name="learning_rate") * read_float(value, name="lr_scheduler_min_lr_ratio")
    return draft.set("optim.end_lr", float(f"{end:.6g}"), origin=keys.find("lr_scheduler_min_lr_ratio"))


def _put_warmup_steps(draft: Draft, keys: Keys, value: Any) -> str:
    """`lr_warmup_steps`: steps, or below 1 or with a percent sign a share of all steps."""
    return _put_warmup(draft, keys, str(value).strip(), "lr_warmup_steps")


def _put_warmup_percent(draft: Draft, keys: Keys, value: Any) -> str:
    """`lr_warmup` of the GUI: percent of `max_train_steps`."""
    if "lr_warmup_steps" in keys:
        return NO_EFFECT + "lr_warmup_steps counts"
    return _put_warmup(draft, keys, f"{value}%", "lr_warmup_percent")


def _put_warmup(draft: Draft, keys: Keys, text: str, name: str) -> str:
    is_share = text.endswith("%")
    number = read_float(text.rstrip("%"), name=name) / (100 if is_share else 1)
    if number == 0:
        return NO_EFFECT + "no warm-up, here as there"
    if is_schedule_free(keys):
        return NO_EFFECT + "schedule-free optimizers have no warm-up there"
    if is_share or number < 1:
        steps = keys.read_int("max_train_steps")
        if name == "lr_warmup_steps" and "max_train_epochs" in keys:
            steps = None
        if steps is None or "max_train_steps" not in keys:
            return REFUSED + "a share of the steps, which only the number of pictures says: set optim.warmup_steps"
        number = round(number * steps) if name == "lr_warmup_percent" else int(number * steps)
    line = draft.set("optim.warmup_steps", int(number), origin=keys.find(name))
    if str(keys["lr_scheduler"]) == "constant":
        line += "; there lr_scheduler = constant stops at a warm-up, and constant_with_warmup is meant"
    return line


def _put_scheduler_type(draft: Draft, keys: Keys, value: Any) -> str:
    """`lr_scheduler_type`: a class of PyTorch or of another library."""
    name = str(value).rpartition(".")[2].lower()
    near = "cosine" if "cos" in name else "polynomial" if "poly" in name else "linear" if "linear" in name or "step" in name else "cosine"
    draft.set("optim.schedule", near, origin=keys.find("lr_scheduler_type"))
    return REFUSED + f'a schedule of another library; the nearest is taken, optim.schedule = "{near}"'


# ---- optimizer_args


def put_option(name: str) -> Call:
    """An argument of the optimizer that goes to its library."""

    def put(draft: Draft, keys: Keys, value: Any) -> str:
        optimizer, key = name_optimizer(keys), f"optimizer_args.{name}"
        if FACTS[optimizer].is_own:
            return REFUSED + f"weber's {optimizer} has no such setting"
        worth = [float(one) for one in value] if isinstance(value, list) else value
        return draft.set(f"optim.options.{name}", worth, origin=keys.find(key))

    return put


def _put_betas(draft: Draft, keys: Keys, value: Any) -> str:
    """`betas`."""
    optimizer = name_optimizer(keys)
    facts, numbers = FACTS[optimizer], [read_float(one, name="betas") for one in _list(value)]
    if facts.is_tail or (facts.betas is not None and len(facts.betas) == len(numbers)):
        return draft.set("optim.betas", numbers, origin=keys.find("optimizer_args.betas"))
    if facts.betas is None:
        return NO_EFFECT + f"{optimizer} has no such means"
    return REFUSED + f"{optimizer} takes {len(facts.betas)} numbers"


def _put_eps(draft: Draft, keys: Keys, value: Any) -> str:
    """`eps`; Adafactor's are two, of which the second is for a rate relative to weights."""
    optimizer, numbers = name_optimizer(keys), _list(value)
    if optimizer == "adafactor":
        root = read_float(numbers[0], name="eps") ** 0.5
        line = draft.set("optim.eps", root, origin=keys.find("optimizer_args.eps"))
        return f"{line}: weber bounds roots, where it is added to squares there"
    if FACTS[optimizer].eps is None and not FACTS[optimizer].is_tail:
        return NO_EFFECT + f"{optimizer} divides by nothing"
    return draft.set("optim.eps", read_float(numbers[0], name="eps"), origin=keys.find("optimizer_args.eps"))


def _only_adafactor(name: str, line: str, *, off: Sequence[Any] = ()) -> Call:
    """An argument of Adafactor; any other optimizer passes it to its library."""

    def answer(draft: Draft, keys: Keys, value: Any) -> str:
        if name_optimizer(keys) != "adafactor":
            return put_option(name)(draft, keys, value)
        return NO_EFFECT + "as weber's Adafactor has it" if value in off else REFUSED + line

    return answer


def _put_relative(draft: Draft, keys: Keys, value: Any) -> str:
    """`relative_step`: Adafactor's own rate."""
    if name_optimizer(keys) != "adafactor":
        return put_option("relative_step")(draft, keys, value)
    if is_relative(keys):
        return REFUSED + "weber's Adafactor takes its rate from optim.lr, and has none of its own"
    return NO_EFFECT + "weber's Adafactor takes its rate from optim.lr in any case"


OPTIMIZER: Table = {
    "optimizer_args.weight_decay": used("optim.weight_decay"),
    "optimizer_args.betas": translated(_put_betas, "optim.betas"),
    "optimizer_args.eps": translated(_put_eps, "optim.eps"),
    "optimizer_args.relative_step": translated(_put_relative, "false: Adafactor takes optim.lr, as it always does; true cannot be had"),
    "optimizer_args.scale_parameter": translated(
        _only_adafactor("scale_parameter", "weber's Adafactor takes the rate as it is, not relative to the size of weights", off=(False,)),
        "false: as it always is here; true cannot be had",
    ),
    "optimizer_args.warmup_init": translated(
        _only_adafactor("warmup_init", "it needs relative_step", off=(False,)), "false: as it always is here"
    ),
    "optimizer_args.clip_threshold": translated(
        _only_adafactor("clip_threshold", "weber's Adafactor bounds updates at 1.0", off=(1, 1.0)), "1.0: as it always is here"
    ),
    "optimizer_args.decay_rate": translated(
        _only_adafactor("decay_rate", "weber's Adafactor has -0.8", off=(-0.8,)), "-0.8: as it always is here"
    ),
    "optimizer_args.beta1": translated(
        _only_adafactor("beta1", "weber's Adafactor keeps no mean of the gradient", off=(None,)), "none: as it always is here"
    ),
    "optimizer_args.fused optimizer_args.foreach optimizer_args.capturable optimizer_args.is_paged optimizer_args.block_wise "
    "optimizer_args.min_8bit_size optimizer_args.optim_bits optimizer_args.percentile_clipping": ignored(
        "how the optimizer computes; weber chooses that itself"
    ),
    "optimizer_args.lr": refused("the rate is --learning_rate, which is optim.lr"),
    "optimizer_args.*": translated(put_option("*"), "optim.options of the optimizer's library"),
}
"""Entries of `optimizer_args`."""

SCHEDULE: Table = {
    "lr_scheduler": translated(_put_schedule, "optim.schedule; constant_with_warmup is constant with optim.warmup_steps"),
    "lr_scheduler_type": translated(_put_scheduler_type, "a class of another library: the nearest course"),
    "lr_scheduler_num_cycles": translated(_put_cycles, "optim.cycles, of cosine_with_restarts"),
    "lr_scheduler_power": translated(_put_power, "optim.power, of polynomial"),
    "lr_scheduler_min_lr_ratio": translated(_put_min_ratio, "optim.end_lr of cosine_with_min_lr"),
    "lr_scheduler_timescale": ignored("is for inverse_sqrt, which weber does not have"),
    "lr_decay_steps": ignored("is for warmup_stable_decay, which weber does not have"),
    "lr_scheduler_args lr_scheduler_args.*": refused(
        "weber's schedules have optim.end_lr, cycles and power, and no such setting", off=(None, "", [])
    ),
    "lr_warmup_steps": translated(_put_warmup_steps, "optim.warmup_steps; a share of the steps where those are known"),
    "lr_warmup_percent": translated(_put_warmup_percent, "lr_warmup of the GUI, percent of max_train_steps: optim.warmup_steps"),
    "learning_rate": translated(_put_lr, "optim.lr"),
    "unet_lr": translated(_put_unet_lr, "optim.lr"),
    "text_encoder_lr": translated(_put_text_lr, "optim.text_encoder_lr; 0: CLIP is not trained"),
    "optimizer_type": translated(_put_optimizer, "optim.name, with the weight decay that it has there if nothing is said"),
    "use_8bit_adam use_lion_optimizer": translated(_put_old_flag, 'optim.name = "adamw_8bit" or "lion"'),
    "optimizer_args": ignored("its entries have answers of their own"),
    "optimizer_schedulefree_wrapper schedulefree_wrapper_args": ignored("the scripts do not read it"),
    "max_grad_norm": translated(_put_clip, 'optim.clip_norm; 0 is "off"'),
    "fused_backward_pass blockwise_fused_optimizers": translated(_put_fused, "optim.fused_backward, for whole models"),
    "fused_optimizer_groups": ignored("the scripts do not read it"),
    **OPTIMIZER,
}
"""Optimizer, rates and schedule."""

