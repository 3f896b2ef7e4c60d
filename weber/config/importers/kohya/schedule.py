"""Rates and schedules of kohya's scripts, as settings of weber."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weber.config.importers.answers import Table, ignored, refused, translated
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.kohya.facts import (
    is_adapter,
    is_lycoris,
    is_relative,
    is_schedule_free,
    list_values,
    name_optimizer,
    read_text_rate,
    trains_text,
)
from weber.config.importers.values import read_float, simplify
from weber.config.optimizers import FACTS
from weber.errors import ConfigError

_LOWEST_FACTOR = 0.01
_POLYNOMIAL_END = 1e-7  # lr_end of transformers' get_polynomial_decay_schedule_with_warmup


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


def _put_text_lr(draft: Draft, keys: Keys, value: Any) -> str:
    """`text_encoder_lr`: of CLIP, and of T5, which is not trained."""
    rates = list_values(value)
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
}
"""Rates and schedule."""
