"""WaifuDiffusion taggers and their kin: a network in an ONNX file that says how likely each tag of a list is.

Two layouts are read (kohya-ss/sd-scripts `finetune/tag_images_by_wd14_tagger.py` reads both):

| | files | input | output |
|---|---|---|---|
| wd14, v3 | model.onnx, selected_tags.csv | pictures, height, width, channels; 0 to 255 | probabilities |
| cl_tagger | model_optimized.onnx or model.onnx, tag_mapping.json | pictures, channels, height, width; -1 to 1 | before the sigmoid |

Of both, channels are blue, green and red, and pictures are squares with white at their shorter sides, the picture in the middle.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from weber.captioners.onnx import Array, Network, open_network
from weber.config.near import find_near
from weber.errors import ConfigError, ModelError
from weber.families.hub import find_place

CSV_FILE, MAPPING_FILE = "selected_tags.csv", "tag_mapping.json"
_FILES = ("model.onnx", "model_optimized.onnx")
_CATEGORIES = {"9": "rating", "0": "general", "4": "character", "1": "artist", "3": "copyright", "5": "meta"}
"""Numbers of the list in CSV, as Danbooru has them."""

_DEFAULT_EDGE = 448

TAGGERS: Mapping[str, str] = {
    "wd14": "SmilingWolf/wd-v1-4-convnext-tagger-v2",
    "wd14-moat": "SmilingWolf/wd-v1-4-moat-tagger-v2",
    "wd14-swinv2": "SmilingWolf/wd-v1-4-swinv2-tagger-v2",
    "wd14-vit": "SmilingWolf/wd-v1-4-vit-tagger-v2",
    "wd-v3": "SmilingWolf/wd-swinv2-tagger-v3",
    "wd-v3-vit": "SmilingWolf/wd-vit-tagger-v3",
    "wd-v3-large": "SmilingWolf/wd-eva02-large-tagger-v3",
    "cl": "cella110n/cl_tagger/cl_tagger_1_02",
}
"""Where each is on the hub; behind a second slash the folder in it."""


@dataclass(frozen=True)
class Label:
    """A tag that a network knows, and of what category it is: general, character, rating, quality, artist, copyright, meta, model."""

    tag: str
    category: str


@dataclass(frozen=True)
class Likely:
    """A tag of a picture."""

    label: Label
    probability: float


@dataclass(frozen=True)
class Tagger:
    """An open network with its list of tags."""

    network: Network
    labels: Sequence[Label]
    is_mapped: bool

    @property
    def edge(self) -> int:
        """Pixels of the square that it looks at."""
        sides = self.network.shape[2:4] if self.is_mapped else self.network.shape[1:3]
        return next((side for side in sides if side), _DEFAULT_EDGE)

    def look(self, images: Sequence[Image.Image]) -> list[list[Likely]]:
        """All tags of each picture with their probabilities, in the order of the list."""
        pictures = np.stack([build_input(image, self.edge) for image in images])
        if self.is_mapped:
            pictures = (pictures / np.float32(127.5) - np.float32(1)).transpose(0, 3, 1, 2)
        found = self.network.run(np.ascontiguousarray(pictures))
        if found.shape[1] != len(self.labels):
            raise ModelError(
                "The network and its list of tags do not belong together.",
                got=f"{found.shape[1]} numbers for {len(self.labels)} tags",
                fix="take both files from the same place",
            )
        probabilities = 1 / (1 + np.exp(-found)) if self.is_mapped else found
        return [[Likely(label, float(one)) for label, one in zip(self.labels, row, strict=True)] for row in probabilities]


def open_tagger(name: str, *, model_dir: Path | None = None, device: str = "auto") -> Tagger:
    """A tagger by its name in `TAGGERS`, a folder, or a hub id with or without a folder in it. With `model_dir` it is sought there first,
    under its id with `_` for `/`, as kohya's script keeps them. Raises ConfigError, ModelError, MissingExtraError."""
    folder = _find_folder(name, model_dir)
    file = next((folder / one for one in _FILES if (folder / one).is_file()), None)
    labels = next((folder / one for one in (CSV_FILE, MAPPING_FILE) if (folder / one).is_file()), None)
    if file is None or labels is None:
        there = ", ".join(sorted(one.name for one in folder.iterdir())) if folder.is_dir() else "no such folder"
        raise ModelError(
            "This is no tagger.",
            got=f"{folder}: {there or 'empty'}",
            expected=f"model.onnx beside {CSV_FILE}, or {_FILES[1]} beside {MAPPING_FILE}; TensorFlow's files are not read",
            fix="name the folder that they lie in, or download the ONNX file too",
        )
    return Tagger(open_network(file, device=device), read_labels(labels), labels.name == MAPPING_FILE)


