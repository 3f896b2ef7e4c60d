"""What is asked of the painter: a text, and the pictures that go with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from weber.data.views import View, build_view
from weber.errors import ConfigError
from weber.families.family import Family
from weber.planning.prompt_options import check_options


@dataclass(frozen=True, kw_only=True)
class Own:
    """What a prompt says of its own picture; None: as for all others."""

    negative_prompt: str | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None
    cfg: float | None = None
    strength: float | None = None


@dataclass(frozen=True)
class Prompt:
    """A text with its reference pictures, or with the picture that is to be repainted: one picture.

    `name`: its nickname, of a library. `stem`: what its file is called, before the `ways` that tell its picture from others of the same
    prompt, such as `1024x768` or `seed 7`. `learned`: the training picture that it is painted after.
    """

    text: str
    references: tuple[View, ...] = ()
    masked: View | None = None
    name: str | None = None
    own: Own = Own()
    stem: str = ""
    ways: tuple[str, ...] = ()
    learned: View | None = None

    @property
    def views(self) -> tuple[View, ...]:
        """Every picture that has to be encoded for it."""
        return self.references if self.masked is None else (self.masked,)

    @property
    def file(self) -> str:
        """What its file is called, without an ending."""
        return "-".join([self.stem, *(way.replace(" ", "") for way in self.ways)])

    @property
    def caption(self) -> str:
        """What a sheet says below it."""
        named = self.text if self.name is None else f"{self.name}: {self.text}"
        return f"{named} ({', '.join(self.ways)})" if self.ways else named

    def choose_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of its picture, where that of all others is `size`."""
        return self.own.height or size[0], self.own.width or size[1]

    def choose_negative(self, negative: str | None, cfg: float | None) -> str | None:
        """What is led away from; None where nothing is. The arguments: what holds for all others."""
        negative = negative if self.own.negative_prompt is None else self.own.negative_prompt
        cfg = cfg if self.own.cfg is None else self.own.cfg
        return None if cfg in (None, 1) else negative or ""


def list_texts(prompts: Iterable[Prompt], *, negative: str | None, cfg: float | None) -> list[str]:
    """Every text that is read for the pictures; what is led away from last."""
    prompts = list(prompts)
    away = [text for prompt in prompts if (text := prompt.choose_negative(negative, cfg)) is not None]
    return list(dict.fromkeys([*(prompt.text for prompt in prompts), *away]))


def build_prompts(
    texts: Sequence[str],
    family: Family,
    *,
    size: tuple[int, int],
    conditioning: Sequence[Sequence[Path]],
    masks: Sequence[Path],
    keys: tuple[str, str],
) -> list[Prompt]:
    """A prompt per text; `conditioning` and `masks` are empty or have an entry per text; `size` is (height, width) of the picture;
    `keys` are what a person calls the two.

    Raises ConfigError for pictures that the model cannot take or lacks, DataError for files that cannot be read.
    """
    if not texts:
        return []
    is_run = keys[0].startswith("sampling.")
    check_options(texts, key="sampling.prompts" if is_run else "--prompt", is_run=is_run)
    inputs = family.picture_inputs
    _check_pictures(family, conditioning=conditioning, masks=masks, keys=keys)
    height, width = size
    prompts = []
    for number, text in enumerate(texts):
        files = conditioning[number] if conditioning else ()
        if inputs.repaints:
            prompts.append(Prompt(text, masked=build_view(files[0], size=(width, height), mask=masks[number])))
        else:
            prompts.append(Prompt(text, tuple(_build_reference(file, family) for file in files)))
    return prompts


def _build_reference(file: Path, family: Family) -> View:
    return build_view(file, size=family.reference_size)


def _check_pictures(family: Family, *, conditioning: Sequence[Sequence[Path]], masks: Sequence[Path], keys: tuple[str, str]) -> None:
    inputs, most = family.picture_inputs, max((len(files) for files in conditioning), default=0)
    if inputs.repaints and not (conditioning and masks and all(len(files) == 1 for files in conditioning)):
        raise ConfigError(
            f"The model {family.variant} repaints pictures, so each prompt needs one picture and one mask.",
            got=f"{keys[0]} with {most} pictures for a prompt, {keys[1]} with {len(masks)} masks in all",
            fix=f"give one picture and one mask for each prompt with {keys[0]} and {keys[1]}",
        )
    if masks and not inputs.repaints:
        raise ConfigError(
            f"The model {family.variant} does not repaint, so a mask has no effect.", got=keys[1], fix=f"remove {keys[1]}"
        )
    if not inputs.repaints and most > inputs.max_references:
        raise ConfigError(
            f"The model {family.variant} takes {'no' if inputs.max_references == 0 else f'at most {inputs.max_references}'} references.",
            got=f"{keys[0]} with {most} pictures for a prompt",
            fix=f"remove {keys[0]}" if inputs.max_references == 0 else "give fewer",
        )
