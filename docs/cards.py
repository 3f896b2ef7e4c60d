"""What `memory.fit` chooses for cards, models and sizes of pictures: the table in memory.md. Run it with `make docs`, for some minutes."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import torch

from weber.config.load import build_config
from weber.config.model import ModelConfig
from weber.errors import ConfigError
from weber.families.table import build_family
from weber.memory.rates import GIB, build_rates
from weber.pocket.full_size import build_full_size
from weber.training.budget import Workload, build_fitted
from weber.training.kinds import KINDS
from weber.training.rehearsal import Sample

CARDS_GB = (8, 10, 12, 16, 24, 48, 80)
EDGES = (512, 1024)
VARIANTS = ("flux1-dev", "flux2-dev", "flux2-klein-base-9b", "flux2-klein-base-4b")
GPU = "RTX 4090"
HEAD = "| model | pixels | card GB | what is chosen | peak GiB | host GiB | seconds |\n|---|---:|---:|---|---:|---:|---:|\n"
_TABLE = re.compile(r"(?<=<!-- cards -->\n).*?(?=<!-- end -->)", re.DOTALL)


def build_rows(variant: str, edge: int) -> list[str]:
    """A row for each card: LoRA of rank 16, batch 1, bf16, with pictures on the way; a host with memory enough."""
    with tempfile.TemporaryDirectory() as folder:
        family = build_family(ModelConfig(path=str(build_full_size(Path(folder), variant)), variant=variant))
        return [_build_row(variant, edge, card, family) for card in CARDS_GB]


def write_table(page: str) -> str:
    """The page with a new table."""
    rows = [row for variant in VARIANTS for edge in EDGES for row in build_rows(variant, edge)]
    return _TABLE.sub(lambda _: HEAD + "\n".join(rows) + "\n", page)


def _build_row(variant: str, edge: int, card: int, family: object) -> str:
    config = build_config({"data": [{"path": "pictures"}], "memory": {"fit": f"{card}GB"}})
    kind, sample = KINDS["lora"], Sample(edge, edge)
    trained = kind.choose(config, family, skeleton=family.load_skeleton(), dtype=torch.bfloat16)  # type: ignore[attr-defined,arg-type]
    rates = build_rates(GPU)
    workload = Workload(family, torch.device("cuda"), torch.bfloat16, trained, {sample: 1}, [sample], None, rates, None)  # type: ignore[arg-type]
    try:
        _, fit = build_fitted(config, workload)
    except ConfigError as error:
        return f"| {variant} | {edge} | {card} | does not fit: {error.expected} | | | |"
    assert fit is not None
    chosen = ", ".join(f"`{name} = {_write(value)}`" for name, value in fit.settings.items()) or "nothing: it fits as it is"
    estimate = fit.estimate
    peak, host = estimate.peak.num_bytes / GIB, estimate.host_bytes / GIB
    return f"| {variant} | {edge} | {card} | {chosen} | {peak:.1f} | {host:.0f} | {estimate.time.seconds:.2f} |"


def _write(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


if __name__ == "__main__":
    path = Path(__file__).with_name("memory.md")
    path.write_text(write_table(path.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
