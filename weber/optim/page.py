"""The tables of docs/optimizers.md, made from those of the code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch

from weber.config.optim import DEFAULT_LR, OptimConfig
from weber.config.optimizers import FACTS, REFUSED, TAIL, list_aliases
from weber.optim.table import OPTIMIZERS, OptimizerRow

_WEIGHT, _FACTOR = (3072, 3072), (16, 3072)
"""A layer of a model, and a factor of its adapter."""


def build_page(page: str) -> str:
    """The page with its tables made anew."""
    tables = {
        "optimizers": [_build_row(name) for name in FACTS if not name.startswith(TAIL)],
        "tail": [_build_tail_row(name) for name in FACTS if name.startswith(TAIL)],
        "refused": [f"| `{name}` | it {why} | {fix} |" for name, (why, fix) in REFUSED.items()],
    }
    return replace_tables(page, tables)


def replace_tables(page: str, tables: Mapping[str, Sequence[str]]) -> str:
    """The page with other rows in its tables, each of which stands between two comments with its name."""
    for name, rows in tables.items():
        head, _, rest = page.partition(f"<!-- {name} -->\n")
        title, line, *_ = rest.split("\n")
        tail = rest.partition(f"<!-- end of {name} -->")[2]
        page = f"{head}<!-- {name} -->\n" + "\n".join([title, line, *rows]) + f"\n<!-- end of {name} -->{tail}"
    return page


def _build_row(name: str) -> str:
    facts, row = FACTS[name], OPTIMIZERS[name]
    betas = "-" if facts.betas is None else ", ".join(f"{beta:g}" for beta in facts.betas)
    cells = [
        f"`{name}`",
        row.summary + ("; needs a GPU" if facts.needs_gpu else ""),
        _write_lr(name),
        betas,
        "-" if facts.eps is None else f"{facts.eps:g}",
        "-" if facts.weight_decay is None else f"{facts.weight_decay:g}",
        _write_bytes(row, _WEIGHT),
        "yes" if torch.bfloat16 in row.dtypes else "no",
        ", ".join(f"`{alias}`" for alias in list_aliases(name)) or "-",
    ]
    return f"| {' | '.join(cells)} |"


def _build_tail_row(name: str) -> str:
    row = OPTIMIZERS[name]
    aliases = ", ".join(f"`{alias}`" for alias in list_aliases(name)) or "-"
    return f"| `{name}` | {_write_lr(name)} | {_write_bytes(row, _WEIGHT)} | {_write_bytes(row, _FACTOR)} | {aliases} |"


def _write_lr(name: str) -> str:
    facts = FACTS[name]
    return f"{facts.fixed_lr:g}" if facts.fixed_lr is not None else f"{OptimConfig(name=name).choose_lr('lora') / DEFAULT_LR['lora']:g} x"


def _write_bytes(row: OptimizerRow, shape: tuple[int, int]) -> str:
    return f"{row.state_bytes(shape) / prod(shape):.3g}"
