"""What attends in a run and in its pictures: refused where it cannot, told as far as it is known, and tried when the run starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.families.attention import is_masked
from weber.families.family import Family
from weber.kernels.trial import Choice, Use, choose, find_obstacle, list_candidates, read_capability
from weber.planning.budget import Workload
from weber.planning.machine import Machine
from weber.planning.rehearsal import Sample, count_tokens

TRAINING, PAINTING, WISHED = "memory.attention", "sampling.attention", "--attention"
_UNSET: Mapping[str, str] = {TRAINING: "auto", PAINTING: "same", WISHED: "same"}


@dataclass(frozen=True)
class Attention:
    """What attends while training, and while pictures are painted."""

    training: Choice
    painting: Choice

    def describe(self) -> str:
        """For a person, when a run starts."""
        is_same = self.painting.name == self.training.name
        return f"Attention: {self.training.describe()}" + ("." if is_same else f"; in pictures: {self.painting.describe()}.")


def build_use(family: Family, *, device: torch.device, dtype: torch.dtype, samples: Iterable[Sample] = (), is_here: bool = True) -> Use:
    """What attention is asked for by the largest of these samples, while training. A GPU that is not here may be any."""
    return Use(
        device,
        dtype,
        num_heads=read_number(family, "num_attention_heads"),
        num_tokens=max((count_tokens(family, replace(sample, batch=1)) for sample in samples), default=1),
        width=read_number(family, "attention_head_dim"),
        has_mask=is_masked(family),
        capability=read_capability(device) if is_here else None,
    )


def read_number(family: Family, name: str) -> int:
    """A number of the transformer's configuration. What a model's own file leaves out, the library knows."""
    number = family.transformer_config.get(name)
    if number is None:
        skeleton: Any = family.skeleton
        number = skeleton.config[name]
    assert isinstance(number, int)
    return number


def check_attention(config: RunConfig, family: Family, *, machine: Machine) -> None:
    """Refuse what is known not to run here. Runs nothing."""
    use = build_use(family, device=machine.device, dtype=machine.dtype, is_here=machine.wish is None)
    for key, name in ((TRAINING, config.memory.attention), (PAINTING, config.sampling.attention)):
        learns = key == TRAINING
        check_backend(name, replace(use, learns=learns, is_compiled=learns and config.memory.compile), key=key)


def check_backend(name: str, use: Use, *, key: str) -> None:
    """The same for one setting; `key` says which it is. Raises ConfigError."""
    obstacle = None if name in _UNSET.values() else find_obstacle(name, use)
    if obstacle is not None:
        raise ConfigError(f"This attention cannot be used here: {obstacle}.", got=_write(key, name), fix=_propose(key, use))


def _propose(key: str, use: Use) -> str:
    names = _UNSET[key], *(name for name in list_candidates(use) if name != "cpu")
    return "set " + " or ".join(_write(key, name) for name in names)


def _write(key: str, name: str) -> str:
    return f"{key} {name}" if key == WISHED else f'{key} = "{name}"'


def choose_backend(name: str, use: Use, *, key: str) -> Choice:
    """What attends: the first of all candidates that is right, or the one that is named. Raises ConfigError where that is wrong."""
    if name == "auto":
        return Choice("cpu") if use.device.type == "cpu" else choose(use, list_candidates(use))
    check_backend(name, use, key=key)
    found = choose(use, (name,))
    if found.name is None:
        (_, why), = found.refused
        tokens = f"{use.num_heads} heads of {use.width} numbers and {use.num_tokens} tokens"
        raise ConfigError(
            f"This attention was tried, with {tokens}, and is wrong here: {why}.", got=_write(key, name), fix=_propose(key, use)
        )
    return found


def choose_attention(config: RunConfig, workload: Workload) -> Attention:
    """What attends in a run, tried at the size of its largest pictures; each is tried once. Raises ConfigError."""
    use = replace(_build_use(workload, workload.samples), is_compiled=config.memory.compile)
    training = choose_backend(config.memory.attention, use, key=TRAINING)
    if config.sampling.attention == "same":
        return Attention(training, training)
    return Attention(training, choose_painting(config.sampling.attention, _build_use(workload, workload.paintings), key=PAINTING))


def choose_painting(name: str, use: Use, *, key: str) -> Choice:
    """What attends where nothing learns."""
    return choose_backend(name, replace(use, learns=False), key=key)


def describe_attention(config: RunConfig, workload: Workload, *, is_here: bool) -> str:
    """What is known before it is tried."""
    use = replace(_build_use(workload, workload.samples, is_here=is_here), is_compiled=config.memory.compile)
    name: str = config.memory.attention
    names = list_candidates(use)
    if name == "auto" and len(names) > 1:
        name = f"the first of {', '.join(names)} that is right with {use.num_tokens} tokens, tried when the run starts"
    elif name == "auto":
        name = next(iter(names), "PyTorch's own" if is_here else "what is usually fastest on the GPU, tried when the run starts")
    painting = config.sampling.attention
    return f"attention: {name}" + ("" if painting == "same" else f"; in pictures: {painting}")


def _build_use(workload: Workload, samples: Iterable[Sample], *, is_here: bool = True) -> Use:
    return build_use(workload.family, device=workload.device, dtype=workload.dtype, samples=samples, is_here=is_here)
