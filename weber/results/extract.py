"""A LoRA taken out of a whole fine-tune."""

from __future__ import annotations

from pathlib import Path

from weber.adapters.extract import Extraction, build_extraction
from weber.config.near import find_near
from weber.errors import ConfigError
from weber.families.pattern import is_any
from weber.families.table import open_transformer
from weber.progress import Progress
from weber.results.bases import read_base, speaking_of
from weber.results.files import Named, save_layout
from weber.results.formats import check_named_layout
from weber.results.targets import EXTRACTED, check_file, list_places


def extract(
    tuned: str, *, base: str, targets: str, rank: int | None, energy: float | None, out: Path, layout: str, progress: Progress
) -> Extraction:
    """Write the LoRA that turns one model into another, on the layers that a target set or a pattern means."""
    check_file(out, list_places(tuned, base))
    if (rank is None and energy is None) or (rank is not None and rank < 1) or (energy is not None and not 0 < energy <= 1):
        raise ConfigError(
            "It is not said how much of the change is to be kept, or in a way that cannot be.",
            got=f"--rank {rank}, --energy {energy}",
            expected="--rank of 1 or more, --energy above 0 and up to 1, or both",
            fix="try --rank 64",
        )
    with speaking_of("--base"):
        before = open_transformer(read_base(base))
    with speaking_of("TUNED"):
        after = open_transformer(read_base(tuned))
    linears = [name.removesuffix(".weight") for name, entry in before.weights.items() if len(entry.shape) == 2]
    patterns = before.row.targets.get(targets, [targets])
    modules = [name for name in linears if is_any(name, patterns)]
    if not modules:
        near = find_near(targets.lower(), before.row.targets)
        raise ConfigError(
            "The targets mean no layer of the model.",
            got=f"--targets {targets}",
            expected=", ".join(before.row.targets),
            fix=f"write --targets {near}" if near is not None else "name a set, or the end of a layer's name, such as attn.to_q",
        )
    check_named_layout(layout, modules, pairings=before.row.pairings)
    extraction = build_extraction(before.weights, after.weights, modules=modules, rank=rank, energy=energy, progress=progress)
    named = Named(extraction.modules, {EXTRACTED: Path(tuned).name, "model": Path(base).name}, out.stem)
    save_layout(out, named, layout=layout, architecture="", pairings=before.row.pairings)
    return extraction
