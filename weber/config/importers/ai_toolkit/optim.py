"""What ai-toolkit asks of the optimizer, and for how many steps, as settings of weber."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.values import read_float, read_int
from weber.config.optimizers import FACTS
from weber.errors import ConfigError

OPTIMIZERS: Mapping[str, str] = {
    "adam": "torch_adam",
    "adamw": "adamw",
    "adam8bit": "bnb_adam_8bit",
    "adam8": "bnb_adam_8bit",
    "adamw8bit": "adamw_8bit",
    "adamw8": "adamw_8bit",
    "ademamix8bit": "bnb_ademamix_8bit",
    "lion": "lion",
    "lion8bit": "lion_8bit",
    "adagrad": "torch_adagrad",
    "adafactor": "adafactor",
    "prodigy": "prodigy",
    "prodigy8bit": "prodigy",
    "dadaptation": "pytorch_optimizer.DAdaptAdam",
    "dadaptationadam": "pytorch_optimizer.DAdaptAdam",
    "dadaptationlion": "pytorch_optimizer.DAdaptLion",
}
"""toolkit/optimizer.py -> the same here."""

_WITH_EPS = ("adam", "adamw", "adam8bit", "adam8", "adamw8bit", "adamw8", "ademamix8bit", "prodigy", "prodigy8bit")
_EPS = 1e-6
"""What it gives to these, whatever their own default."""

_WITHOUT_DECAY = ("lion", "lion8bit", "adafactor", "adamw8")
_FOUND = ("prodigy", "prodigy8bit", "dadaptation", "dadaptationadam", "dadaptationlion")
"""Optimizers that find the rate: below 0.1 it is taken as 1 there."""


def _find_optimizer(keys: Keys) -> str:
    return str(keys["train.optimizer"] or "adamw").strip().lower()


def set_optimizer(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`optimizer`, with what ai-toolkit gives to each."""
    given, name = keys.find("train.optimizer"), _find_optimizer(keys)
    ours = OPTIMIZERS.get(name)
    if ours is None:
        return REFUSED + 'weber has no such optimizer and takes adamw; "prodigy" finds its rate too'
    lines = [draft.set("optim.name", ours, origin=given)]
    if name in _WITH_EPS:
        lines.append(draft.set("optim.eps", _EPS, origin="1e-6, what ai-toolkit gives to it"))
    if name in _WITHOUT_DECAY and "train.optimizer_params.weight_decay" not in keys:
        lines.append(draft.set("optim.weight_decay", 0.0, origin="0, its default there"))
    return "; ".join(lines)


def set_option(draft: Draft, keys: Keys, *, value: Any, name: str) -> str:
    """A key of `optimizer_params`."""
    origin, optimizer = keys.find(f"train.optimizer_params.{name}"), _find_optimizer(keys)
    ours = OPTIMIZERS.get(optimizer)
    if ours is None:
        return NO_EFFECT + "the optimizer is not had"
    if name == "weight_decay":
        return draft.set("optim.weight_decay", value, origin=origin)
    if name == "betas":
        betas = [read_float(one, name="betas") for one in (value if isinstance(value, list) else [value])]
        usual = FACTS[ours].betas
        if not FACTS[ours].is_tail and (usual is None or len(usual) != len(betas)):
            return REFUSED + f"{ours} has {'no' if usual is None else len(usual)} betas"
        return draft.set("optim.betas", betas, origin=origin)
    if name == "eps" and optimizer in _WITH_EPS:
        return REFUSED + "ai-toolkit gives 1e-6 itself and stops at a second one; optim.eps says another"
    if optimizer == "adafactor" and name in ("relative_step", "scale_parameter", "warmup_init"):
        is_on = keys.read_bool(f"train.optimizer_params.{name}")
        return REFUSED + "weber's adafactor takes its rate from optim.lr" if is_on else NO_EFFECT + "off, here as there"
    if FACTS[ours].is_own:
        return REFUSED + f"{ours} of weber has no such setting"
    return draft.set(f"optim.options.{name}", _read_number(value), origin=origin)


def _read_number(value: Any) -> Any:
    """Texts that are numbers, or yes and no, as these."""
    if not isinstance(value, str):
        return value
    if value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    try:
        return float(value)
    except ValueError:
        return value


