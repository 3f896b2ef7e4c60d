"""What made a step's numbers not finite, where that can be told: what was encoded, or the model itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from weber.errors import CacheError, ModelError, WeberError
from weber.families.finite import find_not_finite
from weber.progress import Progress
from weber.training.batch import Batch
from weber.training.learner import Learner

Find = Callable[[], Mapping[str, Sequence[Path]]]
"""Gives the pictures of a step whose numbers in the cache are not finite, with the files that hold them."""


def find_cause(
    learner: Learner, batches: Sequence[Batch], *, find_files: Find, is_first: bool, progress: Progress
) -> WeberError | None:
    """An error that names it; None where it is neither. The model is looked at in the first step of a process, as it does not change."""
    for batch in batches:
        strange = [name for name, tensor in {"picture": batch.latents_BCHW, **batch.condition}.items() if not tensor.isfinite().all()]
        if strange:
            return _build_cache_error(strange, batch, find_files())
    name = find_not_finite(learner.family.open_transformer(), progress=progress) if is_first else None
    if name is None:
        return None
    model = learner.config.model
    return ModelError(
        "The model holds numbers that are not finite, so nothing can be learned with it.",
        got=f"{name} in {model.transformer or model.path or learner.family.variant}",
        fix="take another copy of the model: its download, or the program that made it, has failed",
    )


def _build_cache_error(strange: Sequence[str], batch: Batch, files: Mapping[str, Sequence[Path]]) -> CacheError:
    shards = sorted({str(file) for one in files.values() for file in one})
    names = [name for name in batch.names if name in files] or batch.names
    fix = 'set memory.dtype = "fp32", or look at the files of model.vae and model.text_encoder'
    if shards:
        fix = f"delete {' and '.join(shards)} and start again, and what was in it is encoded anew; if that fails too, {fix}"
    return CacheError(
        "What the encoders made of pictures or captions is not finite.",
        got=f"{', '.join(strange)} of {', '.join(names)}" + (f", in the cache's {', '.join(shards)}" if shards else ""),
        fix=fix,
    )
