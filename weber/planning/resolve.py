"""The settings of a run with everything filled in: they mean the same in any folder and any later version."""

from __future__ import annotations

from pathlib import Path

import torch

from weber.config import elsewhere
from weber.config.adapter import AdapterConfig
from weber.config.data import DataConfig
from weber.config.model import ModelConfig
from weber.config.objective import ObjectiveConfig
from weber.config.output import OutputConfig, SamplingConfig
from weber.config.run import RunConfig
from weber.families.family import Family
from weber.planning.checks import sample_size


def build_resolved(
    config: RunConfig, family: Family, *, num_steps: int, painted: Family | None = None, dtype: torch.dtype | None = None
) -> RunConfig:
    """`config` with the model's own values where nothing was said, and with absolute paths. `painted`: the model that paints, if it is
    another one; `dtype`: the precision that was found by trying."""
    found = {} if dtype is None else {"dtype": "bf16" if dtype == torch.bfloat16 else "fp32"}
    objective, defaults = config.objective, family.sample_defaults
    return config.model_copy(
        update={
            "model": _resolve_model(config.model, family),
            "data": [_resolve_set(one) for one in config.data],
            "adapter": _resolve_adapter(config.adapter),
            "memory": config.memory.model_copy(update={"fit": None} | found),  # what `fit` has chosen is there
            "optim": config.optim.build_resolved(config.adapter.form),
            "objective": objective.model_copy(
                update={
                    "guidance": _resolve_guidance(objective, family),
                    "timesteps": objective.timesteps or defaults.timesteps,
                }
            ),
            "train": config.train.model_copy(update={"steps": None if config.train.epochs is not None else num_steps}),
            "sampling": _resolve_sampling(config, painted or family),
            "output": _resolve_output(config.output),
        }
    )


def _resolve_guidance(objective: ObjectiveConfig, family: Family) -> float | None:
    """None too where each sample draws its own."""
    is_said = objective.guidance is not None or objective.guidance_range is not None
    return objective.guidance if is_said else family.sample_defaults.training_guidance


def build_absolute(path: Path) -> Path:
    """The path from the root, wherever the next command is started."""
    return elsewhere.build_absolute(path.expanduser())


def _resolve_model(model: ModelConfig, family: Family) -> ModelConfig:
    return model.model_copy(
        update={
            "variant": family.variant,
            "path": _resolve_place(model.path),
            "transformer": _resolve_place(model.transformer),
            "vae": _resolve_place(model.vae),
            "text_encoder": _resolve_place(model.text_encoder),
            "text_encoder_2": _resolve_place(model.text_encoder_2),
            "tokenizer_path": _resolve_place(model.tokenizer_path),
            "assistant": _resolve_place(family.assistant if model.assistant is None else model.assistant),
            "adapters": [one.model_copy(update={"path": _resolve_place(one.path)}) for one in model.adapters],
        }
    )


def _resolve_adapter(adapter: AdapterConfig) -> AdapterConfig:
    is_preset = adapter.lycoris is not None and adapter.lycoris.apply_preset is not None
    targets = None if is_preset else adapter.chosen_targets
    return adapter.model_copy(update={"start_from": _resolve_place(adapter.start_from), "targets": targets})


def _resolve_place(place: str | None) -> str | None:
    """A file or folder from the root; anything else, such as a hub id, as it is."""
    return str(build_absolute(Path(place))) if place is not None and Path(place).expanduser().exists() else place


def _resolve_set(data: DataConfig) -> DataConfig:
    return data.model_copy(
        update={
            "path": None if data.path is None else build_absolute(data.path),
            "metadata": None if data.metadata is None else build_absolute(data.metadata),
            "conditioning": [build_absolute(folder) for folder in data.conditioning],
            "masks": None if data.masks is None else build_absolute(data.masks),
            "loss_masks": None if data.loss_masks is None else build_absolute(data.loss_masks),
            "caption_steps": [
                one if one.folder is None else one.model_copy(update={"folder": build_absolute(one.folder)}) for one in data.caption_steps
            ],
        }
    )


def _resolve_sampling(config: RunConfig, family: Family) -> SamplingConfig:
    sampling, defaults = config.sampling, family.sample_defaults
    if not sampling.paints:
        return sampling
    height, width = sample_size(config, family.alignment_pixels)
    return sampling.model_copy(
        update={
            "model": _resolve_place(sampling.model),
            "library": None if sampling.library is None else build_absolute(sampling.library),
            "steps": sampling.steps or defaults.steps,
            "guidance": defaults.guidance if sampling.guidance is None else sampling.guidance,
            "cfg": defaults.cfg if sampling.cfg is None else sampling.cfg,
            "conditioning": [
                build_absolute(one) if isinstance(one, Path) else [build_absolute(file) for file in one] for one in sampling.conditioning
            ],
            "masks": [build_absolute(file) for file in sampling.masks],
            "width": None if sampling.sizes else width,
            "height": None if sampling.sizes else height,
        }
    )


def _resolve_output(output: OutputConfig) -> OutputConfig:
    return output.model_copy(update={"folder": build_absolute(output.folder), "cache": build_absolute(output.cache)})