def set_lr(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`unet_lr` goes before `lr`."""
    name = "train.unet_lr" if "train.unet_lr" in keys else "train.lr"
    if name == "train.unet_lr" and value is keys["train.lr"] and value is not keys["train.unet_lr"]:
        return NO_EFFECT + "train.unet_lr goes before it"
    lr = read_float(keys[name], name=name)
    if _find_optimizer(keys) in _FOUND and lr < 0.1:
        return draft.set("optim.lr", 1.0, origin=keys.find(name)) + ": below 0.1 it is taken as 1 there"
    return draft.set("optim.lr", lr, origin=keys.find(name))


def set_clip(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`max_grad_norm`, which adafactor does without."""
    norm, given = read_float(value, name="train.max_grad_norm"), keys.find("train.max_grad_norm")
    if _find_optimizer(keys) == "adafactor":
        return draft.set("optim.clip_norm", "off", origin=given) + ": gradients of adafactor are not cut there"
    if norm <= 0:
        line = draft.set("optim.clip_norm", "off", origin=given)
        return REFUSED + f"0 makes every gradient 0 there, so that nothing is learned; {line}"
    return draft.set("optim.clip_norm", norm, origin=given)


def set_schedule(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`lr_scheduler`, with its parameters."""
    given, name = keys.find("train.lr_scheduler"), str(value).strip().lower()
    if name in ("cosine", "cosine_with_restarts"):
        lines = [draft.set("optim.schedule", "cosine", origin=given)]
        lowest = keys.read_float("train.lr_scheduler_params.eta_min")
        if lowest:
            lines.append(draft.set("optim.end_lr", lowest, origin=keys.find("train.lr_scheduler_params.eta_min")))
        return "; ".join(lines) + ("" if name == "cosine" else ": its first cycle is the whole run, so that it never restarts")
    if name == "constant":
        return draft.set("optim.schedule", "constant", origin=given)
    if name == "constant_with_warmup":
        num = keys.read_int("train.lr_scheduler_params.num_warmup_steps")
        steps = max(1, (1000 if num is None else num) // int(keys["step_parts"]))
        return "; ".join([draft.set("optim.schedule", "constant", origin=given), draft.set("optim.warmup_steps", steps, origin=given)])
    if name == "linear":
        return _set_linear(draft, keys)
    return REFUSED + 'ai-toolkit itself stops with it; set optim.schedule (left at "constant")'


def _set_linear(draft: Draft, keys: Keys) -> str:
    first = keys.read_float("train.lr_scheduler_params.start_factor")
    last = keys.read_float("train.lr_scheduler_params.end_factor")
    first, last = 1 / 3 if first is None else first, 1.0 if last is None else last
    if first != 1 or last >= 1:
        return REFUSED + f"it goes from {first:.3g} to {last:.3g} of the rate there, and weber's goes down; optim.schedule stays constant"
    given, lr = keys.find("train.lr_scheduler"), read_float(keys["train.unet_lr"] or keys["train.lr"], name="train.lr")
    lines = [draft.set("optim.schedule", "linear", origin=given)]
    return "; ".join([*lines, draft.set("optim.end_lr", last * lr, origin="train.lr_scheduler_params.end_factor")])


def set_ema(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`ema_config.use_ema`."""
    if not keys.read_bool("train.ema_config.use_ema"):
        return NO_EFFECT + "asks for nothing"
    decay = keys.read_float("train.ema_config.ema_decay")
    line = draft.set("optim.ema_decay", 0.999 if decay is None else decay, origin=keys.find("train.ema_config.ema_decay"))
    if keys["items"] and not keys.read_bool("train.disable_sampling"):
        line += "; " + draft.set("sampling.weights", "ema", origin=keys.find("train.ema_config.use_ema"))
    return line


def answer_ema(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`ema_config.ema_decay`."""
    return f"optim.ema_decay = {value}" if keys.read_bool("train.ema_config.use_ema") else NO_EFFECT + "use_ema is not set"


# ---- steps


def count_parts(keys: Keys) -> int:
    """How many steps of ai-toolkit are one of the optimizer: `gradient_accumulation_steps`, the old form."""
    return max(1, keys.read_int("train.gradient_accumulation_steps") or 1)


def set_steps(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`steps`: with `gradient_accumulation_steps` it counts each picture."""
    steps, parts = read_int(value, name="train.steps"), int(keys["step_parts"])
    line = draft.set("train.steps", max(1, steps // parts), origin=keys.find("train.steps"))
    return line if parts == 1 else f"{line}: {steps} / {parts}, as each of them is a {'half' if parts == 2 else f'{parts}th part'} there"


def set_accumulation(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`gradient_accumulation`."""
    num, old = read_int(value, name="train.gradient_accumulation"), keys.read_int("train.gradient_accumulation_steps") or 1
    if num > 1 and old != 1:
        raise ConfigError(
            "train.gradient_accumulation and train.gradient_accumulation_steps are both set.",
            got=f"{num} and {old}",
            expected="one of them; ai-toolkit itself refuses both",
            fix="remove gradient_accumulation_steps",
        )
    if num <= 1:
        return NO_EFFECT + "one pass a step"
    return draft.set("train.accumulation", num, origin=keys.find("train.gradient_accumulation"))


def set_old_accumulation(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`gradient_accumulation_steps`, the old form."""
    num = read_int(value, name="train.gradient_accumulation_steps")
    if num == -1:
        return REFUSED + "-1 is one step for each epoch; set train.accumulation to the number of pictures"
    if num <= 1:
        return NO_EFFECT + "one pass a step"
    return draft.set("train.accumulation", num, origin=keys.find("train.gradient_accumulation_steps"))
