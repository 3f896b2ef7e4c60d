"""`[[data]]`: sets of pictures, any number at once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from weber.config.caption_places import ALWAYS_THERE, list_items, list_place_problems
from weber.config.captions import MOST_VARIANTS, CaptionStepConfig, list_step_problems
from weber.config.elsewhere import build_absolute
from weber.config.every import Every
from weber.config.references import list_reference_problems
from weber.config.resolutions import Resolution, count_pixels
from weber.config.section import FolderPath, Section, Words
from weber.config.shapes import list_shape_problems
from weber.config.toml import write_value

ResolutionType = Literal["area", "megapixels", "shorter_edge"]
CropStyle = Literal["off", "center", "random", "corner", "face"]
CaptionSource = Literal["textfile", "json", "filename", "foldername", "instance", "none", "metadata"]
Aspect = Literal["bucket", "square", "closest", "random", "listed"]
Above0 = Annotated[float, Field(gt=0)]
BucketSize = Annotated[list[PositiveInt], Field(min_length=2, max_length=2), Words("[width, height], two whole numbers above 0 each")]
CaptionPer = Literal["line", "file"]

METADATA_SUFFIXES = (".jsonl", ".csv", ".json", ".parquet")
"""Endings of tables: JSON Lines, CSV, a JSON list, Parquet."""

_EDGE_PIXELS, _STEP_PIXELS = 1024.0, 64  # of models that are not small
_SPLIT = "train"
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_HUB_REVISION = re.compile(r"\w[\w-]*([./]\w[\w-]*)*", re.ASCII)
_HUB_SPLIT = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*")


class DataConfig(Section):
    """One set of pictures with its own resolution, crop, repeats and captions."""

    path: FolderPath | None = None
    """Folder of pictures (JPEG, PNG, WebP, AVIF, TIFF, GIF, BMP, JPEG 2000, PPM, QOI, TGA; HEIC with `pip install 'weber[heic]'`, JPEG XL
    with `pip install pillow-jxl-plugin`), recognized by what they hold. Runs and caches of weber below it are left out. Tar archives in it
    are folders too. Or a tar archive itself, or an address such as `s3://bucket/folder`. Either this or `hub`, or `metadata` alone."""

    hub: str | None = None
    """A dataset on the hub, such as `owner/name`, instead of `path`: Parquet files (needs `pip install 'weber[hub]'`), or pictures with
    a metadata.jsonl or metadata.csv. It is unpacked into the cache folder once; later starts do not ask the hub again."""

    hub_revision: str | None = None
    """Branch, tag or commit of `hub`."""

    hub_split: str = _SPLIT
    """Split of `hub`; of a dataset with several configurations, `configuration/split`."""

    metadata: FolderPath | None = None
    """A table with one row per picture, instead of caption files: JSON Lines, CSV, a JSON list or Parquet (needs
    `pip install 'weber[hub]'`; pictures in it are unpacked into the cache folder once). `image_column` names the picture's
    file, as seen from `path` (left out: from the table), or its address on the web. Pictures without a row are set aside."""

    image_column: str | None = None
    """Column of `metadata` or `hub` with the picture. Left out: `image`, `file_name` or `url`, whichever is there."""

    caption_column: str | list[str] | None = None
    """Column of `metadata` or `hub` with the caption or instruction, or with a list of them of which one is drawn at each use. Several
    columns: the first that says something, or with `caption_weights` one of them. Left out: `caption`, `text`, `prompt` or `instruction`,
    whichever is there."""

    conditioning_columns: list[str] = []
    """Columns of `metadata` or `hub` with reference pictures, in order, for models that take them; a cell may hold a list of them."""

    name: str | None = None
    """Name in reports. Left out: the name of the folder or of the hub dataset. Must differ between sets."""

    recursive: bool = True
    """Look into subfolders too."""

    repeats: Annotated[int, Field(ge=1)] = 1
    """How often each picture appears in one epoch (1 = once)."""

    share: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How often the set is drawn beside the others: with 0.5 each of its pictures comes up in every second epoch, with 1.5 once and a half
    times in each, beside `repeats`. With `train.balance = "sets"` it weighs whole sets."""

    start_after: Every | None = None
    """The set takes part after so many steps, or epochs: `"2 epochs"`. Left out: from the first step."""

    stop_after: Every | None = None
    """The set takes part for the last time in that step, or epoch. Left out: to the end."""

    limit: Annotated[int, Field(ge=1)] | None = None
    """Use only so many pictures of the set, drawn by their names alone: the same ones in every run, and a higher limit adds to those of a
    lower one. What is set aside when it is opened is not replaced. Left out: all."""

    captions: CaptionSource | Annotated[list[CaptionSource], Words("a list of these")] | None = None
    """Where captions come from. `textfile`: the file `<stem>.txt` or `<stem>.caption`, read as `caption_per` says; `json`: `caption_key`
    in `<stem>.json`; `filename`: the file's name with `_` read as space; `foldername`: that of its folder, of `10_word class` the words;
    `instance`: `instance_prompt`; `none`: the empty caption; `metadata`: the row in `metadata`, or of `hub`. Several: the first that has
    a caption, or with `caption_weights` one of them. Left out: `metadata` where there is one, else `textfile`."""

    caption_endings: list[str] = []
    """Endings of caption files for `textfile`, such as `[".long.txt", ".txt"]`: the first that says something counts, or with
    `caption_weights` one of them is drawn. Left out: `.txt`, and where that is not there `.caption`."""

    caption_key: str | list[str] | None = None
    """What the caption is called in the files of `json`, or a list of such names; a list of texts under it is several captions. Left
    out: `caption`, `text`, `prompt` or `instruction`, whichever is there."""

    caption_weights: list[Annotated[float, Field(gt=0)]] = []
    """How likely each of the places in the list of `captions`, `caption_endings`, `caption_key`, `caption_column` or `instance_prompt` is
    drawn at each use, such as `[3, 1]` for long and short captions; among the captions of one place all are as likely. Left out: the
    first that has a caption counts."""

    caption_per: CaptionPer | None = None
    """What one caption is in a caption file. `line`: each line that is not empty, of which one is drawn at each use; `file`: the whole
    file, with its line breaks. Left out: `line`, but a file that is JSON as a whole is one caption."""

    caption_fallback: str | None = None
    """The caption of pictures that have none: without a caption file, with an empty one, with an empty cell in the table, or with one of
    which `caption_steps` leave nothing. Left out: such pictures are set aside."""

    instance_prompt: str | list[str] | None = None
    """The caption of every picture of the set, or a list from which one is drawn at each use. Needs `captions = "instance"`."""

    caption_steps: list[CaptionStepConfig] = []
    """What is done to captions before they are encoded: triggers, replacements, wildcards, tags in another order, each step under its own
    `[[data.caption_steps]]`, in that order."""

    caption_variants: Annotated[int, Field(ge=1, le=MOST_VARIANTS)] | None = None
    """How many texts of each picture are encoded and kept, where steps draw: all outcomes with their probabilities, if they are no more
    than this; else so many that are drawn once, of which one is taken at each use. More of them are more variety and a larger cache. Left
    out: 8, or as many as the picture has captions."""

    every_nth: Annotated[int, Field(ge=2)] | None = None
    """Use only every so many-th picture of the set, in the order of their names, the first included; before `limit`. Left out: all."""

    geometry: Literal["ours", "ai-toolkit", "kohya", "onetrainer", "simpletuner"] = "ours"
    """Whose sizes and windows pictures get: those of weber, or those of another trainer to the pixel, for runs that were begun there.
    Small pictures are enlarged with `upscale = true` alone, as those do if nothing else is said (`ai-toolkit`: to the next whole step)."""

    resolution: Resolution | Annotated[list[Resolution], Field(min_length=1), Words("a list of these")] | None = None
    """Size of the training pictures, in the unit of `resolution_type`, or `"832x1216"` for as many pixels as that. A list,
    `[512, 768, 1024]`, is the set once for each, named `name@512` and so on. Left out: what the model was made for, an edge of 1024
    pixels (`pocket`: 64)."""

    resolution_type: ResolutionType = "area"
    """Unit of `resolution`. `area`: as many pixels as a square of that edge; `megapixels`: 1 = 1024 x 1024 pixels, with
    `geometry = "simpletuner"` a million; `shorter_edge`: pixels."""

    aspect: Aspect | None = None
    """Shapes of the training pictures. `bucket`: each picture goes to the bucket nearest to its aspect; `square`: all pictures
    become squares; `closest`, `random`: each gets one of `aspects`, the nearest or a drawn one; `listed`: the nearest of `buckets`, or of
    the sizes that the model was made for. Left out: `listed` with `buckets`, and where the model has such a list and `resolution` and
    `bucket_step` are left out too, else `bucket`."""

    aspects: list[Above0] = []
    """Width divided by height of the shapes of `aspect = "closest"` or `"random"`, such as `[1.0, 0.75, 1.5]`."""

    aspect_weights: list[Above0] = []
    """How likely each of `aspects` is drawn, such as `[2, 1, 1]`. Left out: all are as likely. Needs `aspect = "random"`."""

    buckets: list[BucketSize] = []
    """Your own sizes of training pictures, `[[672, 1568], [1024, 1024], ...]` as width and height in pixels, instead of `resolution`. A
    picture goes to the nearest aspect; of several sizes of that aspect to the largest that needs no enlarging, else to the smallest."""

    shortest_side: Annotated[int, Field(ge=16)] | None = None
    """No side of a bucket has fewer pixels. Left out: half of the square's edge (`geometry = "kohya"`: 256)."""

    longest_side: Annotated[int, Field(ge=16)] | None = None
    """No side of a bucket has more pixels. Left out: twice the square's edge (`geometry = "kohya"`: 1024)."""

    crop: CropStyle = "center"
    """What happens to pixels that do not fit the bucket. `center`, `random` and `corner` (top left) say which window is kept; `off`
    squeezes the picture into the bucket instead, so that nothing is cut and the aspect changes by a few percent. `face` keeps the largest
    face in the middle, and the middle of pictures in which none is found (needs `pip install 'weber[face]'`)."""

    downsample_to: Above0 | None = None
    """Resize pictures to this size, in the unit of `resolution_type`, before the window is cut out, so that it shows a part of them; they
    are never enlarged by it. Left out: to the smallest size that covers the window."""

    downsample_above: Above0 | None = None
    """Only pictures above this size are resized to `downsample_to`; the others are, as ever, to the size of the window."""

    num_crops: Annotated[int, Field(ge=1)] | None = None
    """How many random windows of each picture are cached; one is drawn at each use. Needs `crop = "random"`; left out: 4."""

    mirror: bool = False
    """Learn each picture as it is and mirrored, left for right; both are cached, and one is drawn at each use. References and masks are
    mirrored with it."""

    mirror_sides: Literal["mirror", "keep", "refuse"] = "mirror"
    """What becomes of pictures whose captions mention left or right, with `mirror`. `mirror`: they are mirrored all the same, and the plan
    counts them; `keep`: they are not mirrored; `refuse`: they are set aside."""

    color_jitter: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Learn pictures in slightly other colors too: brightness, contrast and saturation change by up to this share, hues by a fifth of it.
    References change with their picture. Left out: their own colors alone."""

    num_colors: Annotated[int, Field(ge=1, le=64)] | None = None
    """How many other colors of each window are cached, beside its own; one of all is drawn at each use. Left out: 3."""

    upscale: bool = False
    """Enlarge pictures that are smaller than the bucket. Otherwise they keep their own size, in a smaller bucket."""

    bucket_step: Annotated[int, Field(ge=1)] | None = None
    """Sides of buckets are multiples of this many pixels; must be a multiple of what the model needs (16).
    Left out: 64, or what the model needs if it was made for fewer than 512 pixels."""

    minimum_edge: Annotated[int, Field(ge=1)] | None = None
    """Pictures whose shorter edge has fewer pixels are set aside. Left out: a quarter of the edge that `resolution` means."""

    max_aspect: Annotated[float, Field(ge=1, le=16)] = 4.0
    """Pictures longer than this (longer edge / shorter edge) are set aside."""

    maximum_edge: Annotated[int, Field(ge=1)] | None = None
    """Pictures whose longer edge has more pixels are set aside. Left out: none."""

    minimum_megapixels: Above0 | None = None
    """Pictures with fewer pixels are set aside; 1 = 1024 x 1024. Left out: none."""

    maximum_megapixels: Above0 | None = None
    """Pictures with more pixels are set aside. Left out: none."""

    aspect_range: Annotated[list[Above0], Field(min_length=2, max_length=2), Words("[lowest, highest], two numbers above 0")] | None = None
    """Pictures whose width divided by height lies outside are set aside: `[0.5, 1.0]` takes upright ones alone. Left out: `max_aspect`
    alone counts."""

    conditioning: list[FolderPath] = []
    """Folders of reference pictures for models that take them: in each, the reference of `cat.png` is `cat.png` or the one picture with
    the stem `cat`, in the same subfolder. Several folders: several references, in order."""

    conditioning_type: Literal["reference_strict", "reference_loose"] | None = None
    """How references are cut. `reference_strict`: resized and cropped exactly like the picture, smaller ones enlarged;
    `reference_loose`: in their own shape, at the size that the model was made for. Left out: `reference_strict`. Needs references."""

    reference_optional: bool = False
    """Pictures may lack some or all of their references, and are then learned with those that they have. Left out: they are set aside."""

    reference_sizes: list[Above0] = []
    """Edges of squares with as many pixels, one for each reference in order, such as `[1024, 512]`: larger references are scaled down
    to that. Needs `conditioning_type = "reference_loose"`. Left out: the size that the model was made for."""

    reference_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a picture is learned without its references, so that the model also learns to paint from words alone."""

    reference_order: Literal["given", "shuffled"] = "given"
    """Order in which references are shown: as their folders or columns are listed, or in another one at each use."""

    reference_own: Literal["crop", "color"] | None = None
    """Each picture is a reference of its own too, behind all others: another window of it (`crop`), or other colors (`color`), so that
    what is the same in both is kept. Left out: not."""

    masks: FolderPath | None = None
    """Folder of masks for a model that repaints: white is painted anew, black is kept, gray counts as the nearer one. The mask of
    `cat.png` is found as in `conditioning` and has its shape, in any resolution; transparency counts as in `loss_masks`. Left out: masks
    are drawn at random."""

    loss_masks: FolderPath | None = None
    """Folder of masks for the loss: white is learned, black is not, gray in between. The mask of `cat.png` is found as in
    `conditioning` and has its shape, in any resolution; a picture without one is learned as a whole. What is transparent in a mask is not
    learned; of a picture that was cut out, in its own colors, all that is opaque is."""

    alpha_mask: bool = False
    """The alpha channel of the pictures is their mask for the loss, instead of `loss_masks`; opaque is learned."""

    caption_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that the empty caption takes the place of the picture's own, so that the model also learns to paint without one."""

    loss_weight: Annotated[float, Field(gt=0)] = 1.0
    """How much the pictures of this set count in the loss: for a set of class images, what others call prior_loss_weight."""

    regularization: bool = False
    """Keep the model as it is on these pictures: what is asked of it is what it would have said without the adapter, so that all else
    stays while another set is learned. Adapters only."""

    evaluation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the pictures that is held out: never learned, but measured now and then (`[evaluation]`), so that it is seen whether what
    is learned holds for other pictures too. Drawn by their names alone, at least one; 1 is the whole set."""

    num_masks: Annotated[int, Field(ge=1)] | None = None
    """How many random masks of each picture are cached, for a model that repaints; one is drawn at each use. Left out: 4."""

    @field_validator("conditioning", "conditioning_columns", "caption_column", "caption_key", "caption_endings", mode="before")
    @classmethod
    def _refuse_empty_items(cls, value: object) -> object:
        if isinstance(value, list) and any(isinstance(item, str) and not item.strip() for item in value):
            raise ValueError("an empty text in a list is not a value; set it or remove it")
        return value

    @model_validator(mode="after")
    def _refuse_what_cannot_act(self) -> DataConfig:
        problems = [*self._check_source(), *self._check_columns(), *self._check_captions(), *self._list_others()]
        if problems:
            raise ValueError(problems[0])
        return self

    def _list_others(self) -> list[str]:
        values = self.model_dump()
        return [*list_shape_problems(values), *list_reference_problems(values), *self._check_beside()]

    def _check_source(self) -> Iterator[str]:
        if self.path is None and self.hub is None and self.metadata is None:
            yield 'the set has no pictures; write path = "folder/of/pictures" or hub = "owner/name", or metadata = "table.jsonl" alone'
        if self.path is not None and self.hub is not None:
            yield "path and hub are two places for the same pictures; remove one of them, or make two sets"
        if self.hub is None:
            if self.hub_revision is not None:
                yield "hub_revision has no effect without hub; set hub or remove hub_revision"
            if self.hub_split != _SPLIT:
                yield "hub_split has no effect without hub; set hub or remove hub_split"
            return
        if not _HUB_ID.fullmatch(self.hub):
            yield f'hub = "{self.hub}" is not the name of a dataset; write it as "owner/name"'
        if self.hub_revision is not None and not _HUB_REVISION.fullmatch(self.hub_revision):
            yield f'hub_revision = "{self.hub_revision}" is no branch, tag or commit; copy it from the page of the dataset'
        if not _HUB_SPLIT.fullmatch(self.hub_split):
            yield f'hub_split = "{self.hub_split}" is not the name of a split; write it as "train" or "test"'
        if self.metadata is not None:
            yield "metadata has no effect with hub, which brings its own columns; remove metadata"
        if not self.recursive:
            yield "recursive has no effect with hub; remove recursive"
        for name, given in (("conditioning", self.conditioning), ("masks", self.masks)):
            if given:
                instead = "use conditioning_columns" if name == "conditioning" else "download the dataset and set path"
                yield f"{name} names files by those of path, but the pictures of a hub dataset have none; {instead}"

    def _check_columns(self) -> Iterator[str]:
        if self.metadata is not None and self.metadata.suffix.lower() not in METADATA_SUFFIXES:
            yield f'metadata = "{self.metadata}" is of no known kind; write JSON Lines or CSV, as {", ".join(METADATA_SUFFIXES)}'
        columns = {"image_column": self.image_column}
        columns |= {f"caption_column.{number}": name for number, name in enumerate(list_items(self.caption_column))}
        columns |= {f"conditioning_columns.{number}": name for number, name in enumerate(self.conditioning_columns)}
        given = {key: name for key, name in columns.items() if name is not None}
        if given and not self.has_rows:
            key = next(iter(given)).partition(".")[0]
            yield f"{key} has no effect without metadata or hub; set one of them or remove {key}"
        twice = [name for name in given.values() if list(given.values()).count(name) > 1]
        if twice:
            keys = " and ".join(dict.fromkeys(key.partition(".")[0] for key, name in given.items() if name == twice[0]))
            yield f'{keys} name the column "{twice[0]}" twice; each column is one thing'

    def _check_captions(self) -> Iterator[str]:
        sources = self.caption_sources
        if "metadata" in sources and not self.has_rows:
            yield 'captions = "metadata" needs metadata or hub; set one of them, or captions = "textfile"'
        unnamed = next((one for one in sources if one in ("textfile", "json", "filename", "foldername")), None)
        if unnamed is not None and self.hub is not None:
            yield f'captions = "{unnamed}" needs files of your own, which hub has not; set captions = "metadata" or remove captions'
        if "instance" in sources and not self.instance_prompt:
            yield 'captions = "instance" needs instance_prompt; set it to the caption of the set'
        if "instance" not in sources and self.instance_prompt is not None:
            what = f"captions = {write_value(self.captions)}" if self.captions else 'any other captions than "instance"'
            yield f'instance_prompt has no effect with {what}; set captions = "instance" or remove instance_prompt'
        belong = {"caption_per": "textfile", "caption_endings": "textfile", "caption_key": "json", "caption_column": "metadata"}
        places = ("captions", "caption_endings", "caption_key", "caption_column", "instance_prompt")
        values = self.model_dump(include={*belong, *places})
        for name in belong:
            if values[name] and belong[name] not in sources:
                what = write_value(self.captions or sources[0])
                yield f'{name} has no effect with captions = {what}; remove it, or set captions = "{belong[name]}"'
        if self.caption_fallback is not None and ALWAYS_THERE & set(sources) and not self.caption_steps:
            yield f'caption_fallback has no effect with captions = {write_value(self.captions)}, which every picture has; remove it'
        yield from list_place_problems({name: values[name] for name in places}, self.caption_weights)
        yield from list_step_problems(self.caption_steps, variants=self.caption_variants, is_empty=sources == ("none",))

    def _check_beside(self) -> Iterator[str]:
        if self.conditioning and self.conditioning_columns:
            yield "conditioning and conditioning_columns both name references; remove one of them"
        for folder in self.conditioning:
            if self.conditioning.count(folder) > 1:
                yield f'conditioning names "{folder}" twice; name each folder once'
            if folder == self.path:
                yield f'conditioning = "{folder}" is the folder of the pictures themselves; name the folder of their references'
        if self.masks is not None and self.masks == self.path:
            yield f'masks = "{self.masks}" is the folder of the pictures themselves; name the folder of their masks'
        if self.loss_masks is not None and self.alpha_mask:
            yield "loss_masks and alpha_mask are two places for the same masks; remove one of them"
        if self.loss_masks is not None and self.loss_masks == self.path:
            yield f'loss_masks = "{self.loss_masks}" is the folder of the pictures themselves; name the folder of their masks'
        if self.loss_masks is not None and self.hub is not None:
            yield "loss_masks names files by those of path, but the pictures of a hub dataset have none; download the dataset and set path"
        if self.caption_dropout > 0 and self.caption_sources == ("none",) and not self.caption_steps:
            yield 'caption_dropout has no effect with captions = "none", which are empty already; remove it'
        if self.num_masks is not None and self.masks is not None:
            yield "num_masks has no effect with masks, which has one for each picture; remove one of them"
        if self.evaluation and self.regularization:
            yield "evaluation has no effect with regularization, whose pictures are not to be learned; remove one of them"
        only = {"repeats", "share", "start_after", "stop_after", "reference_dropout", "reference_order", "caption_dropout", "loss_weight"}
        changed = self.model_dump(include=only, exclude_defaults=True)
        if self.evaluation == 1 and changed:
            yield f"{min(changed)} has no effect with evaluation = 1, whose pictures are not learned; remove it"

    def build_fitting(self, *, native_pixels: int, alignment_pixels: int, sizes: Sequence[tuple[int, int]] = ()) -> DataConfig:
        """The same set with what was left out filled in: captions, and shapes and sizes that the model was made for.

        `sizes` is the model's own list of them, where it has one.
        """
        assert not isinstance(self.resolution, list), "a set of several resolutions is several sets"
        sides = self.bucket_step, self.shortest_side, self.longest_side
        unset = self.resolution is None and self.resolution_type == "area" and sides == (None, None, None) and self.geometry == "ours"
        aspect = self.aspect or ("listed" if self.buckets or (sizes and unset) else "bucket")
        resolution = float(native_pixels) if self.resolution is None else self.resolution
        step = (alignment_pixels if native_pixels < 512 else _STEP_PIXELS) if self.bucket_step is None else self.bucket_step
        filled = {
            "aspect": aspect,
            "captions": self.captions or self.caption_sources[0],
            "resolution": None if aspect == "listed" else resolution,
            "bucket_step": None if aspect == "listed" and self.upscale else step,
        }
        return self.model_copy(update=filled)

    @property
    def set_name(self) -> str:
        """Name in reports."""
        if self.name is not None:
            return self.name
        if self.hub is not None:
            return self.hub.rpartition("/")[2]
        if self.path is None and self.metadata is not None:
            return self.metadata.stem
        return build_absolute(self.path or Path()).name

    @property
    def has_rows(self) -> bool:
        """Does a table say what belongs to each picture?"""
        return self.metadata is not None or self.hub is not None

    @property
    def caption_sources(self) -> tuple[CaptionSource, ...]:
        """Where captions come from, in order."""
        return tuple(list_items(self.captions)) or ("metadata" if self.has_rows else "textfile",)

    @property
    def num_references(self) -> int:
        """How many references each picture has; with columns that hold lists, at least."""
        return len(self.conditioning) + len(self.conditioning_columns) + (self.reference_own is not None)

    @property
    def step_pixels(self) -> int:
        """Sides of buckets are multiples of this."""
        return _STEP_PIXELS if self.bucket_step is None else self.bucket_step

    @property
    def area_pixels(self) -> int:
        """Number of pixels that `resolution` asks for (for `shorter_edge`: of the square of that edge), or of the largest of `buckets`."""
        if self.buckets:
            return max(width * height for width, height in self.buckets)
        assert not isinstance(self.resolution, list), "a set of several resolutions is several sets"
        resolution = _EDGE_PIXELS if self.resolution is None else self.resolution
        return count_pixels(resolution, in_megapixels=self.resolution_type == "megapixels")

    @property
    def edge_pixels(self) -> int:
        """Edge of the square with `area_pixels` pixels."""
        return round(math.sqrt(self.area_pixels))
