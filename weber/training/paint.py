"""Pictures from what a run has learned, from an adapter file or a model: what `weber sample` does."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from PIL import Image

from weber.adapters.blocks import read_strengths
from weber.cache.latents import encode_latents
from weber.cache.store import Store
from weber.cache.text import encode_texts
from weber.config.library import LibraryPrompt, read_library
from weber.config.output import PaintingAttention
from weber.errors import ConfigError
from weber.kernels.trial import Choice
from weber.kinds.kind import Strong
from weber.kinds.strengths import WithStrengths
from weber.kinds.text import build_text_put
from weber.memory.device import build_device, build_dtype
from weber.planning.attention import TRAINING, WISHED, build_use, choose_painting
from weber.planning.checks import check_negative, check_sample_guidance, check_sample_size
from weber.planning.encoders import build_encoders, find_served
from weber.planning.library import build_library, list_pictures
from weber.planning.prompts import Own, Prompt, build_prompts, list_texts
from weber.planning.rehearsal import Sample
from weber.planning.ways import Ways
from weber.sampling.stamp import build_texts
from weber.track.progress import Watcher
from weber.training.batch import Reader
from weber.training.look import Look, build_paintings
from weber.training.made import Maker
from weber.training.network import Network, Where, build_put, load_network
from weber.training.pictures import paint_all
from weber.training.subject import Subject, find_subject


@dataclass(frozen=True)
class Wish:
    """What a person asks of a trained model; what is left out comes from the run's own settings. `num`: pictures per prompt. `library`: a
    file of further prompts, each of which may have settings of its own. `strengths`, `seeds`: every picture at each and with each of them,
    whatever a library says."""

    prompts: Sequence[str]
    strength: float = 1.0
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    width: int | None = None
    height: int | None = None
    cfg: float | None = None
    negative: str | None = None
    conditioning: Sequence[Path] = ()
    mask: Path | None = None
    num: int = 1
    attention: str | None = None
    library: Path | None = None
    no_cfg_until: int | None = None
    strengths: Sequence[float] = ()
    seeds: Sequence[int] = ()
    blocks: str | None = None

    def read_library(self) -> dict[str, LibraryPrompt]:
        """The prompts of its library by their nicknames. Raises ConfigError."""
        return {} if self.library is None else read_library(self.library, key="--library")


def sample(
    place: str | Path, wish: Wish, *, watcher: Watcher, base: str | None = None, memory: Mapping[str, object] | None = None
) -> list[Image.Image]:
    """The pictures of a wish. `place`: see `find_subject`.

    Raises CheckpointError where nothing was saved yet; ConfigError for a wish that cannot be.
    """
    with watcher.shown(), closing(Sampler(find_subject(place, base=base, memory=memory or {}), watcher=watcher)) as sampler:
        return sampler.paint(wish)


class Sampler:
    """Paints any number of times. The network is read when it is first needed, after the prompts have been encoded, and then stays."""

    def __init__(self, subject: Subject, *, watcher: Watcher) -> None:
        self.subject, self._watcher = subject, watcher
        self._own = TemporaryDirectory(prefix="weber-")  # for what belongs to no run
        self._cache = Path(self._own.name) if subject.cache is None else subject.cache
        device = build_device(subject.memory)
        dtype = build_dtype(subject.memory, device)
        served = find_served(subject.model, subject.encoding, dtype=dtype)
        self._encoders = build_encoders(subject.encoding, subject.memory, device=device, dtype=dtype, served=served)
        self._network: Network | None = None

    def paint(self, wish: Wish) -> list[Image.Image]:
        """The pictures of `paint_prompts`."""
        return [picture for _, picture in self.paint_prompts(wish)]

    def paint_prompts(self, wish: Wish) -> list[tuple[Prompt, Image.Image]]:
        """`wish.num` pictures per prompt, in the order of the prompts, then those of the library; what made each is in its `info`.

        Raises ConfigError for a wish that cannot be.
        """
        subject = self.subject
        check_wish(wish, subject)
        look = _build_look(wish, subject)
        library = self._build_library(wish, look)
        prompts = build_prompts(
            [text for text in wish.prompts for _ in range(wish.num)],
            subject.family,
            size=look.size,
            conditioning=[wish.conditioning] * len(wish.prompts) * wish.num if wish.conditioning else [],
            masks=[wish.mask] * len(wish.prompts) * wish.num if wish.mask is not None else [],
            keys=("--conditioning", "--mask"),
        )
        prompts = _spread(prompts + library, wish)
        self._watcher.write(f"Painting with {subject.name}.")
        attention = self._choose_attention(wish, prompts, look)
        self._watcher.write(f"Attention: {attention.describe()}.")
        reader = self._encode(prompts, look)
        seed = subject.sampling.first_seed if wish.seed is None else wish.seed
        predictor = self._load().predictor
        predictor.attention = attention.name
        paintings = [
            replace(one, strength=wish.strength) if prompt.own.strength is None else one
            for prompt, one in zip(prompts, build_paintings(subject.family, prompts, reader=reader, look=look, seed=seed), strict=True)
        ]
        num_steps = wish.steps or subject.sampling.steps or subject.family.sample_defaults.steps
        pictures = paint_all(
            replace(self._encoders, family=subject.family),
            predictor,
            paintings=paintings,
            kind=_build_strong(wish, subject),
            num_steps=num_steps,
            strength=1.0,
            frozen=subject.frozen,
            progress=self._watcher.report,
        )
        maker = _build_maker(subject)
        for prompt, painting, picture in zip(prompts, paintings, pictures, strict=True):
            made = replace(maker.describe(prompt, painting, look=look, num_steps=num_steps, strength=1.0), blocks=wish.blocks)
            picture.info.update(build_texts(made, subject.family))
        return list(zip(prompts, pictures, strict=True))

    def _build_library(self, wish: Wish, look: Look) -> list[Prompt]:
        """`wish.num` of each prompt of the library; where it has a seed of its own, each further one adds 1."""
        subject, entries = self.subject, wish.read_library()
        if not entries:
            return []
        is_adapter = subject.kind is not None and subject.kind.is_adapter
        where = f"--library {wish.library}"
        prompts = build_library(entries, subject.family, size=look.size, cfg=look.cfg, is_adapter=is_adapter, where=where)
        return [replace(one, own=_count_seed(one.own, number)) for some in prompts for one in some for number in range(wish.num)]

    def _choose_attention(self, wish: Wish, prompts: Sequence[Prompt], look: Look) -> Choice:
        """What was wished, else what the run says; tried at this size."""
        subject, encoders, (height, width) = self.subject, self._encoders, look.size
        sizes = {
            (*prompt.choose_size((height, width))[::-1], tuple((view.crop.width, view.crop.height) for view in prompt.references))
            for prompt in prompts
        }
        samples = [Sample(*size) for size in sizes]
        use = build_use(subject.family, device=encoders.device, dtype=encoders.dtype, samples=samples)
        name = wish.attention or subject.sampling.attention
        return choose_painting(subject.memory.attention, use, key=TRAINING) if name == "same" else choose_painting(name, use, key=WISHED)

    def close(self) -> None:
        """Give back what the network has taken."""
        if self._network is not None and self._network.swap is not None:
            self._network.swap.close()
        self._network = None
        self._own.cleanup()

    def _load(self) -> Network:
        subject, encoders = self.subject, self._encoders
        if self._network is None:
            self._network = load_network(
                subject.family,
                subject.memory,
                where=Where(encoders.device, encoders.dtype, self._cache),
                trained=subject.trained,
                put=build_text_put(build_put(subject.put, subject.frozen), encoders=encoders, learns=subject.has_text),
                progress=self._watcher.report,
            )
        return self._network

    def _encode(self, prompts: Sequence[Prompt], look: Look) -> Reader:
        """Fill the cache with what the prompts need."""
        store, size = Store(self._cache), self.subject.memory.encode_batch_size
        texts = list_texts(prompts, negative=look.negative, cfg=look.cfg)
        views = list(dict.fromkeys(view for prompt in prompts for view in prompt.views))
        encode_latents(store, views, encoders=self._encoders, batch_size=size, progress=self._watcher.report)
        encode_texts(store, texts, encoders=self._encoders, batch_size=size, progress=self._watcher.report)
        return Reader(store, self._encoders)


def _build_look(wish: Wish, subject: Subject) -> Look:
    """What was wished, else what the run says, else what the model was made for."""
    sampling, defaults = subject.sampling, subject.family.sample_defaults
    cfg = next(one for one in (wish.cfg, sampling.cfg, defaults.cfg) if one is not None)
    check_negative(wish.negative, cfg, family=subject.family, key="--negative")
    height, width = subject.size
    size = (height if wish.height is None else wish.height, width if wish.width is None else wish.width)
    check_sample_size(size, subject.family, key="--size")
    return Look(
        size=size,
        guidance=next((one for one in (wish.guidance, sampling.guidance, defaults.guidance) if one is not None), None),
        cfg=cfg,
        negative=sampling.negative_prompt if wish.negative is None else wish.negative,
        reference_t=subject.reference_t,
        no_cfg_until=sampling.no_cfg_until if wish.no_cfg_until is None else wish.no_cfg_until,
    )


def build_file_names(wish: Wish, *, ending: str = "") -> list[str]:
    """Names of the pictures: the prompt or its nickname, and what else each depends on. `ending`: the step, where it is not the finished
    result."""
    slugs = [re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "picture" for text in wish.prompts]
    rows: list[tuple[str, float, int | None]] = [(slug, wish.strength, wish.seed) for slug in slugs]
    for one in (one for name, entry in wish.read_library().items() for one in list_pictures(name, entry)):
        own = one.own
        rows.append((one.file, wish.strength if own.strength is None else own.strength, wish.seed if own.seed is None else own.seed))
    ending = ("" if wish.blocks is None else "-blocks") + ending
    endings = [f"-strength{strength:g}{'' if seed is None else f'-seed{seed}'}{ending}.png" for _, strength, seed in rows]
    return [f"{number:02d}-{rows[number // wish.num][0]}{endings[number // wish.num]}" for number in range(len(rows) * wish.num)]


def _spread(prompts: Sequence[Prompt], wish: Wish) -> list[Prompt]:
    """Each at all of `wish.strengths` and with all of `wish.seeds`, where there are such."""
    ways = Ways(seeds=wish.seeds, strengths=wish.strengths)
    bare = {**({"seed": None} if wish.seeds else {}), **({"strength": None} if wish.strengths else {})}
    return [one for prompt in prompts for one in ways.spread(replace(prompt, own=replace(prompt.own, **bare)))]


def _count_seed(own: Own, number: int) -> Own:
    return own if own.seed is None else replace(own, seed=own.seed + number)


def _build_strong(wish: Wish, subject: Subject) -> Strong | None:
    """The kind of what paints, with strengths of single blocks where these are wished. Raises ConfigError."""
    if wish.blocks is None:
        return subject.kind
    if subject.kind is None or not subject.kind.is_adapter:
        raise ConfigError("There is no adapter whose blocks could be weaker.", got=f"--blocks {wish.blocks}", fix="remove --blocks")
    return WithStrengths(subject.kind, read_strengths(wish.blocks, subject.layers, pairings=subject.family.pairings))


def _build_maker(subject: Subject) -> Maker:
    is_adapter = subject.kind is not None and subject.kind.is_adapter
    return Maker(
        subject.family,
        adapter=subject.file if is_adapter else None,
        transformer=None if is_adapter else subject.file,
        has_text=subject.has_text,
        frozen=subject.frozen,
        step=subject.step,
    )


def read_size(text: str | None) -> tuple[int | None, int | None]:
    """(width, height) of `1024x768`; nothing of nothing. Raises ConfigError for other text."""
    if text is None:
        return None, None
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if match is None:
        raise ConfigError("The size is not understood.", got=f"--size {text}", expected="WIDTHxHEIGHT in pixels", fix="try --size 1024x768")
    return int(match[1]), int(match[2])


def check_prompts(wish: Wish) -> None:
    """Refuse a wish without any prompt, and a library that cannot be read. Raises ConfigError."""
    if not wish.prompts and wish.library is None:
        raise ConfigError(
            "There is nothing to paint.", got="no prompt", fix="add --prompt 'a red apple', or a file of prompts with --library"
        )
    wish.read_library()


def check_wish(wish: Wish, subject: Subject) -> None:
    """Refuse what cannot be painted. Raises ConfigError."""
    check_prompts(wish)
    if wish.num < 1:
        raise ConfigError("There is nothing to paint.", got=f"--num {wish.num}", fix="leave it out, or give 1 or more")
    if wish.steps is not None and wish.steps < 1:
        raise ConfigError("A picture needs at least one step.", got=f"--steps {wish.steps}", fix="leave it out, or give 1 or more")
    for flag, seeds in (("--seed", [] if wish.seed is None else [wish.seed]), ("--seeds", wish.seeds)):
        wrong = next((one for one in seeds if not 0 <= one < 2**62), None)
        if wrong is not None:
            raise ConfigError("There is no such seed.", got=f"{flag} {wrong}", expected="0 or more, below 2**62", fix="choose another")
    if wish.guidance is not None:
        check_sample_guidance(wish.guidance, subject.family, key="--guidance")
    if wish.cfg is not None and not 1 <= wish.cfg < math.inf:
        raise ConfigError("Classifier-free guidance is 1 (off) or more.", got=f"--cfg {wish.cfg}", fix="try --cfg 3.5")
    _check_no_cfg(wish, subject)
    names = get_args(PaintingAttention)
    if wish.attention is not None and wish.attention not in names:
        raise ConfigError(
            "There is no such attention.",
            got=f"--attention {wish.attention}",
            expected=", ".join(names),
            fix="leave it out, or choose another",
        )
    _check_strength(wish.strength, subject)
    _build_strong(wish, subject)
    for strength in wish.strengths:
        _check_strength(strength, subject, flag="--strengths")


def _check_no_cfg(wish: Wish, subject: Subject) -> None:
    if wish.no_cfg_until is None:
        return
    sampling, defaults = subject.sampling, subject.family.sample_defaults
    scale = next(one for one in (wish.cfg, sampling.cfg, defaults.cfg) if one is not None)
    steps = wish.steps or sampling.steps or defaults.steps
    if scale == 1 and wish.library is None:
        raise ConfigError(
            "Classifier-free guidance is off, so there are no steps without it.",
            got=f"--no-cfg-until {wish.no_cfg_until}",
            fix="add --cfg 3.5, or remove --no-cfg-until",
        )
    if not 0 <= wish.no_cfg_until < steps:
        raise ConfigError(
            "No step of the sampler is left for classifier-free guidance.",
            got=f"--no-cfg-until {wish.no_cfg_until}, {steps} steps",
            expected=f"0 to {steps - 1}",
            fix="choose fewer, or add --cfg 1 for none",
        )


def _check_strength(strength: float, subject: Subject, *, flag: str = "--strength") -> None:
    if not math.isfinite(strength):
        raise ConfigError("The strength is not a number.", got=f"{flag} {strength}", fix="1.0 is as trained, 0.0 is off")
    if strength == 1 or (subject.kind is not None and subject.kind.is_adapter):
        return
    if subject.kind is None:
        raise ConfigError("A model as it is has no adapter with a strength.", got=f"{flag} {strength:g}", fix=f"remove {flag}")
    raise ConfigError(
        "The run has trained the model itself, so there is no adapter that could be weaker or stronger.",
        got=f"{flag} {strength:g}",
        fix=f"remove {flag}; for less of what it has learned take a LoRA out of it (`weber extract`) and paint with that",
    )
