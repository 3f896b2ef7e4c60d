"""What made a step's numbers not finite, where that can be told: what was encoded, or the model itself."""

from __future__ import annotations

from collections.abc import Sequence

from weber.errors import CacheError, ModelError, WeberError
from weber.families.finite import find_not_finite
from weber.progress import Progress
from weber.training.batch import Batch
from weber.training.learner import Learner


def find_cause(learner: Learner, batches: Sequence[Batch], *, is_first: bool, progress: Progress) -> WeberError | None:
    """An error that names it; None where it is neither. The model is looked at in the first step of a process, as it does not change."""
    for batch in batches:
        strange = [name for name, tensor in {"picture": batch.latents_BCHW, **batch.condition}.items() if not tensor.isfinite().all()]
        if strange:
            return CacheError(
                "What the encoders made of pictures or captions is not finite.",
                got=f"{', '.join(strange)} of {', '.join(batch.names)}",
                fix='set memory.dtype = "fp32", or look at the files of model.vae and model.text_encoder',
            )
    name = find_not_finite(learner.family.open_transformer(), progress=progress) if is_first else None
    if name is None:
        return None
    model = learner.config.model
    return ModelError(
        "The model holds numbers that are not finite, so nothing can be learned with it.",
        got=f"{name} in {model.transformer or model.path or learner.family.variant}",
        fix="take another copy of the model: its download, or the program that made it, has failed",
    )
