"""The prompts of a library, and those of a run: what each may say of its picture, checked against the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from weber.config.library import LibraryPrompt, read_library
from weber.config.resolutions import read_rectangle
from weber.config.run import RunConfig
from weber.data.pictures import Pictures
from weber.errors import ConfigError
from weber.families.family import Family
from weber.planning.checks import check_negative, check_sample_guidance, check_sample_size, list_sample_sizes
from weber.planning.prompt_options import check_options
from weber.planning.prompts import Own, Prompt, build_prompts
from weber.planning.ways import Ways

_OF_LIBRARY = {"prompt", "sizes", "seeds"}
"""Settings of a library that are none of a single picture."""


def list_prompts(config: RunConfig, family: Family, *, is_adapter: bool, pictures: Pictures) -> list[Prompt]:
    """What a run paints, picture by picture: its prompts, those of its library, then those of the sets, each in all ways.

    Raises ConfigError for what cannot be, DataError for pictures.
    """
    sampling, sizes = config.sampling, list_sample_sizes(config, family.alignment_pixels)
    if sampling.strengths and not is_adapter:
        raise ConfigError(
            "There is no adapter here that could be weaker or stronger.",
            got=f"sampling.strengths = {sampling.strengths}",
            fix="remove sampling.strengths",
        )
    asked = list(_build_plain(config, family, sizes=sizes))
    if sampling.library is not None:
        entries = read_library(sampling.library, key="sampling.library")
        cfg = family.sample_defaults.cfg if sampling.cfg is None else sampling.cfg
        where = f"sampling.library = {str(sampling.library)!r}"
        library = build_library(entries, family, size=sizes[0], cfg=cfg, is_adapter=is_adapter, where=where)
        asked += [[one for picture in some for one in Ways(sizes).spread(picture)] for some in library]
    asked += [[prompt] for prompt in _build_learned(pictures, sampling.from_data)]
    spread = []
    for number, some in enumerate(asked):
        ways = Ways(seeds=sampling.seeds or [sampling.seed + number], strengths=sampling.strengths)
        spread += [one for picture in some for one in ways.spread(picture)]
    _check_files(spread, sampling.library)
    _check_no_cfg(config, family, pictures=spread)
    return spread


def _build_plain(config: RunConfig, family: Family, *, sizes: Sequence[tuple[int, int]]) -> Iterator[list[Prompt]]:
    """The pictures of each of `sampling.prompts`. What is repainted is cut to each of the sizes."""
    sampling = config.sampling
    cut = {
        size: build_prompts(
            sampling.prompts,
            family,
            size=size,
            conditioning=[[one] if isinstance(one, Path) else one for one in sampling.conditioning],
            masks=sampling.masks,
            keys=("sampling.conditioning", "sampling.masks"),
        )
        for size in (sizes if family.picture_inputs.repaints else sizes[:1])
    }
    for number, prompt in enumerate(cut[sizes[0]]):
        spread = Ways(sizes).spread(replace(prompt, stem=build_number_name(number)))
        yield [replace(one, masked=cut.get(one.choose_size(sizes[0]), cut[sizes[0]])[number].masked) for one in spread]


def _build_learned(pictures: Pictures, num: int) -> list[Prompt]:
    """As many pictures of the sets as prompts: the first of each set, then the second, each file once. Raises ConfigError."""
    parts = [part for part in pictures.parts if not part.shared.is_regularization] if num else []
    places = ((part, place) for place in range(max(map(len, parts), default=0)) for part in parts if place < len(part))
    found: dict[Path, Prompt] = {}
    while len(found) < num and (chosen := next(places, None)) is not None:
        part, place = chosen
        example = part.build(place)
        own = Own(width=example.bucket.width, height=example.bucket.height)
        references = () if example.masks else example.list_references(0)
        prompt = Prompt(example.list_captions()[0], references, example.masked(0, 0), own=own, learned=example.target(0))
        found.setdefault(example.path, replace(prompt, stem=f"data-{build_number_name(len(found))}"))
    if len(found) < num:
        raise ConfigError(
            "There are fewer pictures that are learned.",
            got=f"sampling.from_data = {num}, {len(found)} pictures",
            fix=f"set sampling.from_data = {len(found)}, or remove it",
        )
    return list(found.values())


def build_number_name(number: int) -> str:
    """What the picture of a prompt without a nickname is called."""
    return f"{number:02d}"


def build_library(
    entries: Mapping[str, LibraryPrompt], family: Family, *, size: tuple[int, int], cfg: float, is_adapter: bool, where: str
) -> list[list[Prompt]]:
    """The pictures of each entry; `size` (height, width) and `cfg` are those of what says nothing of them. Raises ConfigError."""
    if family.picture_inputs.repaints:
        raise ConfigError(
            f"The model {family.variant} repaints pictures, and the prompts of a library have none.",
            got=where,
            fix="write the prompts without a library, each with its picture and its mask",
        )
    listed = [list_pictures(name, one) for name, one in entries.items()]
    for prompt in (one for some in listed for one in some):
        _check_prompt(prompt, family, size=size, cfg=cfg, is_adapter=is_adapter)
    return listed


def list_pictures(name: str, entry: LibraryPrompt) -> list[Prompt]:
    """The pictures that an entry of a library asks for itself."""
    own = Own(**entry.model_dump(exclude=_OF_LIBRARY))
    sizes = [(rectangle[1], rectangle[0]) for one in entry.sizes if (rectangle := read_rectangle(one)) is not None]
    return Ways(sizes, entry.seeds).spread(Prompt(entry.prompt, name=name, own=own, stem=name))


def _check_prompt(prompt: Prompt, family: Family, *, size: tuple[int, int], cfg: float, is_adapter: bool) -> None:
    own, key = prompt.own, f"library: {prompt.name}"
    check_options([prompt.text], key=f"the prompt {prompt.name!r} of the library", is_run=True, section="")
    if own.guidance is not None:
        check_sample_guidance(own.guidance, family, key=f"{key}.guidance")
    check_negative(own.negative_prompt, cfg if own.cfg is None else own.cfg, family=family, key=f"{key}.negative_prompt")
    check_sample_size(prompt.choose_size(size), family, key=key)
    if own.strength not in (None, 1) and not is_adapter:
        raise ConfigError(
            "There is no adapter here that could be weaker or stronger.", got=f"{key}.strength = {own.strength:g}", fix="remove strength"
        )


def _check_no_cfg(config: RunConfig, family: Family, *, pictures: Sequence[Prompt]) -> None:
    """Refuse first steps without classifier-free guidance where there is none, or none afterwards."""
    sampling, defaults = config.sampling, family.sample_defaults
    cfg = defaults.cfg if sampling.cfg is None else sampling.cfg
    guided = [one for one in pictures if one.choose_negative(None, cfg) is not None]
    if sampling.no_cfg_until and not guided and pictures:
        raise ConfigError(
            "Classifier-free guidance is off, so there are no steps without it.",
            got=f"sampling.no_cfg_until = {sampling.no_cfg_until}",
            fix="set sampling.cfg to 3.5 or so, or remove sampling.no_cfg_until",
        )
    fewest = min((one.own.steps or sampling.steps or defaults.steps for one in guided), default=0)
    if sampling.no_cfg_until and fewest <= sampling.no_cfg_until:
        raise ConfigError(
            "No step of the sampler is left for classifier-free guidance.",
            got=f"sampling.no_cfg_until = {sampling.no_cfg_until}, {fewest} steps",
            fix="lower sampling.no_cfg_until, or set sampling.cfg = 1",
        )


def _check_files(pictures: Sequence[Prompt], library: Path | None) -> None:
    """Refuse two pictures of one name."""
    taken: dict[str, Prompt] = {}
    for one in pictures:
        other = taken.setdefault(one.file.lower(), one)
        if other is not one:
            name = one.name if one.name is not None else other.name
            raise ConfigError(
                "Two pictures would have the same name.",
                got=f"{one.file!r}: {other.caption[:60]!r} and {one.caption[:60]!r}",
                fix=f"rename {name!r} in {library}",
            )
