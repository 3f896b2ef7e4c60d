"""Everything that can be known and checked before a byte of weights is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from weber.adapters.files import AdapterFile
from weber.adapters.merge import check_base
from weber.adapters.start import load_start
from weber.adapters.target import list_patterns, list_targets
from weber.cache.key import build_latent_key, build_text_key
from weber.config.adapter import AdapterConfig
from weber.config.run import RunConfig
from weber.config.train import DEFAULT_STEPS
from weber.data.batches import BatchPlan
from weber.data.examples import Dataset, build_dataset
from weber.data.sets import PictureLimits
from weber.data.views import View
from weber.errors import ConfigError
from weber.families.complete import check_complete
from weber.families.family import Family
from weber.families.table import build_family
from weber.memory.device import build_device, build_dtype
from weber.progress import Progress, ignore_progress
from weber.track.tensorboard import check_tensorboard
from weber.training.assistant import load_assistant
from weber.training.checks import (
    MERGED_FILE,
    MERGED_FOLDER,
    check_assistant,
    check_formats,
    check_objective,
    check_references,
    check_sampling,
    sample_size,
)
from weber.training.prompts import Prompt, build_prompts
from weber.training.resolve import build_resolved
from weber.training.runs import find_adapter

INDEX_NAME = "index.sqlite"
HUB_NAME = "hub"


@dataclass(frozen=True)
class Plan:
    """What a run will do. `modules` are the linear layers that get an adapter, with (inputs, outputs).

    `config` is what was asked for, at sizes that fit the model; `resolved` says the same with absolute paths and with everything left
    out filled in. `start` is the adapter that training starts from, `assistant` the one that takes part.
    """

    config: RunConfig
    resolved: RunConfig
    family: Family
    dataset: Dataset
    batches: BatchPlan
    num_steps: int
    modules: dict[str, tuple[int, int]]
    prompts: tuple[Prompt, ...]
    start: AdapterFile | None
    assistant: AdapterFile | None
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


def build_plan(config: RunConfig, progress: Progress = ignore_progress, *, is_resumed: bool = False) -> Plan:
    """Check a config against its model, data and machine; opens pictures, configuration files and adapters, no weights of the model.

    A run that `is_resumed` has left the adapter that it started from behind.
    Raises ConfigError, ModelError, AdapterError or DataError in words.
    """
    device = build_device(config.memory)
    family = build_family(config.model)
    config = _fit_sizes(config, family)
    check_objective(config, family)
    check_sampling(config, family)
    check_assistant(config, family)
    if isinstance(config.adapter.targets, str):
        list_patterns(config.adapter.targets, family.adapter_targets)
    if config.output.tensorboard:
        check_tensorboard()
    skeleton = _load_skeleton(config, family)
    modules = _choose_modules(config, family, skeleton)
    check_formats(config.output.formats, list(modules), pairings=family.pairings, key="output.formats")
    if family.is_local and {MERGED_FILE, MERGED_FOLDER} & set(config.output.formats):
        check_base(family.open_transformer(), list(modules))
    start = None if is_resumed else load_start(_find_start(config.adapter), modules, linears=_list_linears(skeleton))
    dataset = build_dataset(
        config.data,
        alignment_pixels=family.alignment_pixels,
        inputs=_build_limits(family),
        index_path=config.output.cache / INDEX_NAME,
        hub_folder=config.output.cache / HUB_NAME,
        seed=config.train.seed,
        progress=progress,
    )
    check_references(config, family, modules=modules, dataset=dataset)
    batches = BatchPlan(
        dataset.examples, batch_size=config.train.batch_size, accumulation=config.train.accumulation, seed=config.train.seed
    )
    num_steps = _count_steps(config, batches.steps_per_epoch)
    resolved = build_resolved(config, family, num_steps=num_steps)
    prompts = build_prompts(
        config.sampling.prompts,
        family,
        size=sample_size(config, family.alignment_pixels),
        conditioning=[[one] if isinstance(one, Path) else one for one in config.sampling.conditioning],
        masks=config.sampling.masks,
        keys=("sampling.conditioning", "sampling.masks"),
    )
    assistant = load_assistant(config.model, family)
    dtype = build_dtype(config.memory, device)
    return Plan(config, resolved, family, dataset, batches, num_steps, modules, tuple(prompts), start, assistant, device, dtype)


def list_captions(plan: Plan) -> list[str]:
    """Every distinct text that will be encoded: captions, prompts and the negative prompt."""
    captions = (caption for example in plan.dataset.examples for caption in example.captions)
    sampling = plan.resolved.sampling
    negative = [] if sampling.cfg in (None, 1) else [sampling.negative_prompt or ""]
    return list(dict.fromkeys([*captions, *sampling.prompts, *negative]))


def list_views(plan: Plan) -> list[View]:
    """Every distinct picture that will be encoded, as the encoder will see it: of the sets, and of the prompts."""
    views = [view for example in plan.dataset.examples for view in example.list_views()]
    return list(dict.fromkeys([*views, *(view for prompt in plan.prompts for view in prompt.views)]))


def list_keys(plan: Plan) -> set[str]:
    """Cache keys of everything that a run needs, here or on a machine that computes in another precision."""
    family, dtypes = plan.family, (torch.float32, torch.bfloat16)
    image_encoder = family.identify(family.image_part)
    text_encoders = [family.identify(part) for part in family.text_parts]
    latents = {build_latent_key(view, encoder=image_encoder, dtype=dtype) for view in list_views(plan) for dtype in dtypes}
    texts = {
        build_text_key(caption, encoder=encoder, dtype=dtype)
        for caption in list_captions(plan)
        for encoder in text_encoders
        for dtype in dtypes
    }
    return latents | texts


def _fit_sizes(config: RunConfig, family: Family) -> RunConfig:
    """Sizes that were left out become those that the model was made for."""
    data = [
        one.build_fitting(
            native_pixels=family.native_pixels, alignment_pixels=family.alignment_pixels, sizes=family.picture_inputs.sizes
        )
        for one in config.data
    ]
    return config.model_copy(update={"data": data})


def _find_start(adapter: AdapterConfig) -> AdapterConfig:
    """`start_from` may name a run folder or a checkpoint: its adapter is meant."""
    if adapter.start_from is None or not Path(adapter.start_from).expanduser().is_dir():
        return adapter
    return adapter.model_copy(update={"start_from": str(find_adapter(Path(adapter.start_from)))})


def _build_limits(family: Family) -> PictureLimits:
    inputs = family.picture_inputs
    return PictureLimits(inputs.max_references, inputs.repaints, inputs.sizes, family.reference_size)


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


def _load_skeleton(config: RunConfig, family: Family) -> nn.Module:
    """The transformer without weights; where its files are here, their names and shapes are those that it has."""
    skeleton = family.load_skeleton()
    if family.is_local:
        merged = {MERGED_FILE, MERGED_FOLDER} & set(config.output.formats)
        check_complete(family.open_transformer(), skeleton, where=family.variant, exactly=bool(merged))
    return skeleton


def _list_linears(skeleton: nn.Module) -> dict[str, tuple[int, int]]:
    return {name: (one.in_features, one.out_features) for name, one in skeleton.named_modules() if isinstance(one, nn.Linear)}


def _choose_modules(config: RunConfig, family: Family, skeleton: nn.Module) -> dict[str, tuple[int, int]]:
    linears = _list_linears(skeleton)
    shapes = {name: linears[name] for name in list_targets(skeleton, config.adapter.targets, sets=family.adapter_targets)}
    largest = max(min(shape) for shape in shapes.values())
    if config.adapter.rank > largest:
        raise ConfigError(
            "The rank is higher than any of the layers has.",
            got=f"adapter.rank = {config.adapter.rank}",
            expected=f"at most {largest}; 4 to 128 is usual",
            fix="lower adapter.rank",
        )
    return shapes
