"""Validation pictures: one PNG per prompt, and a contact sheet: the base model's picture, one from halfway, today's."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import groupby
from pathlib import Path

import torch
from PIL import Image

from weber.cache.encode import Encoders
from weber.families.family import Family, Predictor
from weber.kinds.kind import Strong
from weber.kinds.text import find_text
from weber.memory.swap import BlockSwap
from weber.optim.ema import Ema
from weber.optim.states import Named
from weber.planning.assistant import Frozen, write_frozen_strengths
from weber.planning.checks import sample_size
from weber.planning.plan import Plan
from weber.planning.prompts import Prompt
from weber.progress import Progress
from weber.results.runs import MODEL_NAME, SUFFIX, build_adapter_name, build_mean_path
from weber.sampling.euler import Painting
from weber.sampling.grid import build_given, build_sheet
from weber.sampling.stamp import build_texts
from weber.sampling.validate import decode_pictures, predict_paintings, save_picture
from weber.training.batch import Reader
from weber.training.look import Look, build_paintings, build_reference_t
from weber.training.made import Maker
from weber.training.mean import averaged
from weber.training.previews import Previews
from weber.training.sibling import open_painting

_PRECISIONS = {"quantize", "quantize_text_encoder", "quantize_text_encoder_2", "modulation", "int8_matmul", "vae_tiling"}
"""Settings of memory on which pictures depend."""

_EMPTY = {"sizes", "seeds", "strengths", "from_data", "no_cfg_until", "model"}
"""Settings that change nothing while they are empty."""

_JUDGING = ("preview_every", "preview_model", "clip_model", "likeness_model")
"""Settings that only look at pictures."""

_NOTE = "settings.json"
FOLDER = "pictures"
"""Subfolder of a run for what it paints on the way."""
_STEP = re.compile(r"step-(\d{6,})(?:\.png)?")


class Painter:
    """Paints the prompts of a run, with the trained weights or their running mean, as the settings say.

    The decoder is in memory only while it is needed.
    """

    def __init__(
        self,
        plan: Plan,
        predictor: Predictor,
        *,
        reader: Reader,
        previews: Previews,
        ema: Ema | None = None,
        swap: BlockSwap | None = None,
        attention: str | None = None,
        learned: Named = (),
    ) -> None:
        self.plan, self.predictor, self.swap, self.folder = plan, predictor, swap, plan.resolved.output.folder / FOLDER
        self.attention, self.learned, self.previews = attention, learned, previews
        self.ema = ema if plan.resolved.sampling.weights == "ema" else None
        config = plan.resolved.sampling
        self.num_steps = config.steps or plan.painted.sample_defaults.steps
        self.look = Look(
            size=sample_size(plan.resolved, plan.family.alignment_pixels),
            guidance=config.guidance,
            cfg=1.0 if config.cfg is None else config.cfg,
            negative=config.negative_prompt,
            reference_t=build_reference_t(plan.resolved.objective),
            no_cfg_until=config.no_cfg_until,
        )
        self.paintings = build_paintings(plan.painted, plan.prompts, reader=reader, look=self.look, seed=config.first_seed)
        self.maker = _build_maker(plan, is_mean=self.ema is not None)

    def paint(self, step: int, progress: Progress) -> Path | None:
        """Paint all prompts after `step` finished steps, unless that was done; returns the sheet, if there are prompts."""
        if not self.paintings:
            return None
        sheet = self.folder / f"step-{step:06d}.png"
        if sheet.is_file():
            return sheet
        sampling = self.plan.resolved.sampling
        if sampling.at_start and self.plan.kind.is_adapter and not self._has(0):
            self._paint(0, progress, strength=0.0)
        if step > 0 or not self.plan.kind.is_adapter:
            self._paint(step, progress, strength=1.0)
        columns = self._choose_columns(step)
        prompts, files = self.plan.prompts, self.plan.dataset.files
        given, learned = max(len(one.views) for one in prompts), int(sampling.from_data > 0)
        shown = [
            build_given(one.views, one.choose_size(self.look.size), num=given, files=files)
            + build_given(filter(None, [one.learned]), one.choose_size(self.look.size), num=learned, files=files)
            for one in prompts
        ]
        rows = [
            (prompt.caption, pictures + [self._read(column, number) for column in columns])
            for number, (prompt, pictures) in enumerate(zip(self.plan.prompts, shown, strict=True))
        ]
        titles = ["given"] * given + ["training picture"] * learned + [f"step {column}" if column else "base model" for column in columns]
        save_picture(build_sheet(titles, rows), sheet)
        return sheet

    def list_painted(self, step: int) -> dict[Path, str]:
        """The pictures of a step that are there, each with its prompt, and with the way in which it is painted where there are several."""
        files = zip(self._files(step), self.plan.prompts, strict=True)
        return {file: replace(prompt, name=None).caption for file, prompt in files if file.is_file()} if self.paintings else {}

    def find_last_sheet(self) -> Path | None:
        """The sheet of the latest step that was painted, if there is one."""
        sheets = [path for path in self.folder.glob("step-*.png") if _STEP.fullmatch(path.name)]
        return max(sheets, key=lambda path: int(path.stem.removeprefix("step-")), default=None) if self.paintings else None

    @property
    def lacks_base(self) -> bool:
        """Whether sheets are without the base model's pictures, which is there no longer once it has been trained itself."""
        is_wished = bool(self.paintings) and self.plan.resolved.sampling.at_start
        return is_wished and not self.plan.kind.is_adapter and not (self._is_ours() and self._has(0))

    def _read(self, step: int, number: int) -> Image.Image:
        return Image.open(self._files(step)[number]).convert("RGB")

    def _choose_columns(self, step: int) -> list[int]:
        """Before, halfway, now: the base model, the painted step nearest to half of this one, and this one."""
        painted = [int(folder.name.removeprefix("step-")) for folder in sorted(self.folder.glob("step-" + 6 * "[0-9]"))]
        between = [one for one in painted if 0 < one < step and self._has(one)]
        halfway = sorted(between, key=lambda one: abs(2 * one - step))[:1]
        return sorted({*([0] if self._has(0) else []), *halfway, step})

    def put_away_others(self) -> Path | None:
        """Pictures of other prompts or settings go to `pictures-1`, `pictures-2`, ...: a sheet never shows them as its own; returns where.

        Called before the first picture is painted.
        """
        if not self.paintings or self._is_ours():
            return None
        away = None
        if self.folder.exists():
            away = _find_away(self.folder)
            self.folder.replace(away)
        self.folder.mkdir(parents=True)
        (self.folder / _NOTE).write_text(self._build_note(), encoding="utf-8")
        return away

    def _is_ours(self) -> bool:
        note = self.folder / _NOTE
        return note.is_file() and note.read_text(encoding="utf-8") == self._build_note()

    def _build_note(self) -> str:
        return json.dumps(self._describe(), indent=1) + "\n"

    def _describe(self) -> dict[str, object]:
        """Everything that the pictures depend on beside the adapter."""
        resolved, attention = self.plan.resolved, self.plan.resolved.sampling.attention
        idle = {"every", "library", "at_start", "at_end", *_JUDGING} | ({"attention"} if attention == "same" else set())
        said = resolved.sampling.model_dump(mode="json", exclude=idle)
        others = [one for one in self.plan.prompts if one.name is not None or one.learned is not None]
        library = {prompt.file: [prompt.text, asdict(prompt.own)] for prompt in others}
        return {
            "sampling": {name: value for name, value in said.items() if value or name not in _EMPTY},
            **({"library": library} if library else {}),
            "pictures": [[f"{view.content} {view.describe()}" for view in prompt.views] for prompt in self.plan.prompts],
            "reference_timestep": resolved.objective.reference_timestep,
            "text_mask": resolved.objective.text_mask,
            "memory": resolved.memory.model_dump(mode="json", include=_PRECISIONS),
            **({"fp8_matmul": True} if resolved.memory.fp8_matmul else {}),
            "assistant": [resolved.model.assistant, resolved.model.assistant_sample_strength],
            **({"adapters": [[one.path, one.sample_strength] for one in resolved.model.adapters]} if resolved.model.adapters else {}),
        }

    def _has(self, step: int) -> bool:
        return all(file.is_file() for file in self._files(step))

    def _files(self, step: int) -> list[Path]:
        return [self.folder / f"step-{step:06d}" / f"{prompt.file}.png" for prompt in self.plan.prompts]

    def _paint(self, step: int, progress: Progress, *, strength: float) -> None:
        places = find_alike(self.plan.prompts) if strength == 0 else list(range(len(self.paintings)))
        needed, prompts = sorted(set(places)), self.plan.prompts
        opened = open_painting(self.plan, self.predictor, learned=self.learned, progress=progress)
        with averaged(self.ema, self.swap), opened as predictor, _attending(predictor, self.attention):
            found = paint_all(
                replace(self.plan.encoders, family=self.plan.painted),
                predictor,
                paintings=[self.previews.watch(self.paintings[place], prompts[place].text, step=step) for place in needed],
                kind=self.plan.kind,
                num_steps=self.num_steps,
                strength=strength,
                frozen=self.plan.frozen,
                progress=progress,
            )
        painted = dict(zip(needed, found, strict=True))
        pictures = [painted[place].copy() for place in places]
        maker = self.maker.of_step(step, has_learned=step > 0)
        for prompt, painting, picture, file in zip(self.plan.prompts, self.paintings, pictures, self._files(step), strict=True):
            made = maker.describe(prompt, painting, look=self.look, num_steps=self.num_steps, strength=strength)
            picture.info.update(build_texts(made, self.plan.painted))
            save_picture(picture, file)


