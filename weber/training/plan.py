"""Everything that can be known and checked before a byte of weights is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from weber.adapters.target import list_patterns, list_targets
from weber.cache.key import build_latent_key, build_text_key
from weber.config.run import RunConfig
from weber.config.train import DEFAULT_STEPS
from weber.data.batches import BatchPlan
from weber.data.examples import Dataset, build_dataset
from weber.errors import ConfigError
from weber.families.family import Family
from weber.families.table import build_family
from weber.memory.device import build_device, build_dtype
from weber.progress import Progress, ignore_progress
from weber.track.tensorboard import check_tensorboard

INDEX_NAME = "index.sqlite"
LARGEST_SIDE_PIXELS = 8192


@dataclass(frozen=True)
class Plan:
    """What a run will do. `modules` are the linear layers that get an adapter, with (inputs, outputs).

    `config` is what was asked for, at sizes that fit the model; `resolved` says the same with absolute paths and with everything left
    out filled in.
    """

    config: RunConfig
    resolved: RunConfig
    family: Family
    dataset: Dataset
    batches: BatchPlan
    num_steps: int
    modules: dict[str, tuple[int, int]]
    device: torch.device
    dtype: torch.dtype

    @property
    def num_parameters(self) -> int:
        """Numbers that learn."""
        return sum(self.config.adapter.rank * (inputs + outputs) for inputs, outputs in self.modules.values())

    @property
    def training_guidance(self) -> float | None:
        """Guidance fed to the network while training; None for a model without that input."""
        return self.resolved.objective.guidance


def build_plan(config: RunConfig, progress: Progress = ignore_progress) -> Plan:
    """Check a config against its model, data and machine; opens pictures and configuration files, no weights.

    Raises ConfigError, ModelError, AdapterError or DataError in words.
    """
    device = build_device(config.memory)
    family = build_family(config.model)
    config = _fit_sizes(config, family)
    _check_objective(config, family)
    _check_sampling(config, family)
    if config.output.tensorboard:
        check_tensorboard()
    modules = _list_modules(config, family)
    dataset = build_dataset(
        config.data,
        alignment_pixels=family.alignment_pixels,
        index_path=config.output.cache / INDEX_NAME,
        seed=config.train.seed,
        progress=progress,
    )
    batches = BatchPlan(
        dataset.examples, batch_size=config.train.batch_size, accumulation=config.train.accumulation, seed=config.train.seed
    )
    num_steps = _count_steps(config, batches.steps_per_epoch)
    resolved = _resolve(config, family, num_steps)
    return Plan(config, resolved, family, dataset, batches, num_steps, modules, device, build_dtype(config.memory, device))


def list_captions(plan: Plan) -> list[str]:
    """Every distinct text that will be encoded: captions and prompts."""
    captions = (caption for example in plan.dataset.examples for caption in example.captions)
    return list(dict.fromkeys([*captions, *plan.config.sampling.prompts]))


def list_keys(plan: Plan) -> set[str]:
    """Cache keys of everything that a run needs, here or on a machine that computes in another precision."""
    family, dtypes = plan.family, (torch.float32, torch.bfloat16)
    image_encoder = family.identify(family.image_part)
    text_encoders = [family.identify(part) for part in family.text_parts]
    latents = {
        build_latent_key(one, crop, encoder=image_encoder, dtype=dtype)
        for one in plan.dataset.examples
        for crop in one.crops
        for dtype in dtypes
    }
    texts = {
        build_text_key(caption, encoder=encoder, dtype=dtype)
        for caption in list_captions(plan)
        for encoder in text_encoders
        for dtype in dtypes
    }
    return latents | texts


def sample_size(config: RunConfig, alignment_pixels: int) -> tuple[int, int]:
    """(height, width) of sampled pictures: as set, or the edge of the first set's resolution."""
    edge = max(alignment_pixels, config.data[0].edge_pixels // alignment_pixels * alignment_pixels)
    return config.sampling.height or edge, config.sampling.width or edge


def build_absolute(path: Path) -> Path:
    """The path from the root, wherever the next command is started."""
    return path.expanduser().absolute()


def _fit_sizes(config: RunConfig, family: Family) -> RunConfig:
    """Sizes that were left out become those that the model was made for."""
    data = [one.build_fitting(native_pixels=family.native_pixels, alignment_pixels=family.alignment_pixels) for one in config.data]
    return config.model_copy(update={"data": data})


def _resolve(config: RunConfig, family: Family, num_steps: int) -> RunConfig:
    """Fill in what was left out, so that the settings of a run mean the same in any folder and any later version."""
    model, sampling, defaults = config.model, config.sampling, family.sample_defaults
    is_folder = model.path is not None and Path(model.path).expanduser().is_dir()
    height, width = sample_size(config, family.alignment_pixels)
    sections = {
        "model": {"variant": family.variant, "path": str(build_absolute(Path(model.path or ""))) if is_folder else model.path},
        "objective": {"guidance": defaults.training_guidance if config.objective.guidance is None else config.objective.guidance},
        "train": {"steps": None if config.train.epochs is not None else num_steps},
        "output": {"folder": build_absolute(config.output.folder), "cache": build_absolute(config.output.cache)},
        "sampling": {
            "steps": sampling.steps or defaults.steps,
            "guidance": defaults.guidance if sampling.guidance is None else sampling.guidance,
            "width": width,
            "height": height,
        }
        if sampling.prompts
        else {},
    }
    changes: dict[str, object] = {name: section.model_copy(update=sections[name]) for name, section in config if name in sections}
    changes["data"] = [one.model_copy(update={"path": build_absolute(one.path)}) for one in config.data]
    return config.model_copy(update=changes)


def _count_steps(config: RunConfig, steps_per_epoch: int) -> int:
    epochs = config.train.epochs
    num_steps = epochs * steps_per_epoch if epochs is not None else config.train.steps or DEFAULT_STEPS
    if config.optim.warmup_steps >= num_steps:
        raise ConfigError(
            "The warm-up is as long as the whole run, so the learning rate would never be reached.",
            got=f"optim.warmup_steps = {config.optim.warmup_steps}, {num_steps} steps in all",
            expected="a warm-up shorter than the run",
            fix=f"set optim.warmup_steps to {num_steps // 10} or so, or train longer",
        )
    return num_steps


def _check_objective(config: RunConfig, family: Family) -> None:
    if config.objective.guidance is not None and family.sample_defaults.training_guidance is None:
        raise ConfigError(
            f"The model {family.variant} has no guidance input.",
            got=f"objective.guidance = {config.objective.guidance}",
            fix="remove objective.guidance",
        )
    if config.objective.timesteps == "token_shift" and family.shift(256) == family.shift(4096):
        raise ConfigError(
            f"The model {family.variant} does not shift timesteps by the number of tokens.",
            got='objective.timesteps = "token_shift"',
            fix='set objective.timesteps = "sigmoid"',
        )


def _check_sampling(config: RunConfig, family: Family) -> None:
    if config.sampling.guidance is not None:
        check_sample_guidance(config.sampling.guidance, family, key="sampling.guidance")
    check_sample_size(sample_size(config, family.alignment_pixels), family, key="sampling")


def check_sample_guidance(guidance: float, family: Family, *, key: str) -> None:
    """Refuse guidance for a model without that input."""
    if family.sample_defaults.guidance is None:
        raise ConfigError(f"The model {family.variant} has no guidance input.", got=f"{key} = {guidance}", fix=f"remove {key}")
    if not 0 <= guidance < math.inf:
        raise ConfigError("Guidance is a number of 0 or more.", got=f"{key} = {guidance}", fix=f"try {family.sample_defaults.guidance}")


def check_sample_size(size: tuple[int, int], family: Family, *, key: str) -> None:
    """Refuse sizes that the model cannot paint."""
    for name, value in zip(("height", "width"), size, strict=True):
        if value > LARGEST_SIDE_PIXELS:
            raise ConfigError(
                "The picture is too large to be painted.",
                got=f"{key}.{name} = {value}",
                expected=f"at most {LARGEST_SIDE_PIXELS} pixels",
                fix="set it to what the model was made for, 1024 or so",
            )
        if value % family.alignment_pixels or value <= 0:
            lower = max(family.alignment_pixels, value // family.alignment_pixels * family.alignment_pixels)
            raise ConfigError(
                f"Sides of pictures must be multiples of {family.alignment_pixels} pixels.",
                got=f"{key}.{name} = {value}",
                fix=f"set it to {lower} or {lower + family.alignment_pixels}",
            )


def _list_modules(config: RunConfig, family: Family) -> dict[str, tuple[int, int]]:
    if isinstance(config.adapter.targets, str):
        list_patterns(config.adapter.targets, family.adapter_targets)
    skeleton = family.load_skeleton()
    names: Sequence[str] = list_targets(skeleton, config.adapter.targets, sets=family.adapter_targets)
    shapes = {}
    for name in names:
        module = skeleton.get_submodule(name)
        assert isinstance(module, nn.Linear)
        shapes[name] = (module.in_features, module.out_features)
    largest = max(min(shape) for shape in shapes.values())
    if config.adapter.rank > largest:
        raise ConfigError(
            "The rank is higher than any of the layers has.",
            got=f"adapter.rank = {config.adapter.rank}",
            expected=f"at most {largest}; 4 to 128 is usual",
            fix="lower adapter.rank",
        )
    return shapes
