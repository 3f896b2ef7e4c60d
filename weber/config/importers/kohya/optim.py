"""Optimizer, its arguments, and how gradients are clipped: options of kohya's scripts as settings of weber."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from weber.config.importers.answers import Call, Table, ignored, refused, translated, used
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.kohya.facts import (
    NESTEROV,
    is_adapter,
    is_relative,
    list_values,
    moves_at_once,
    name_optimizer,
    spell_optimizer,
)
from weber.config.importers.values import read_bool, read_float
from weber.config.optimizers import FACTS, read_optimizer_name

_NO_DECAY = (
    "adafactor", "lion", "lion_8bit", "bnb_lion", "bnb_lion_8bit", "bnb_paged_lion", "bnb_paged_lion_8bit", "prodigy", "adamw_schedulefree",
)
"""Optimizers whose libraries have no weight decay if nothing is said, and that have some here."""

_ROUNDING = ("adafactor", "adamw_8bit", "adamw_bf16", "lion", "lion_8bit")
"""Optimizers that train weights in bf16 here: with stochastic rounding."""

_ADAFACTOR_EPS = 1e-15


def _put_optimizer(draft: Draft, keys: Keys, value: Any) -> str:
    """`optim.name`, and what its library has where weber has something else."""
    name, given = name_optimizer(keys), keys.find("optimizer_type")
    line = draft.set("optim.name", name, origin=given)
    if name in _NO_DECAY and "optimizer_args.weight_decay" not in keys and not draft.weber_defaults:
        line += "; " + draft.set("optim.weight_decay", 0.0, origin=f"the default of {spell_optimizer(keys)}")
    if name == "adafactor" and "optimizer_args.eps" not in keys and not draft.weber_defaults:
        line += "; " + draft.set("optim.eps", _ADAFACTOR_EPS, origin="the root of the 1e-30 that it adds to squares there")
    if spell_optimizer(keys).lower() in NESTEROV:
        for option, worth in (("momentum", keys["optimizer_args.momentum"] or 0.9), ("nesterov", True)):
            line += "; " + draft.set(f"optim.options.{option}", worth, origin=given)
    if not is_adapter(keys) and keys["mixed_precision"] == "bf16" and not _rounds(name):
        line += "; " + draft.set("adapter.precision", "fp32", origin=f"{spell_optimizer(keys)} would lose updates of weights in bf16")
    try:
        read_optimizer_name(spell_optimizer(keys))
    except ValueError as error:
        return line if spell_optimizer(keys).lower() in NESTEROV else f"{line}, the nearest: {error}"
    return line


def _rounds(name: str) -> bool:
    return name in _ROUNDING or name.startswith(("optimi_", "torchao_"))


def _put_old_flag(draft: Draft, keys: Keys, value: Any) -> str:
    """`use_8bit_adam` and `use_lion_optimizer`, of before `optimizer_type`."""
    return _put_optimizer(draft, keys, value) if read_bool(value, name="the flag") else NO_EFFECT + "asks for nothing, here as there"


def _put_clip(draft: Draft, keys: Keys, value: Any) -> str:
    """`max_grad_norm`: 0 leaves gradients as they are."""
    norm, origin = read_float(value, name="max_grad_norm"), keys.find("max_grad_norm")
    if moves_at_once(keys):
        if norm == 0:
            return draft.set("optim.clip_norm", "off", origin=origin)
        return REFUSED + "with fused updates each gradient was clipped alone there, and the norm of all is not known here: none is clipped"
    return draft.set("optim.clip_norm", norm if norm > 0 else "off", origin=origin)


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
    facts, numbers = FACTS[optimizer], [read_float(one, name="betas") for one in list_values(value)]
    if facts.is_tail or (facts.betas is not None and len(facts.betas) == len(numbers)):
        return draft.set("optim.betas", numbers, origin=keys.find("optimizer_args.betas"))
    if facts.betas is None:
        return NO_EFFECT + f"{optimizer} has no such means"
    return REFUSED + f"{optimizer} takes {len(facts.betas)} numbers"


def _put_eps(draft: Draft, keys: Keys, value: Any) -> str:
    """`eps`; Adafactor's are two, of which the second is for a rate relative to weights."""
    optimizer, numbers = name_optimizer(keys), list_values(value)
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


ARGUMENTS: Table = {
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

OPTIMIZER: Table = {
    "optimizer_type": translated(_put_optimizer, "optim.name, with the weight decay that it has there if nothing is said"),
    "use_8bit_adam use_lion_optimizer": translated(_put_old_flag, 'optim.name = "adamw_8bit" or "lion"'),
    "optimizer_args": ignored("its entries have answers of their own"),
    "optimizer_schedulefree_wrapper schedulefree_wrapper_args": ignored("the scripts do not read it"),
    "max_grad_norm": translated(_put_clip, 'optim.clip_norm; 0 is "off"'),
    "fused_backward_pass blockwise_fused_optimizers": translated(_put_fused, "optim.fused_backward, for whole models"),
    "fused_optimizer_groups": ignored("the scripts do not read it"),
    **ARGUMENTS,
}
"""Optimizer and clipping."""
