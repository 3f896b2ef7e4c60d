"""Frozen adapters: LoRAs that take part and do not learn, each with a strength while training and another one in pictures.

One may be the assistant, with which a distilled model can be trained; it is left out of pictures. The others, `[[model.adapters]]`, are
what is trained builds on. None of them is in the saved file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from weber.adapters.factors import Factors
from weber.adapters.files import load_adapter
from weber.adapters.lora import write_frozen_strength
from weber.adapters.text import check_transformer_only
from weber.config.model import ModelConfig
from weber.errors import AdapterError, ConfigError
from weber.families.family import Family
from weber.families.places import find_file
from weber.planning.checks import NO_ASSISTANT
from weber.results.runs import find_adapter, find_config


@dataclass(frozen=True, eq=False)
class Frozen:
    """A frozen adapter. `key` is the setting that names its `place`, `name` what it is called on the network."""

    key: str
    name: str
    place: str
    strength: float
    sample_strength: float
    modules: Mapping[str, Factors]

    def describe(self) -> str:
        """In a line."""
        return f"{self.place}: strength {self.strength:g} in training, {self.sample_strength:g} in pictures"


def load_frozen(config: ModelConfig, family: Family, *, in_pictures: bool = False) -> tuple[Frozen, ...]:
    """The frozen adapters of a run, from files or the hub, checked against the model; `in_pictures`: those that pictures show.

    Raises ConfigError, ModelError or AdapterError in words, before the model is read.
    """
    listed = list(_list_named(config, family))
    for key, _, _, strength, sample_strength in listed:
        if strength == sample_strength == 0 and key != _ASSISTANT:
            raise ConfigError(
                "A frozen adapter that takes part neither in training nor in pictures has no effect.",
                got=f"{key} with strength 0",
                fix="give it a strength, or remove it",
            )
    skeleton = family.skeleton
    shapes = {name: (one.in_features, one.out_features) for name, one in skeleton.named_modules() if isinstance(one, nn.Linear)}
    return tuple(
        Frozen(key, name, place, strength, sample_strength, _load_modules(key, place, shapes))
        for key, name, place, strength, sample_strength in listed
        if sample_strength != 0 or not in_pictures
    )


def write_frozen_strengths(transformer: nn.Module, adapters: Iterable[Frozen], *, in_pictures: bool) -> None:
    """Give frozen adapters the strength that they have in pictures, or while training."""
    for one in adapters:
        write_frozen_strength(transformer, one.sample_strength if in_pictures else one.strength, name=one.name)


def _list_named(config: ModelConfig, family: Family) -> Iterator[tuple[str, str, str, float, float]]:
    """Key, name, place, strength and strength in pictures of what the settings name."""
    place = family.assistant if config.assistant is None else config.assistant
    if place is not None and place != NO_ASSISTANT:
        yield _ASSISTANT, "assistant", place, config.assistant_strength, config.assistant_sample_strength
    for number, one in enumerate(config.adapters):
        sample_strength = one.strength if one.sample_strength is None else one.sample_strength
        yield f"model.adapters.{number}", f"adapter_{number}", one.path, one.strength, sample_strength


def _load_modules(key: str, place: str, shapes: Mapping[str, tuple[int, int]]) -> dict[str, Factors]:
    what, setting = ("The assistant", key) if key == _ASSISTANT else (f"The frozen adapter {key}", f"{key}.path")
    fix = f'set {setting} to a LoRA for this model, or {"to " + chr(34) + NO_ASSISTANT + chr(34) if key == _ASSISTANT else "remove it"}'
    folder = Path(place).expanduser()
    is_run = folder.is_dir() and find_config(folder) is not None
    modules = load_adapter(find_adapter(folder) if is_run else find_file(setting, place)).modules
    check_transformer_only(modules, what=f"{what} changes CLIP too, which stays as it is.", fix=fix)
    for name, factors in modules.items():
        if factors.magnitude is not None:
            raise AdapterError(
                f"{what} is a DoRA, which cannot take part.",
                got=f"magnitudes of {name} in {place}",
                expected="a LoRA",
                fix=f"merge it into the model with `weber merge`, and set model.transformer to that; or {fix}",
            )
        if shapes.get(name) != (factors.down.shape[1], factors.up.shape[0]):
            raise AdapterError(
                f"{what} is not for this model.",
                got=f"{name} with {factors.down.shape[1]} inputs and {factors.up.shape[0]} outputs in {place}",
                expected=f"{name} with {shapes[name][0]} inputs and {shapes[name][1]} outputs" if name in shapes else f"no {name}",
                fix=fix,
            )
    return modules


_ASSISTANT = "model.assistant"
