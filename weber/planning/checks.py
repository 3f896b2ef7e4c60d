"""What cannot act for the model at hand is refused here, before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from weber.config.run import RunConfig
from weber.data.dataset import Dataset
from weber.errors import ConfigError
from weber.families.family import Family
from weber.families.pattern import is_any
from weber.families.route import build_routes
from weber.families.tokens import TEXT_LAYER
from weber.objective.timesteps import is_shifted_by_tokens

LARGEST_SIDE_PIXELS = 8192
NO_ASSISTANT = "off"


def check_objective(config: RunConfig, family: Family) -> None:
    """Refuse guidance, laws of timesteps and routes past blocks that the model cannot take."""
    _check_routes(config, family)
    objective, defaults = config.objective, family.sample_defaults
    for key in ("guidance", "guidance_range"):
        value = objective.guidance if key == "guidance" else objective.guidance_range
        if value is not None and defaults.training_guidance is None:
            got = list(value) if isinstance(value, tuple) else value
            raise ConfigError(
                f"The model {family.variant} has no guidance input.", got=f"objective.{key} = {got}", fix=f"remove objective.{key}"
            )
    if is_shifted_by_tokens(objective) and family.shift(256) == family.shift(4096):
        is_law = objective.timesteps == "token_shift"
        raise ConfigError(
            f"The model {family.variant} does not shift timesteps by the number of tokens.",
            got=f'objective.{"timesteps" if is_law else "shift"} = "{"token_shift" if is_law else "tokens"}"',
            fix='set objective.timesteps = "sigmoid"' if is_law else "set objective.shift to a number, or remove it",
        )
    if (objective.timesteps or defaults.timesteps) != "fast":
        return
    for name in ("sigmoid_scale", "sigmoid_offset", "shift"):
        value = objective.model_dump()[name]
        if value != type(objective).model_fields[name].default:
            raise ConfigError(
                f'The model {family.variant} is trained with timesteps = "fast", where {name} has no effect.',
                got=f"objective.{name} = {value!r}",
                fix='remove it, or set objective.timesteps = "sigmoid"',
            )


def _check_routes(config: RunConfig, family: Family) -> None:
    if config.objective.tread and not family.takes_routes:
        raise ConfigError(
            f"No token can skip blocks of the model {family.variant}: some of them run beside each other, for texts or pictures alone.",
            got="objective.tread",
            fix="remove objective.tread",
        )
    if config.objective.tread:
        build_routes(config.objective.tread, num_blocks=len(family.blocks(family.build_predictor(family.skeleton))))


def check_references(config: RunConfig, family: Family, *, modules: Iterable[str], dataset: Dataset) -> None:
    """Refuse what needs references where no picture has any: layers, and a noise level of their own."""
    idle = [module for module in modules if is_any(module, family.reference_modules)]
    if idle and not any(shape.references for _, shape in dataset.examples.kinds):
        raise ConfigError(
            "Some targets take part only with reference pictures, and no picture has one.",
            got=f"adapter.targets = {config.adapter.targets!r} with {idle[0]}",
            fix="choose other targets, or set data.0.conditioning",
        )
    if config.objective.reference_timestep == "shared":
        return
    if not family.takes_reference_t:
        raise ConfigError(
            f"The model {family.variant} has no noise level of its own for references.",
            got=f'objective.reference_timestep = "{config.objective.reference_timestep}"',
            fix="remove objective.reference_timestep",
        )
    if not any(shape.references for _, shape in dataset.examples.kinds):
        raise ConfigError(
            "No picture has a reference, so their noise level has no effect.",
            got=f'objective.reference_timestep = "{config.objective.reference_timestep}"',
            fix="set data.0.conditioning, or remove objective.reference_timestep",
        )


def check_texts(config: RunConfig, family: Family, *, modules: Iterable[str], frozen: Iterable[str]) -> None:
    """Refuse texts that are kept behind a layer which learns, or which an adapter changes."""
    changed = next((name for name in (*modules, *frozen) if name == TEXT_LAYER), None)
    if config.output.text_cache == "projected" and changed is not None:
        raise ConfigError(
            f"The texts would be kept behind the layer {TEXT_LAYER}, but an adapter changes it, or it is trained itself.",
            got='output.text_cache = "projected"',
            fix=f'set output.text_cache = "full" or "fp8", or leave {TEXT_LAYER} out with adapter.exclude',
        )


def check_assistant(config: RunConfig, family: Family) -> None:
    """Refuse strengths of an assistant that is not there."""
    model = config.model
    if (NO_ASSISTANT if model.assistant is None and family.assistant is None else model.assistant) != NO_ASSISTANT:
        return
    for key, value, default in (
        ("assistant_strength", model.assistant_strength, 1.0),
        ("assistant_sample_strength", model.assistant_sample_strength, 0.0),
    ):
        if value != default:
            raise ConfigError(
                f"There is no assistant, so model.{key} has no effect.",
                got=f"model.{key} = {value}, model.assistant = {model.assistant or NO_ASSISTANT!r}",
                fix=f"set model.assistant to a LoRA file, or remove model.{key}",
            )


def check_sampling(config: RunConfig, family: Family) -> None:
    """Refuse guidance and sizes of the run's pictures that the model cannot take."""
    sampling = config.sampling
    if sampling.guidance is not None:
        check_sample_guidance(sampling.guidance, family, key="sampling.guidance")
    check_negative(sampling.negative_prompt, sampling.cfg, family=family, key="sampling.negative_prompt")
    if sampling.sizes:
        _check_sizes(list_sample_sizes(config, family.alignment_pixels), family)
    else:
        check_sample_size(sample_size(config, family.alignment_pixels), family, key="sampling")