def find_alike(prompts: Sequence[Prompt]) -> list[int]:
    """For each the place of the first one that differs in its strength alone: without the adapter they are one picture."""
    places: dict[Prompt, int] = {}
    bare = [replace(one, own=replace(one.own, strength=None), name=None, stem="", ways=(), learned=None) for one in prompts]
    return [places.setdefault(one, place) for place, one in enumerate(bare)]


def _build_maker(plan: Plan, *, is_mean: bool) -> Maker:
    """What a run paints with on the way; files are called as the finished ones."""
    config = plan.resolved
    name = build_adapter_name(config) if plan.kind.is_adapter else f"{config.output.name}{SUFFIX}" if config.output.name else MODEL_NAME
    file = build_mean_path(Path(name)).name if is_mean else name
    return Maker(
        plan.painted,
        adapter=file if plan.kind.is_adapter else None,
        transformer=None if plan.kind.is_adapter else file,
        has_text=config.adapter.text_encoder,
        frozen=plan.frozen,
    )


@contextmanager
def _attending(predictor: Predictor, backend: str | None) -> Iterator[None]:
    """While this is open, another backend attends."""
    before, predictor.attention = predictor.attention, backend
    try:
        yield
    finally:
        predictor.attention = before


def put_later_away(run_folder: Path, *, step: int) -> Path | None:
    """Move the pictures of later steps, which are no longer those of the run, to `pictures-1`, `pictures-2`, ...; returns where."""
    folder = run_folder / FOLDER
    later = [path for path in sorted(folder.glob("step-*")) if (match := _STEP.fullmatch(path.name)) and int(match[1]) > step]
    if not later:
        return None
    away = _find_away(folder)
    away.mkdir()
    for path in later:
        path.replace(away / path.name)
    return away


