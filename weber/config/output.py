"""`[output]` and `[sampling]`: what a run leaves behind, and the pictures it paints on the way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from weber.config.every import Every
from weber.config.resolutions import PictureSize, read_rectangle
from weber.config.section import FolderPath, PathText, Section
from weber.config.several import refuse_beside, refuse_twice
from weber.config.webhooks import WebhookConfig

_FORBIDDEN = '<>:"/\\|?*'
_ENDING = ".safetensors"


def _check_name(name: str) -> str:
    if name.endswith(_ENDING):
        raise ValueError(f'the ending {_ENDING} is added to it; write name = "{name.removesuffix(_ENDING)}"')
    if name != name.strip(". ") or any(one in _FORBIDDEN or ord(one) < 32 for one in name):
        raise ValueError("it is the name of files, not a path; write letters, digits, - and _, and set output.folder for the folder")
    return name


TrackerName = Literal["tensorboard", "trackio", "wandb"]
TextCache = Literal["full", "projected", "fp8", "live"]
_FIRST_SEED = 42
PaintingAttention = Literal["same", "flash", "flash3", "cudnn", "efficient", "sage"]

class OutputConfig(Section):
    """What a run leaves behind, and where."""

    folder: FolderPath = Path("runs/lora")
    """The run folder: resolved config, checkpoints, metrics, pictures, the finished adapter."""

    name: Annotated[str, AfterValidator(_check_name)] | None = None
    """Name of the finished files, without an ending. Left out: `adapter`; `transformer` and `model` of a model that was trained itself."""

    cache: FolderPath = Path("cache")
    """Folder of encoded tensors. Its keys are made of content, so any number of runs may share it."""

    text_cache: TextCache = "full"
    """How the texts of captions are kept. `full`: as their encoder made them, 4 to 16 MiB a caption; `projected`: after the network's own
    first layer, which must not be trained, with the same results in 40 to 75 % of that; `fp8`: in 8 bits with a scale for each token, half
    of that, each number with an error of up to 1/16; `live`: not at all, the text encoders stay in memory and encode in each step. A
    million captions fill a disk: `weber plan` says how much each takes."""

    save_every: Every = 250
    """Steps between checkpoints, or epochs: `"2 epochs"`; one is always written at the end."""

    keep_last: Annotated[int, Field(ge=1)] | Literal["all"] = 2
    """How many checkpoints are kept. Older ones are deleted when a new one is whole and the step after it has shown that it is good."""

    keep_every: Every | None = None
    """Steps, or epochs, between checkpoints that are kept for good, beside the last ones. Left out: none."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the finished adapter files, in every layout; their headers say it. Checkpoints are fp32 in any case. Merged models are
    in the precision of the base's files."""

    formats: list[Literal["diffusers", "kohya", "comfyui", "merged-diffusers", "merged-bfl"]] = ["diffusers"]
    """Layouts of the finished adapter. `diffusers` is always written (`adapter.safetensors`); `kohya` and `comfyui` are further files
    beside it; `merged-diffusers` and `merged-bfl` are whole models with the adapter in their weights. With `adapter.kind = "full"` the
    result is a whole model: `merged-diffusers` (a folder `transformer`), `merged-bfl` (one file) or both; left out: the folder."""

    trackers: list[TrackerName] = []
    """Who else is told the numbers and pictures of the run, beside `metrics.jsonl`, each an extra of its name
    (`pip install 'weber[wandb]'`). `tensorboard`: events in the run folder; `wandb`: Weights & Biases, with the login that is there, or
    with WANDB_MODE=offline in the run folder; `trackio`: on this machine, or where TRACKIO_SERVER_URL or TRACKIO_SPACE_ID say."""

    project: str | None = None
    """Project of the run at wandb and trackio. Left out: `weber`."""

    run_name: str | None = None
    """Name of the run at wandb and trackio. Left out: that of the run folder."""

    webhooks: list[WebhookConfig] = []
    """Addresses that are told how the run goes, each under its own `[[output.webhooks]]`."""

    @model_validator(mode="after")
    def _refuse_unused(self) -> OutputConfig:
        if self.keep_last == "all" and self.keep_every is not None:
            raise ValueError('keep_every has no effect with keep_last = "all", which keeps every checkpoint; remove one of them')
        twice = next((one for one in self.trackers if self.trackers.count(one) > 1), None)
        if twice is not None:
            raise ValueError(f'trackers has "{twice}" twice; name each once')
        idle = "project" if self.project is not None else "run_name" if self.run_name is not None else None
        if idle is not None and not {"wandb", "trackio"} & set(self.trackers):
            raise ValueError(f'{idle} has no effect without trackers = ["wandb"] or ["trackio"]; set one of them or remove {idle}')
        return self


