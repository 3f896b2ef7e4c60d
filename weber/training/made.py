"""What made each picture: the settings that are written into its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from weber.data.views import View
from weber.families.family import Family
from weber.families.graphs import Added, Given, Painted, build_file_name
from weber.planning.assistant import Frozen
from weber.planning.prompts import Prompt
from weber.results.runs import SUFFIX
from weber.sampling.euler import Painting
from weber.training.look import Look


@dataclass(frozen=True)
class Maker:
    """What pictures are painted with: the file of an adapter or of a model that was trained, and adapters that are frozen.

    `has_text`: CLIP is part of the adapter. `step`: of the run.
    """

    family: Family
    adapter: str | None = None
    transformer: str | None = None
    has_text: bool = False
    frozen: Sequence[Frozen] = ()
    step: int | None = None

    def describe(self, prompt: Prompt, painting: Painting, *, look: Look, num_steps: int, strength: float) -> Painted:
        """One picture. `num_steps` and `strength` hold for all that say nothing else."""
        own = look.with_own(prompt.own)
        height, width = own.size
        adapter = None if self.adapter is None else Added(self.adapter, strength * painting.strength, self.has_text)
        masked = prompt.masked
        mask = None if masked is None or masked.mask is None or masked.mask.path is None else masked.mask.path.name
        return Painted(
            variant=self.family.variant,
            prompt=prompt.text,
            seed=painting.seed,
            steps=painting.steps or num_steps,
            width=width,
            height=height,
            guidance=own.guidance,
            cfg=own.cfg,
            negative=(own.negative or "") if own.cfg != 1 else None,
            no_cfg_until=own.no_cfg_until if own.cfg != 1 and own.no_cfg_until else None,
            name=prompt.name,
            step=self.step,
            transformer=self.transformer,
            adapter=adapter,
            others=tuple(Added(_name_weights(one.place), one.sample_strength) for one in self.frozen if one.sample_strength != 0),
            references=tuple(_describe_view(view) for view in prompt.references),
            masked=None if masked is None else _describe_view(masked),
            mask=mask,
            references_are_clean=bool(prompt.references) and own.reference_t is not None,
        )

    def of_step(self, step: int, *, has_learned: bool) -> Maker:
        """The same at a step of the run; before anything was learned it is the base."""
        return replace(self, step=step, transformer=self.transformer if has_learned else None)


def _describe_view(view: View) -> Given:
    return Given(view.path.name, (view.crop.width, view.crop.height))


def _name_weights(place: str) -> str:
    """File name of an adapter, of which a setting may name the folder or the hub id."""
    name = build_file_name(place)
    return name if name.endswith(SUFFIX) else name + SUFFIX