def check_negative(negative: str | None, cfg: float | None, *, family: Family, key: str) -> None:
    """Refuse a negative prompt without classifier-free guidance."""
    if negative is not None and (family.sample_defaults.cfg if cfg is None else cfg) == 1:
        raise ConfigError(
            "A negative prompt needs classifier-free guidance, which is off.",
            got=f"{key} = {negative!r}",
            fix=f"set {key.replace('negative_prompt', 'cfg').replace('negative', 'cfg')} to 3.5 or so, or remove {key}",
        )


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


def _check_sizes(sizes: Sequence[tuple[int, int]], family: Family) -> None:
    """The same for a list of them: all that are wrong, and what each should be."""
    step = family.alignment_pixels
    wrong = [size for size in sizes if any(side % step or side > LARGEST_SIDE_PIXELS for side in size)]
    if wrong:
        right = [tuple(min(LARGEST_SIDE_PIXELS, max(step, round(side / step) * step)) for side in size) for size in wrong]
        raise ConfigError(
            f"Sides of pictures must be multiples of {step} pixels, up to {LARGEST_SIDE_PIXELS}.",
            got=f"sampling.sizes with {_write_sizes(wrong)}",
            fix=f"write {_write_sizes(right)}",
        )


def _write_sizes(sizes: Iterable[Sequence[int]]) -> str:
    return ", ".join(f'"{width}x{height}"' for height, width in sizes)


def sample_size(config: RunConfig, alignment_pixels: int) -> tuple[int, int]:
    """(height, width) of the first sampled picture."""
    return list_sample_sizes(config, alignment_pixels)[0]


def list_sample_sizes(config: RunConfig, alignment_pixels: int) -> list[tuple[int, int]]:
    """(height, width) of sampled pictures: as set, or the edge of the first set's resolution."""
    sampling = config.sampling
    edge = max(alignment_pixels, config.data[0].edge_pixels // alignment_pixels * alignment_pixels)
    return [(height, width) for width, height in sampling.rectangles] or [(sampling.height or edge, sampling.width or edge)]
