"""Writes the pages that are made from the settings and from what is known of the models. Run it with `make docs`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from weber.config.importers.page import build_page as build_tool_page
from weber.config.importers.table import TOOLS
from weber.config.load import build_config
from weber.config.model import ModelConfig
from weber.config.run import RunConfig
from weber.config.surface import build_docs, build_schema
from weber.errors import ConfigError
from weber.families.table import build_family
from weber.kinds.table import KINDS
from weber.memory.fit import choose_settings
from weber.memory.rates import GIB, build_rates
from weber.optim.page import build_page, replace_tables
from weber.planning.budget import Budget, Workload
from weber.planning.rehearsal import Sample
from weber.pocket.full_size import build_full_size

FOLDER = Path(__file__).parent
CARDS = {8: "RTX 4060", 10: "RTX 3080", 12: "RTX 4070", 16: "RTX 4080", 24: "RTX 4090", 48: "L40S", 80: "H100"}
"""GB of a card, and a GPU that has so many."""

MODELS = {
    "flux1-dev": "FLUX.1 dev",
    "flux2-dev": "FLUX.2 dev",
    "flux2-klein-base-4b": "FLUX.2 klein 4B",
    "flux2-klein-base-9b": "FLUX.2 klein 9B",
}
EDGES = (512, 1024)
_FULL: Sequence[tuple[str, dict[str, Any], dict[str, Any]]] = (
    ('`adamw`, `precision = "fp32"`', {"precision": "fp32"}, {}),
    ("`adamw_bf16`", {}, {"name": "adamw_bf16"}),
    ("`adamw_8bit`", {}, {"name": "adamw_8bit"}),
    ("`adamw_8bit`, `fused_backward`", {}, {"name": "adamw_8bit", "fused_backward": True}),
    ("`adafactor`, `fused_backward`", {}, {"name": "adafactor", "fused_backward": True}),
)


def build_fit_rows(variant: str, edge: int) -> list[str]:
    """What `memory.fit` chooses on every card, as rows of a table: a LoRA of rank 16, one picture per step, pictures on the way."""
    with TemporaryDirectory() as folder:
        config = _build_config({"memory": {"fit": "auto"}})
        budget = Budget(config, _build_workload(config, Path(folder), variant, edge))
        rows = []
        for size, name in CARDS.items():
            budget.rates, budget.cached, card = build_rates(name), (), f"{size} GB"
            found = _choose(budget, size)
            if found is None:  # not even the text encoder fits: captions have to be in the cache by then
                budget.cached, card = budget.load.family.text_parts, f"{size} GB *"
                found = _choose(budget, size) or "does not fit | | | |"
            rows.append(f"| {MODELS[variant]} | {edge} | {card} | {name} | {found} |")
    return rows


def build_full_rows(variant: str) -> list[str]:
    """What full fine-tuning takes at 1024 pixels, as rows of a table."""
    rows = []
    for title, adapter, optim in _FULL:
        with TemporaryDirectory() as folder:
            config = _build_config({"adapter": {"kind": "full", **adapter}, "optim": optim})
            budget = Budget(config, _build_workload(config, Path(folder), variant, max(EDGES)))
            budget.rates = build_rates(CARDS[80])
            rows.append(f"| {MODELS[variant]} | {title} | {_write(budget.build_estimate(config.memory).find('training').num_bytes)} |")
    return rows


def build_memory_page(page: str) -> str:
    """The page docs/memory.md with its tables made anew."""
    tables = {
        "fit": [row for variant in MODELS for edge in EDGES for row in build_fit_rows(variant, edge)],
        "full": [row for variant in MODELS for row in build_full_rows(variant)],
    }
    return replace_tables(page, tables)


def _build_config(sections: dict[str, Any]) -> RunConfig:
    return build_config({"data": [{"path": "pictures"}], **sections})


def _build_workload(config: RunConfig, folder: Path, variant: str, edge: int) -> Workload:
    """On a GPU, with enough memory in the host."""
    family = build_family(ModelConfig(path=str(build_full_size(folder, variant)), variant=variant))
    trained = KINDS[config.adapter.kind].choose(config, family, skeleton=family.load_skeleton(), dtype=torch.bfloat16)
    sample = Sample(edge, edge)
    return Workload(family, torch.device("cuda"), torch.bfloat16, trained, {sample: 1}, [sample], host_bytes=None)


def _choose(budget: Budget, size: int) -> str | None:
    """Settings, peak, memory of the host, seconds, and the speed relative to bf16 where nothing is computed twice; None: none fit."""
    weigh = partial(budget.build_estimate, is_rough=True)
    memory = budget.config.memory
    choices, budget_bytes = budget.build_choices(), size * 10**9
    try:
        fit = choose_settings(memory, choices, weigh=weigh, hint=lambda smallest: [], budget_bytes=budget_bytes, host_bytes=None)
    except ConfigError:
        return None
    whole = weigh(memory.model_copy(update={"gradient_checkpointing": "none"})).time.seconds
    estimate = budget.build_estimate(fit.memory)
    settings = ", ".join(f"`{name} = {json.dumps(value)}`" for name, value in fit.settings.items()) or "the defaults"
    seconds = estimate.time.seconds
    return f"{settings} | {_write(estimate.peak.num_bytes)} | {_write(estimate.host_bytes)} | {seconds:.2g} | {whole / seconds:.0%}"


def _write(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f}"


def main() -> None:
    """Write every page that is made here."""
    page, optimizers = FOLDER / "memory.md", FOLDER / "optimizers.md"
    written = {
        FOLDER / "config.md": build_docs(),
        FOLDER / "config.schema.json": json.dumps(build_schema(), indent=2) + "\n",
        page: build_memory_page(page.read_text(encoding="utf-8")),
        optimizers: build_page(optimizers.read_text(encoding="utf-8")),
    }
    written |= {FOLDER / f"coming-from-{tool.name}.md": build_tool_page(tool) for tool in TOOLS}
    for path, text in written.items():
        path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
