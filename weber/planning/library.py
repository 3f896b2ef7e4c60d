"""The prompts of a library, and those of a run: what each may say of its picture, checked against the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from weber.config.library import LibraryPrompt, read_library
from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.families.family import Family
from weber.planning.checks import check_negative, check_sample_guidance, check_sample_size, sample_size
from weber.planning.prompt_options import check_options
from weber.planning.prompts import Prompt, build_prompts


def list_prompts(config: RunConfig, family: Family, *, is_adapter: bool) -> list[Prompt]:
    """What a run paints: its prompts, then those of its library. Raises ConfigError for what cannot be, DataError for pictures."""
    sampling, size = config.sampling, sample_size(config, family.alignment_pixels)
    prompts = build_prompts(
        sampling.prompts,
        family,
        size=size,
        conditioning=[[one] if isinstance(one, Path) else one for one in sampling.conditioning],
        masks=sampling.masks,
        keys=("sampling.conditioning", "sampling.masks"),
    )
    if sampling.library is None:
        return prompts
    entries = read_library(sampling.library, key="sampling.library")
    taken = {build_number_name(number) for number in range(len(prompts))}
    clash = next((name for name in entries if name in taken), None)
    if clash is not None:
        raise ConfigError(
            "A nickname is the name that the picture of one of sampling.prompts has.",
            got=f"{clash!r} in {sampling.library}",
            fix="rename it",
        )
    cfg = family.sample_defaults.cfg if sampling.cfg is None else sampling.cfg
    where = f"sampling.library = {str(sampling.library)!r}"
    return prompts + build_library(entries, family, size=size, cfg=cfg, is_adapter=is_adapter, where=where)


def build_number_name(number: int) -> str:
    """What the picture of a prompt without a nickname is called."""
    return f"{number:02d}"


def build_library(
    entries: Mapping[str, LibraryPrompt], family: Family, *, size: tuple[int, int], cfg: float, is_adapter: bool, where: str
) -> list[Prompt]:
    """A prompt for each entry; `size` (height, width) and `cfg` are those of what says nothing of them. Raises ConfigError."""
    if family.picture_inputs.repaints:
        raise ConfigError(
            f"The model {family.variant} repaints pictures, and the prompts of a library have none.",
            got=where,
            fix="write the prompts without a library, each with its picture and its mask",
        )
    prompts = [Prompt(one.prompt, name=name, own=one) for name, one in entries.items()]
    for prompt in prompts:
        _check_prompt(prompt, family, size=size, cfg=cfg, is_adapter=is_adapter)
    return prompts


def _check_prompt(prompt: Prompt, family: Family, *, size: tuple[int, int], cfg: float, is_adapter: bool) -> None:
    own, key = prompt.own, f"library: {prompt.name}"
    assert own is not None
    check_options([prompt.text], key=f"the prompt {prompt.name!r} of the library", is_run=True, section="")
    if own.guidance is not None:
        check_sample_guidance(own.guidance, family, key=f"{key}.guidance")
    check_negative(own.negative_prompt, cfg if own.cfg is None else own.cfg, family=family, key=f"{key}.negative_prompt")
    check_sample_size(prompt.choose_size(size), family, key=key)
    if own.strength not in (None, 1) and not is_adapter:
        raise ConfigError(
            "There is no adapter here that could be weaker or stronger.", got=f"{key}.strength = {own.strength:g}", fix="remove strength"
        )