class SamplingConfig(Section):
    """Pictures painted at the start, every `every` steps, and at the end."""

    prompts: list[str] = []
    """One picture each, on a contact sheet beside the base model's picture. Empty, without a `library` and `from_data`: no pictures."""

    library: FolderPath | None = None
    """A JSON or TOML file of further prompts: a nickname for each, and behind it the prompt, or a table with `prompt` and any of
    `negative_prompt`, `seed`, `seeds`, `width`, `height`, `sizes`, `steps`, `guidance`, `cfg` and `strength`. The nickname is the name of
    the picture's file. Left out: none."""

    from_data: Annotated[int, Field(ge=0)] = 0
    """So many pictures after those that are learned: with the caption, the references and the mask of the first pictures of the sets, a
    set after the other, each at the size at which it is learned. Sheets show the training picture beside them."""

    model: PathText | None = None
    """The model that paints in the place of the one that is trained on, such as the distilled one that was made from it: a variant, a
    folder, a hub id or a file, of the same layers. It is read for each sheet, beside the network that is trained, and freed; adapters
    only. Steps, guidance and `cfg` that are left out are its own. Left out: the model of the run."""

    every: Every = 250
    """Steps between pictures, or epochs: `"2 epochs"`."""

    at_start: bool = True
    """Paint before the first step too: pictures of the base model, which sheets of an adapter show beside later ones."""

    at_end: bool = True
    """Paint after the last step too."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Sampling steps. Left out: the variant's own (28 for most, 4 for a distilled one)."""

    guidance: Annotated[float, Field(ge=0)] | None = None
    """Guidance in sampling. Left out: the variant's own (3.5 for most); refused for a model without a guidance input."""

    cfg: Annotated[float, Field(ge=1)] | None = None
    """Scale of classifier-free guidance: each step asks the model twice, with the prompt and with the negative prompt. 1: once.
    Left out: the variant's own (1 for most; 4 to 6 for models that are not distilled)."""

    no_cfg_until: Annotated[int, Field(ge=0)] = 0
    """The first so many steps of the sampler are without classifier-free guidance, which takes half of their time. Refused where `cfg` is
    1 for every picture, and where no step would be left for it."""

    negative_prompt: str | None = None
    """What classifier-free guidance leads away from. Left out: the empty prompt. Refused where `cfg` is 1."""

    conditioning: list[FolderPath | list[FolderPath]] = []
    """Reference pictures: a file, or a list of files, for each prompt. For a model that repaints: the pictures to be repainted."""

    masks: list[FolderPath] = []
    """For a model that repaints: a mask file for each prompt, white where the picture is painted anew."""

    strengths: list[float] = []
    """Strengths of the adapter: each prompt is painted at each of them; 1 is as trained. Left out: 1. Adapters only."""

    weights: Literal["trained", "ema"] = "trained"
    """Which weights paint: those that are trained, or their running mean (`optim.ema_decay`)."""

    attention: PaintingAttention = "same"
    """What computes attention while pictures are painted. `same`: as `memory.attention`; `sage`: SageAttention, in 8 bits, where its
    package is installed: faster, slightly other pictures, and only here, because it has no backward pass."""

    width: Annotated[int, Field(ge=16)] | None = None
    """Width in pixels. Left out: the edge of the first set's resolution."""

    height: Annotated[int, Field(ge=16)] | None = None
    """Height in pixels. Left out: the edge of the first set's resolution."""

    sizes: list[PictureSize] = []
    """Several sizes, such as `["1024x1024", "1280x768"]`: each prompt is painted in each, and names of files and sheets say which. In the
    place of `width` and `height`."""

    seed: Annotated[int, Field(ge=0, lt=2**62)] = _FIRST_SEED
    """Seed of the first picture's noise; each further prompt adds 1."""

    seeds: list[Annotated[int, Field(ge=0, lt=2**62)]] = []
    """Several seeds: each prompt is painted with each of them. In the place of `seed`."""

    preview_every: Annotated[int, Field(ge=1)] | None = None
    """Sampling steps between previews of the picture that is being painted: `preview.webp` in the run folder, and to webhooks that want
    to hear of it. Left out: none."""

    preview_model: PathText | None = None
    """What makes previews: a tiny decoder, as a file, a folder or a hub id: `madebyollin/taef1` for models of 16 latent channels,
    `madebyollin/taef2` for those of 32. Left out: colors that are fitted to the training pictures, which is blurred and needs nothing."""

    clip_model: PathText | None = None
    """A CLIP, as a folder or a hub id, that scores how well painted pictures fit their prompts: 100 x the cosine of both. It runs on the
    processor and is freed after each sheet. Left out: no such score."""

    likeness_model: Literal["vae"] | PathText | None = None
    """What compares painted pictures with those that are learned, and warns of copies: `vae`, the model's own autoencoder, or a CLIP or
    DINOv2 as a folder or a hub id. Left out: nothing is compared."""

    @property
    def first_seed(self) -> int:
        """Seed of the first picture."""
        return self.seeds[0] if self.seeds else self.seed

    @property
    def rectangles(self) -> list[tuple[int, int]]:
        """(width, height) of `sizes`."""
        return [size for one in self.sizes if (size := read_rectangle(one)) is not None]

    @property
    def paints(self) -> bool:
        """Whether there is anything to be painted."""
        return bool(self.prompts) or self.library is not None or self.from_data > 0

    @field_validator("prompts")
    @classmethod
    def _refuse_files(cls, value: list[str]) -> list[str]:
        files = [prompt for prompt in value if re.fullmatch(r"\S+\.(txt|jsonl?|toml|csv|ya?ml)", prompt.strip())]
        if files:
            raise ValueError(
                f'"{files[0]}" is the name of a file, and none is read there; write the texts, prompts = ["a cat", "a dog"], or set'
                " sampling.library to a .json or .toml file"
            )
        return value

    @field_validator("sizes", "seeds", "strengths")
    @classmethod
    def _refuse_twice(cls, value: list[Any]) -> list[Any]:
        return refuse_twice(value)

    @model_validator(mode="after")
    def _refuse_unused(self) -> SamplingConfig:
        changed = sorted(self.model_dump(exclude_defaults=True))
        if changed and not self.paints:
            raise ValueError(f"{', '.join(changed)} cannot take effect without prompts; set sampling.prompts or remove it")
        if self.preview_model is not None and self.preview_every is None:
            raise ValueError("preview_model has no effect without preview_every; set preview_every = 5 or so, or remove it")
        refuse_beside("sizes", self.sizes, single={"width": self.width, "height": self.height})
        refuse_beside("seeds", self.seeds, single={"seed": None if self.seed == _FIRST_SEED else self.seed})
        for key, value in (("conditioning", self.conditioning), ("masks", self.masks)):
            if value and len(value) != len(self.prompts):
                raise ValueError(f"{key} has {len(value)} entries for {len(self.prompts)} prompts; give one for each prompt, in order")
        return self
