"""What diffusers' scripts ask of the optimizer, and for how many steps, as settings of weber."""

from __future__ import annotations

from typing import Any

from weber.config.importers.diffusers.run import is_flux2
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.values import read_float, read_int
from weber.errors import ConfigError

_SMALLEST_PRODIGY_LR = 0.01
_POLYNOMIAL_END = 1e-7
"""What the library's polynomial ends at."""


def name_optimizer(keys: Keys) -> str:
    """What the script really takes: anything that is not prodigy is AdamW there."""
    return "prodigy" if str(keys["optimizer"] or "adamw").lower() == "prodigy" else "adamw"


def set_optimizer(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--optimizer` and `--use_8bit_adam`, with what the script gives to it."""
    given, name = keys.find("optimizer"), name_optimizer(keys)
    written = "adamw_8bit" if name == "adamw" and keys.read_bool("use_8bit_adam") else name
    lines = [draft.set("optim.name", written, origin=given)]
    if name == "prodigy":
        lines += _set_prodigy(draft, keys)
    if str(value).lower() not in ("adamw", "prodigy"):
        lines.append(f"the script knows no {value} and takes AdamW")
    return "; ".join(lines)


def _set_prodigy(draft: Draft, keys: Keys) -> list[str]:
    flags = {name: keys[f"prodigy_{name}"] for name in ("decouple", "use_bias_correction", "safeguard_warmup")}
    lines = [
        draft.set(f"optim.options.{name}", value not in (False, ""), origin=keys.find(f"prodigy_{name}")) for name, value in flags.items()
    ]
    beta3 = keys.read_float("prodigy_beta3")
    return lines if beta3 is None else [*lines, draft.set("optim.options.beta3", beta3, origin=keys.find("prodigy_beta3"))]


def answer_prodigy(draft: Draft, keys: Keys, *, value: Any) -> str:
    """A flag of prodigy; `set_optimizer` writes it."""
    return "under optim.options" if name_optimizer(keys) == "prodigy" else NO_EFFECT + "the optimizer is not prodigy"


def answer_prodigy_switch(draft: Draft, keys: Keys, *, value: Any) -> str:
    """A switch of prodigy that is on whatever is written behind it."""
    line = answer_prodigy(draft, keys, value=value)
    is_no = str(value).strip().lower() in ("false", "no", "0", "off")
    return f"{line}; the script takes any text for yes, {value} too" if is_no and not line.startswith(NO_EFFECT) else line


def answer_8bit(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--use_8bit_adam`; `set_optimizer` writes it."""
    if name_optimizer(keys) == "prodigy":
        return NO_EFFECT + "the script ignores it with prodigy"
    return draft.set("optim.name", "adamw_8bit", origin=keys.find("use_8bit_adam"))


def set_lr(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--learning_rate`, and what `--scale_lr` makes of it."""
    lr = find_lr(keys)
    if name_optimizer(keys) == "prodigy" and lr < _SMALLEST_PRODIGY_LR:
        return REFUSED + f"of prodigy it is only a factor, and {lr:g} would all but stop the run; optim.lr stays at 1.0"
    line = draft.set("optim.lr", lr, origin=keys.find("learning_rate"))
    return line if not keys.read_bool("scale_lr") else f"{line}, multiplied as --scale_lr says"


def find_lr(keys: Keys) -> float:
    """The learning rate that acts."""
    lr = read_float(keys["learning_rate"] or 1e-4, name="--learning_rate")
    if keys.read_bool("scale_lr"):
        lr *= count_accumulation(keys) * (keys.read_int("train_batch_size") or 1)
    return lr


def answer_scale_lr(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--scale_lr`; `set_lr` multiplies."""
    if not keys.read_bool("scale_lr"):
        return NO_EFFECT + "asks for nothing"
    factor = count_accumulation(keys) * (keys.read_int("train_batch_size") or 1)
    return f"--learning_rate is multiplied by pictures per step, {factor}: optim.lr = {find_lr(keys):g}"


def set_betas(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--adam_beta1` and `--adam_beta2`."""
    first, second = keys.read_float("adam_beta1"), keys.read_float("adam_beta2")
    pair = (0.9 if first is None else first, 0.999 if second is None else second)
    origin = keys.find("adam_beta1" if "adam_beta1" in keys else "adam_beta2")
    return draft.set("optim.betas", list(pair), origin=origin)


def set_text_decay(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--adam_weight_decay_text_encoder`."""
    if is_flux2(keys) or not keys.read_bool("train_text_encoder"):
        return NO_EFFECT + "no text encoder is trained"
    return REFUSED + "weight decay is the same for all adapters: optim.weight_decay"


def set_clip(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--max_grad_norm`."""
    norm = read_float(value, name="--max_grad_norm")
    if norm == 0:
        line = draft.set("optim.clip_norm", "off", origin=keys.find("max_grad_norm"))
        return REFUSED + f"0 makes every gradient 0 there, so that nothing is learned; {line}"
    return draft.set("optim.clip_norm", norm, origin=keys.find("max_grad_norm"))


def set_schedule(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--lr_scheduler` with `--lr_warmup_steps`, `--lr_num_cycles` and `--lr_power`."""
    given, name = keys.find("lr_scheduler"), str(value).strip().lower()
    if name == "piecewise_constant":
        return REFUSED + "it needs steps that the scripts cannot be given, so they stop with it; set optim.schedule"
    cycles, warmup = keys.read_int("lr_num_cycles") or 1, keys.read_int("lr_warmup_steps") or 0
    plain = {"constant_with_warmup": "constant", "cosine_with_restarts": "cosine" if cycles < 2 else name}.get(name, name)
    if plain not in ("constant", "linear", "cosine", "cosine_with_restarts", "polynomial"):
        raise ConfigError(
            f"--lr_scheduler {value} is none of the library's.",
            got=str(value),
            expected="constant, constant_with_warmup, linear, cosine, cosine_with_restarts or polynomial",
            fix="correct --lr_scheduler",
        )
    lines = [draft.set("optim.schedule", plain, origin=given)]
    if plain == "cosine_with_restarts":
        lines.append(draft.set("optim.cycles", cycles, origin=keys.find("lr_num_cycles")))
    if plain == "polynomial":
        power = keys.read_float("lr_power") or 1.0
        lines += [draft.set("optim.power", power, origin=keys.find("lr_power")), draft.set("optim.end_lr", _POLYNOMIAL_END, origin=given)]
    if name != "constant" and warmup:
        lines.append(draft.set("optim.warmup_steps", warmup, origin=keys.find("lr_warmup_steps")))
    return "; ".join(lines)


def answer_warmup(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--lr_warmup_steps`; `set_schedule` writes it."""
    if str(keys["lr_scheduler"] or "constant").lower() == "constant":
        return NO_EFFECT + "--lr_scheduler constant has no warm-up; constant_with_warmup has"
    return f"optim.warmup_steps = {read_int(value, name='--lr_warmup_steps')}"


def answer_cycles(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--lr_num_cycles`; `set_schedule` writes it."""
    if keys["lr_scheduler"] != "cosine_with_restarts":
        return NO_EFFECT + "only cosine_with_restarts has cycles"
    num = read_int(value, name="--lr_num_cycles")
    return f"optim.cycles = {num}" if num > 1 else NO_EFFECT + "one cycle is a cosine without a restart"


def answer_power(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--lr_power`; `set_schedule` writes it."""
    return f"optim.power = {value}" if keys["lr_scheduler"] == "polynomial" else NO_EFFECT + "only polynomial has a power"


# ---- steps


def count_accumulation(keys: Keys) -> int:
    """Micro-batches of a step, for as many pictures as all processes together have."""
    return (keys.read_int("gradient_accumulation_steps") or 1) * (keys.read_int("num_processes") or 1)


def set_batch(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--train_batch_size`; class images are in the same batch."""
    size = read_int(value, name="--train_batch_size")
    if keys.read_bool("with_prior_preservation"):
        line = draft.set("train.batch_size", 2 * size, origin=keys.find("train_batch_size"))
        return f"{line}, half of it class images"
    return draft.set("train.batch_size", size, origin=keys.find("train_batch_size"))


def set_accumulation(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--gradient_accumulation_steps`, times the processes."""
    line = draft.set("train.accumulation", count_accumulation(keys), origin=keys.find("gradient_accumulation_steps"))
    num = keys.read_int("num_processes") or 1
    return line if num == 1 else f"{line}: times {num} processes, as a step has as many pictures on any number of devices"


def set_epochs(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--num_train_epochs`."""
    if "max_train_steps" in keys:
        return NO_EFFECT + "--max_train_steps is given"
    return draft.set("train.epochs", value, origin=keys.find("num_train_epochs"))


def set_text_lr(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--text_encoder_lr`."""
    if is_flux2(keys) or not keys.read_bool("train_text_encoder") or keys["kind"] == "full":
        return NO_EFFECT + "no text encoder is trained"
    if name_optimizer(keys) == "prodigy":
        return NO_EFFECT + "prodigy takes --learning_rate for CLIP too"
    return draft.set("optim.text_encoder_lr", value, origin=keys.find("text_encoder_lr"))
