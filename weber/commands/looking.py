"""What `weber data check` looks at: the sets of a run, or a folder as a run of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from weber.commands.terminal import read_run
from weber.errors import ConfigError

if TYPE_CHECKING:
    from weber.config.data import DataConfig
    from weber.config.run import RunConfig
    from weber.progress import Progress
    from weber.tending.findings import Limits
    from weber.tending.looking import Seen

_ALIGNMENT_PIXELS, _NATIVE_PIXELS, _MOST_REFERENCES = 16, 1024, 10
"""Of the models that are not small."""


def look_at_place(
    place: Path, overrides: Sequence[str], *, has_thumbs: bool, progress: Progress
) -> tuple[list[Seen], Limits, dict[str, str]]:
    """The pictures, how long their captions may be, and by set the trigger that its steps add."""
    if not place.exists():
        raise ConfigError("There is nothing to check.", got=str(place), expected="a folder, or the file of a run", fix="correct the path")
    from weber.config.expand import expand_set

    if place.is_dir():
        from weber.config.load import build_config, write_overrides

        tree: dict[str, object] = {"data": [{"path": str(place)}]}
        write_overrides(tree, overrides)
        config, is_model = build_config(tree), any(one.startswith("model.") for one in overrides)
    else:
        config, is_model = read_run(place, overrides)[0], True
    sets = [one for several in config.data for one in expand_set(several)]
    triggers = {one.set_name: step.text for one in sets for step in one.caption_steps if step.kind == "trigger" and step.text is not None}
    if is_model:
        seen, limits = _look_as_run(config, is_folder=place.is_dir(), has_thumbs=has_thumbs, progress=progress)
    else:
        seen, limits = _look_alone(sets, has_thumbs=has_thumbs, progress=progress)
    return seen, limits, triggers


def _look_alone(sets: Sequence[DataConfig], *, has_thumbs: bool, progress: Progress) -> tuple[list[Seen], Limits]:
    """Without a model: pictures as those of most models are cut, and captions counted without a tokenizer."""
    from weber.data.sets import PictureLimits
    from weber.tending.caption_facts import build_least_limits
    from weber.tending.looking import Look, look_at

    fitted = [one.build_fitting(native_pixels=_NATIVE_PIXELS, alignment_pixels=_ALIGNMENT_PIXELS) for one in sets]
    with TemporaryDirectory(prefix="weber-") as folder:
        look = Look(_ALIGNMENT_PIXELS, PictureLimits(max_references=_MOST_REFERENCES), Path(folder), has_thumbs=has_thumbs)
        return look_at(fitted, look, progress=progress), build_least_limits()


def _look_as_run(config: RunConfig, *, is_folder: bool, has_thumbs: bool, progress: Progress) -> tuple[list[Seen], Limits]:
    from weber.planning.model import find_model
    from weber.planning.plan import build_limits, fit_sizes
    from weber.tending.caption_facts import build_least_limits
    from weber.tending.findings import Limits
    from weber.tending.looking import Look, look_at

    model = find_model(config, is_run=False)
    family, inputs = model.family, build_limits(model, is_here=config.model.text_encoder_url is None)
    limits = build_least_limits()
    if model.lacking is None:
        opened = {part: family.text_limits[part]() for part in family.text_parts}
        limits = Limits({part: (limit.most_tokens, limit.count) for part, limit in opened.items()})
    own = () if is_folder else (config.output.folder, config.output.cache)
    with TemporaryDirectory(prefix="weber-") as folder:
        cache = Path(folder) if is_folder else config.output.cache
        look = Look(family.alignment_pixels, inputs, cache, seed=config.train.seed, own=own, has_thumbs=has_thumbs)
        return look_at(fit_sizes(config, family).data, look, progress=progress), limits
