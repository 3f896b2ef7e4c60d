"""How large what a run writes will be."""

from __future__ import annotations

from weber.adapters.factors import is_power_of_two
from weber.adapters.precision import PRECISIONS
from weber.adapters.rules import Setting as LoraSetting
from weber.config.adapter import SHIFTED_STARTS
from weber.optim.ema import count_mean_bytes
from weber.optim.table import count_state_bytes
from weber.planning.plan import Plan

_UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def count_text_bytes(plan: Plan, part: str) -> int:
    """What the cache has of one caption, of one text part."""
    return plan.encoders.find_form(part).count_bytes(plan.family.text_shapes(part), plan.dtype)


def count_file_bytes(plan: Plan) -> int:
    """What learned, and what is taken away beside it."""
    return plan.trained.num_bytes * (2 if plan.config.adapter.init in SHIFTED_STARTS else 1)


def count_finished_bytes(plan: Plan) -> int:
    """The finished adapter in one layout."""
    return count_file_bytes(plan) * PRECISIONS[plan.config.output.precision].itemsize // plan.trained.dtype.itemsize


def count_checkpoint_bytes(plan: Plan) -> int:
    """What learned, what moves it, and its running mean."""
    mean_bytes = 0 if plan.config.optim.ema_decay is None else count_mean_bytes(plan.num_parameters)
    state_bytes = count_state_bytes(plan.config.optim, plan.trained.shapes.values(), dtype=plan.trained.dtype)
    return count_file_bytes(plan) + state_bytes + mean_bytes + _count_exact_bytes(plan)


def _count_exact_bytes(plan: Plan) -> int:
    """The numbers that the file of a LoRA rounds, since it has their scale in them, and that a checkpoint keeps beside it."""
    settings = {name: one for name, one in plan.trained.settings.items() if isinstance(one, LoraSetting)}
    rounded = {name: one.rank for name, one in settings.items() if not is_power_of_two(one.file_alpha / one.rank)}
    copies = 2 if plan.config.adapter.init in SHIFTED_STARTS else 1
    return copies * sum(plan.trained.modules[name][1] * rank for name, rank in rounded.items()) * plan.trained.dtype.itemsize


def count_model_bytes(plan: Plan) -> int:
    """A whole model, in the precision of its files, which are on this machine."""
    return sum(entry.num_bytes for entry in plan.family.open_transformer().values())


def count_due(num_steps: int, every: int) -> int:
    """How often something is due in so many steps."""
    return -(-num_steps // every)


def describe_size(num_bytes: int) -> str:
    """Such as 1.5 GiB."""
    for unit, factor in _UNITS:
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes} bytes"