def check_name(name: str, model_dir: Path | None) -> None:
    """Refuse what can be no tagger, before there is anything to tag. Raises ConfigError."""
    if model_dir is None and not Path(name).expanduser().exists() and "/" not in _find_home(name):
        near = find_near(name, list(TAGGERS))
        fix = f"did you mean {near}?" if near else "name one of them, a folder, or a hub id"
        raise ConfigError("There is no such tagger.", got=f"--with {name}", expected=", ".join(TAGGERS), fix=fix)


def read_labels(file: Path) -> list[Label]:
    """The list of tags of either layout. Raises ModelError."""
    text = file.read_text(encoding="utf-8-sig")
    try:
        return list(_read_csv(text) if file.suffix == ".csv" else _read_mapping(json.loads(text)))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ModelError(
            "The list of tags cannot be read.",
            got=f"{file}: {error}",
            expected="columns tag_id, name, category" if file.suffix == ".csv" else '{"0": {"tag": ..., "category": ...}, ...}',
            fix="download it again",
        ) from error


def build_input(image: Image.Image, edge: int) -> Array:
    """A picture as these networks see it (edge, edge, 3): blue, green, red, 0 to 255, on a white square."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image.convert("RGB"), ((side - image.width) // 2, (side - image.height) // 2))
    pixels = np.asarray(square)
    if side > edge:
        pixels = average(average(pixels, edge, axis=0), edge, axis=1)
        pixels = np.rint(pixels).clip(0, 255).astype(np.uint8)
    elif side < edge:
        pixels = np.asarray(square.resize((edge, edge), Image.Resampling.LANCZOS))
    return np.ascontiguousarray(pixels[:, :, ::-1], dtype=np.float32)


def average(pixels: NDArray[np.generic], num: int, *, axis: int) -> NDArray[np.float64]:
    """Fewer pixels along an axis, each the mean of what it covers, parts of pixels included (OpenCV's INTER_AREA)."""
    size = pixels.shape[axis]
    moved = np.moveaxis(pixels, axis, 0).astype(np.float64)
    sums = np.concatenate([np.zeros((1, *moved.shape[1:])), np.cumsum(moved, axis=0)])
    bounds = np.arange(num + 1) * (size / num)
    whole = np.minimum(np.floor(bounds).astype(int), size - 1)
    rest = (bounds - whole).reshape(-1, *[1] * (moved.ndim - 1))
    at = sums[whole] + rest * moved[whole]
    return np.moveaxis(np.diff(at, axis=0) * (num / size), 0, axis)


def _find_home(name: str) -> str:
    """The hub id of a tagger, also by what it is called there alone."""
    return TAGGERS.get(name) or next((home for home in TAGGERS.values() if home.split("/")[1] == name), name)


def _find_folder(name: str, model_dir: Path | None) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        return path.parent
    home = _find_home(name)
    if model_dir is not None:
        places = [model_dir / home.replace("/", "_"), model_dir / home.rpartition("/")[2], model_dir]
        found = next((one for one in places if any((one / file).is_file() for file in _FILES)), None)
        if found is None:
            raise ModelError(
                "The tagger is not in that folder.",
                got=f"--model-dir {model_dir}",
                expected=f"{places[0].name}/model.onnx in it",
                fix="download it there, or remove --model-dir to fetch it from the hub",
            )
        return found
    check_name(name, model_dir)
    owner, repository, *inside = home.split("/")
    place = "/".join(inside)
    patterns = [f"{place}/{one}" if place else one for one in (*_FILES, CSV_FILE, MAPPING_FILE, "*.onnx.data")]
    return find_place(f"{owner}/{repository}", patterns, key="--with") / place


def _read_csv(text: str) -> Iterator[Label]:
    for row in csv.DictReader(text.splitlines()):
        yield Label(row["name"], _CATEGORIES.get(row["category"], "general"))


def _read_mapping(tree: Mapping[str, object]) -> Iterator[Label]:
    names, categories = tree.get("idx_to_tag"), tree.get("tag_to_category")
    if isinstance(names, dict) and isinstance(categories, dict):
        for number in range(len(names)):
            yield Label(names[str(number)], str(categories[names[str(number)]]).lower())
        return
    for number in range(len(tree)):
        row = tree[str(number)]
        assert isinstance(row, dict)
        yield Label(row["tag"], str(row["category"]).lower())