def _find_away(folder: Path) -> Path:
    number = 1
    while (away := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    return away


def paint_all(
    encoders: Encoders,
    predictor: Predictor,
    *,
    paintings: Sequence[Painting],
    kind: Strong | None,
    num_steps: int,
    strength: float,
    progress: Progress,
    frozen: Sequence[Frozen] = (),
) -> list[Image.Image]:
    """Pictures of all paintings with what is trained at `strength`, times that of each; the network is left as it was found, in training
    mode or not.

    `kind`: that of what is trained; None where nothing is. `frozen`: adapters that have another strength in pictures.
    """
    family, transformer = encoders.family, predictor.transformer
    was_training = transformer.training
    transformer.eval()
    write_frozen_strengths(transformer, frozen, in_pictures=True)
    text, latents, done = find_text(family, transformer), [], 0
    total = sum(one.steps or num_steps for one in paintings)
    try:
        for (factor, steps), some in groupby(paintings, key=lambda one: (one.strength, one.steps or num_steps)):
            if kind is not None:
                kind.write_strength(transformer, strength * factor)
            group = list(some)
            latents += predict_paintings(
                predictor,
                group if text is None else [text.build_anew(one) for one in group],
                sigmas=partial(_list_sigmas, family, steps),
                device=encoders.device,
                progress=partial(_report_part, progress, done, total),
            )
            done += steps * len(group)
    finally:
        if kind is not None:
            kind.write_strength(transformer, 1.0)
        write_frozen_strengths(transformer, frozen, in_pictures=False)
        transformer.train(was_training)
    decoder = encoders.load(family.image_part)
    pictures = decode_pictures(partial(family.decode_latents, decoder), latents)
    del decoder
    gc.collect()
    if encoders.device.type == "cuda":
        torch.cuda.empty_cache()
    return pictures


def _list_sigmas(family: Family, num_steps: int, shape: tuple[int, int, int]) -> list[float]:
    return family.sigmas(num_steps, family.num_tokens(*shape[1:]))


def _report_part(progress: Progress, before: int, whole: int, what: str, done: int, total: int) -> None:
    """Of one group of pictures, said of them all."""
    progress(what, before + done, whole)
