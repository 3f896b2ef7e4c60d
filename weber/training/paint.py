"""Pictures from what a run has learned: what `weber sample` does."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from weber.cache.encode import Encoders
from weber.cache.latents import encode_latents
from weber.cache.store import Store
from weber.cache.text import encode_texts
from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.families.family import Family
from weber.families.table import build_family
from weber.kinds.table import KINDS
from weber.kinds.text import build_text_put
from weber.memory.device import build_device, build_dtype
from weber.planning.assistant import load_frozen
from weber.planning.checks import check_negative, check_sample_guidance, check_sample_size, sample_size
from weber.planning.encoders import build_encoders
from weber.planning.prompts import Prompt, build_prompts
from weber.results.files import read_model_facts
from weber.results.runs import Saved, find_run
from weber.track.progress import Watcher
from weber.training.batch import Reader
from weber.training.network import build_put, load_network
from weber.training.pictures import Look, build_paintings, build_reference_t, paint_all


@dataclass(frozen=True)
class Wish:
    """What a person asks of a trained model; what is left out comes from the run's own settings."""

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


def sample(run: Path, wish: Wish, *, watcher: Watcher) -> list[Image.Image]:
    """One picture per prompt. `run` is a run folder, one of its checkpoints, or an adapter file or a model in either.

    Raises CheckpointError where nothing was saved yet; ConfigError for a wish that cannot be.
    """
    return sample_saved(find_run(run), wish, watcher=watcher)


def sample_saved(saved: Saved, wish: Wish, *, watcher: Watcher) -> list[Image.Image]:
    """One picture per prompt, with what a run has saved."""
    config, kind = saved.config, KINDS[saved.config.adapter.kind]
    family = build_family(config.model, hides_padding=config.objective.text_mask)
    _check_wish(wish, family)
    if wish.strength != 1 and not kind.is_adapter:
        raise ConfigError(
            "The run has trained the model itself, so there is no adapter that could be weaker or stronger.",
            got=f"--strength {wish.strength:g}",
            fix="remove --strength; for less of what it has learned take a LoRA out of it (`weber extract`) and paint with that",
        )
    look = _build_look(config, wish, family)
    prompts = build_prompts(
        wish.prompts,
        family,
        size=look.size,
        conditioning=[wish.conditioning] * len(wish.prompts) if wish.conditioning else [],
        masks=[wish.mask] * len(wish.prompts) if wish.mask is not None else [],
        keys=("--conditioning", "--mask"),
    )
    watcher.write(f"Painting with {describe_saved(saved)}.")
    device = build_device(config.memory)
    dtype = build_dtype(config.memory, device)
    trained = kind.choose(config, family, skeleton=family.load_skeleton(), dtype=dtype)
    put = kind.read(saved, family, trained=trained)
    frozen = load_frozen(config.model, family, in_pictures=True)
    with watcher.shown():
        encoders = build_encoders(family, config.memory, device=device, dtype=dtype)
        reader = _encode(config, encoders, prompts=prompts, look=look, watcher=watcher)
        network = load_network(
            family,
            config.memory,
            device=device,
            dtype=dtype,
            trained=trained.shapes,
            put=build_text_put(build_put(put, frozen), config, encoders=encoders),
            cache=config.output.cache,
            progress=watcher.report,
        )
        with nullcontext() if network.swap is None else closing(network.swap):
            return paint_all(
                encoders,
                network.predictor,
                paintings=build_paintings(
                    family, prompts, reader=reader, look=look, seed=config.sampling.seed if wish.seed is None else wish.seed
                ),
                kind=kind,
                num_steps=wish.steps or config.sampling.steps or family.sample_defaults.steps,
                strength=wish.strength,
                frozen=frozen,
                progress=watcher.report,
            )


def _encode(config: RunConfig, encoders: Encoders, *, prompts: Sequence[Prompt], look: Look, watcher: Watcher) -> Reader:
    """Fill the run's cache with what the prompts need."""
    store = Store(config.output.cache)
    texts = [prompt.text for prompt in prompts] + ([] if look.cfg == 1 else [look.negative or ""])
    views = [view for prompt in prompts for view in prompt.views]
    size = config.memory.encode_batch_size
    encode_latents(store, views, encoders=encoders, batch_size=size, progress=watcher.report)
    encode_texts(store, texts, encoders=encoders, batch_size=size, progress=watcher.report)
    return Reader(store, encoders)


def _build_look(config: RunConfig, wish: Wish, family: Family) -> Look:
    """What was wished, else what the run says, else what the model was made for."""
    sampling, defaults = config.sampling, family.sample_defaults
    cfg = next(one for one in (wish.cfg, sampling.cfg, defaults.cfg) if one is not None)
    check_negative(wish.negative, cfg, family=family, key="--negative")
    return Look(
        size=_choose_size(config, wish, family),
        guidance=next((one for one in (wish.guidance, sampling.guidance, defaults.guidance) if one is not None), None),
        cfg=cfg,
        negative=sampling.negative_prompt if wish.negative is None else wish.negative,
        reference_t=build_reference_t(config.objective),
    )


def describe_saved(saved: Saved) -> str:
    """Which files paint, and the step that they are of."""
    step = saved.home.step if saved.home.step is not None else read_model_facts(saved.path).get("steps")
    mean = "" if saved.ema is None else f" and {saved.ema.name}"
    return f"{saved.path}{mean}" + ("" if step is None else f" of step {step}")


def build_file_name(wish: Wish, number: int, *, ending: str = "") -> str:
    """Name of a picture: its prompt, and what else it depends on. `ending`: the step, where it is not the finished result."""
    slug = re.sub(r"[^a-z0-9]+", "-", wish.prompts[number].lower()).strip("-")[:60] or "picture"
    seed = "" if wish.seed is None else f"-seed{wish.seed}"
    return f"{number:02d}-{slug}-strength{wish.strength:g}{seed}{ending}.png"


def read_size(text: str | None) -> tuple[int | None, int | None]:
    """(width, height) of `1024x768`; nothing of nothing. Raises ConfigError for other text."""
    if text is None:
        return None, None
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if match is None:
        raise ConfigError("The size is not understood.", got=f"--size {text}", expected="WIDTHxHEIGHT in pixels", fix="try --size 1024x768")
    return int(match[1]), int(match[2])


def _check_wish(wish: Wish, family: Family) -> None:
    if not wish.prompts:
        raise ConfigError("There is nothing to paint.", got="no prompt", fix="add --prompt 'a red apple'")
    if wish.steps is not None and wish.steps < 1:
        raise ConfigError("A picture needs at least one step.", got=f"--steps {wish.steps}", fix="leave it out, or give 1 or more")
    if wish.seed is not None and not 0 <= wish.seed < 2**62:
        raise ConfigError("There is no such seed.", got=f"--seed {wish.seed}", expected="0 or more, below 2**62", fix="choose another")
    if not math.isfinite(wish.strength):
        raise ConfigError("The strength is not a number.", got=f"--strength {wish.strength}", fix="1.0 is as trained, 0.0 is off")
    if wish.guidance is not None:
        check_sample_guidance(wish.guidance, family, key="--guidance")
    if wish.cfg is not None and not 1 <= wish.cfg < math.inf:
        raise ConfigError("Classifier-free guidance is 1 (off) or more.", got=f"--cfg {wish.cfg}", fix="try --cfg 3.5")


def _choose_size(config: RunConfig, wish: Wish, family: Family) -> tuple[int, int]:
    height, width = sample_size(config, family.alignment_pixels)
    size = (height if wish.height is None else wish.height, width if wish.width is None else wish.width)
    check_sample_size(size, family, key="--size")
    return size
