"""`[[data]]`: sets of pictures, any number at once."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from weber.config.section import FolderPath, Section

ResolutionType = Literal["area", "megapixels", "shorter_edge"]
CropStyle = Literal["off", "center", "random", "corner"]

_EDGE_PIXELS, _STEP_PIXELS = 1024.0, 64  # of models that are not small


class DataConfig(Section):
    """One set of pictures with its own resolution, crop, repeats and captions."""

    path: FolderPath
    """Folder of pictures (JPEG, PNG, WebP, AVIF, BMP, TIFF, GIF)."""

    name: str | None = None
    """Name in reports. Left out: the folder's name. Must differ between sets."""

    recursive: bool = True
    """Look into subfolders too."""

    repeats: Annotated[int, Field(ge=1)] = 1
    """How often each picture appears in one epoch (1 = once)."""

    captions: Literal["textfile", "filename", "instance", "none"] = "textfile"
    """Where captions come from. `textfile`: `<stem>.txt` with one caption per line, one is drawn at each use; `filename`: the file's
    name with `_` read as space; `instance`: `instance_prompt`; `none`: the empty caption."""

    instance_prompt: str | list[str] | None = None
    """The caption of every picture of the set, or a list from which one is drawn at each use. Needs `captions = "instance"`."""

    resolution: Annotated[float, Field(gt=0)] | None = None
    """Size of the training pictures, in the unit of `resolution_type`. Left out: what the model was made for, an edge of 1024
    pixels (`pocket`: 64)."""

    resolution_type: ResolutionType = "area"
    """Unit of `resolution`. `area`: as many pixels as a square of that edge; `megapixels`: 1 = 1024 x 1024 pixels;
    `shorter_edge`: pixels."""

    aspect: Literal["bucket", "square"] = "bucket"
    """Shapes of the training pictures. `bucket`: each picture goes to the bucket nearest to its aspect; `square`: all pictures
    become squares."""

    crop: CropStyle = "center"
    """What happens to pixels that do not fit the bucket. `center`, `random` and `corner` (top left) say which window is kept; `off`
    squeezes the picture into the bucket instead, so that nothing is cut and the aspect changes by a few percent."""

    num_crops: Annotated[int, Field(ge=1)] | None = None
    """How many random windows of each picture are cached; one is drawn at each use. Needs `crop = "random"`; left out: 4."""

    upscale: bool = False
    """Enlarge pictures that are smaller than the bucket. Otherwise they keep their own size, in a smaller bucket."""

    bucket_step: Annotated[int, Field(ge=1)] | None = None
    """Sides of buckets are multiples of this many pixels; must be a multiple of what the model needs (16).
    Left out: 64, or what the model needs if it was made for fewer than 512 pixels."""

    minimum_edge: Annotated[int, Field(ge=1)] | None = None
    """Pictures whose shorter edge has fewer pixels are set aside. Left out: a quarter of the edge that `resolution` means."""

    max_aspect: Annotated[float, Field(ge=1, le=16)] = 4.0
    """Pictures longer than this (longer edge / shorter edge) are set aside."""

    @model_validator(mode="after")
    def _refuse_what_cannot_act(self) -> DataConfig:
        if self.captions == "instance" and not self.instance_prompt:
            raise ValueError('captions = "instance" needs instance_prompt; set it to the caption of the set')
        if self.captions != "instance" and self.instance_prompt is not None:
            raise ValueError(
                f'instance_prompt has no effect with captions = "{self.captions}"; set captions = "instance" or remove instance_prompt'
            )
        if self.resolution_type == "megapixels" and self.resolution is None:
            raise ValueError('resolution_type = "megapixels" needs resolution; set it, for example resolution = 1.0')
        if self.num_crops is not None and self.crop != "random":
            raise ValueError(f'num_crops has no effect with crop = "{self.crop}"; set crop = "random" or remove num_crops')
        if self.aspect == "square" and self.crop == "off":
            raise ValueError('aspect = "square" with crop = "off" would distort the pictures; set crop = "center" or aspect = "bucket"')
        if self.aspect == "square" and self.max_aspect != 4.0:
            raise ValueError('max_aspect has no effect with aspect = "square"; remove it or set aspect = "bucket"')
        return self

    def build_fitting(self, *, native_pixels: int, alignment_pixels: int) -> DataConfig:
        """The same set with a resolution and a bucket step that fit the model, where they were left out."""
        resolution = float(native_pixels) if self.resolution is None else self.resolution
        step = (alignment_pixels if native_pixels < 512 else _STEP_PIXELS) if self.bucket_step is None else self.bucket_step
        return self.model_copy(update={"resolution": resolution, "bucket_step": step})

    @property
    def step_pixels(self) -> int:
        """Sides of buckets are multiples of this."""
        return _STEP_PIXELS if self.bucket_step is None else self.bucket_step

    @property
    def area_pixels(self) -> int:
        """Number of pixels that `resolution` asks for (for `shorter_edge`: of the square of that edge)."""
        resolution = _EDGE_PIXELS if self.resolution is None else self.resolution
        if self.resolution_type == "megapixels":
            return round(resolution * 1024 * 1024)
        return round(resolution * resolution)

    @property
    def edge_pixels(self) -> int:
        """Edge of the square with `area_pixels` pixels."""
        return round(math.sqrt(self.area_pixels))
