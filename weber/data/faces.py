"""Where the largest face of a picture is, by a detector that comes with OpenCV and needs no download."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from weber.data.images import encode_content, read_image
from weber.data.index import FileFacts
from weber.errors import MissingExtraError
from weber.imports import load_module

_CASCADE = "haarcascade_frontalface_default.xml"
_EDGE_PIXELS = 640  # a face that is worth a crop is found at this size too
_SCALE, _NEIGHBORS, _LEAST_SHARE = 1.1, 5, 0.06
_alone = threading.Lock()
"""OpenCV's cascades keep state while they look."""


def check_faces() -> None:
    """Raise MissingExtraError where OpenCV is not installed, or has no cascade."""
    _load_detector()


def inspect_face(data: bytes) -> FileFacts:
    """Its text is the center of the largest face, as shares of the upright picture's sides, or empty where none is found."""
    image = read_image(data).convert("L")
    width, height = image.size
    image.thumbnail((_EDGE_PIXELS, _EDGE_PIXELS), Image.Resampling.BOX)
    least = max(20, round(_LEAST_SHARE * min(image.size)))
    with _alone:
        found = _load_detector().detectMultiScale(np.asarray(image), _SCALE, _NEIGHBORS, minSize=(least, least))
    boxes = sorted((tuple(map(int, box)) for box in found), key=lambda box: (-box[2] * box[3], box))
    if not boxes:
        return FileFacts(encode_content(data), width, height)
    left, top, wide, high = boxes[0]
    center = f"{(left + wide / 2) / image.width:.4f} {(top + high / 2) / image.height:.4f}"
    return FileFacts(encode_content(data), width, height, text=center)


def read_center(facts: FileFacts) -> tuple[float, float] | None:
    """The center that `inspect_face` has found."""
    if not facts.text:
        return None
    across, down = map(float, facts.text.split())
    return across, down


@cache
def _load_detector() -> Any:
    try:
        opencv = load_module("cv2")
    except ModuleNotFoundError as error:
        raise _explain("no cv2") from error
    cascades = getattr(opencv, "data", None)
    if cascades is None or not hasattr(opencv, "CascadeClassifier"):
        raise _explain(f"OpenCV {opencv.__version__} without Haar cascades")
    return opencv.CascadeClassifier(cascades.haarcascades + _CASCADE)


def _explain(got: str) -> MissingExtraError:
    return MissingExtraError(
        'crop = "face" needs OpenCV, which looks for faces.', got=got, fix="pip install 'weber[face]'; or set crop = \"center\""
    )
