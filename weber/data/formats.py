"""What a file is, by its name and its first bytes: a picture that can be read; or something else, and what would make pictures of it."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePath

from PIL import Image

from weber.errors import MissingExtraError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif"}
    | {".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi", ".tga"}
)
"""Endings of picture files, compared without case. What they hold is read by content, so a wrong ending does no harm."""

START_BYTES = 64
"""How much of a file's start tells what it is."""

LARGEST_PIXELS = 500_000_000
"""Of one picture: more than a phone or a camera takes, and one and a half gigabytes when it is open."""

# Without those that only stand for another program (such as EPS), which would be started by opening a file.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "JPEG2000", "PPM", "QOI", "TGA")


@dataclass(frozen=True)
class _Plugin:
    """A package that teaches Pillow a format; `register` is what has to be called after its import."""

    kind: str
    module: str
    command: str
    register: str = ""


_PLUGINS = {
    "HEIF": _Plugin("HEIC picture", "pillow_heif", "pip install 'weber[heic]'", "register_heif_opener"),
    "JXL": _Plugin("JPEG XL picture", "pillow_jxl", "pip install pillow-jxl-plugin"),
}

_DNG_VERSION, _SUBFILE_TYPE, _SUB_IFDS = 50706, 254, 330
"""Tags of TIFF."""

_RAW = "raw picture of a camera: develop it, and save it as TIFF or JPEG"
_VIDEO = "video: save the frames that you want as PNG"
_DRAWING = "drawing, not pixels: export it as PNG"
_LAYERS = "document of layers: export it as PNG"
_FORMAT = "picture in a format that is not read: convert it to PNG"
_ARCHIVE = "archive: unpack it"
_UNFINISHED = "unfinished download, or a copy that a program keeps: rename it if it is a good picture"
_PAGE = "web page, not a picture: download the picture itself"
_POINTER = "pointer of Git LFS, not the picture: run `git lfs pull`"

_ENDINGS = {
    _RAW: "3fr arw cr2 cr3 crw dcr dng erf iiq k25 kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f",
    _VIDEO: "3gp avi avifs flv gifv heics m2ts m4v mkv mov mp4 mpeg mpg mts ogv webm wmv",
    _DRAWING: "ai cdr emf eps pdf ps svg svgz wmf",
    _LAYERS: "afphoto clip kra ora psb psd xcf",
    _FORMAT: "bpg cin cur dds dpx exr fits flif hdp hdr icns ico jls jxr pcd pcx pfm rgbe sgi wbmp wdp xbm xpm",
    _ARCHIVE: "7z gz rar tar tgz xz zip",
    _UNFINISHED: "bak crdownload download orig part tmp",
}
_BY_ENDING = {f".{ending}": reason for reason, endings in _ENDINGS.items() for ending in endings.split()}

_STARTS = (
    (b"%PDF", _DRAWING),
    (b"8BPS", _LAYERS),
    (b"gimp xcf", _LAYERS),
    (b"PK\x03\x04", _ARCHIVE),
    (b"\x1f\x8b", _ARCHIVE),
    (b"7z\xbc\xaf", _ARCHIVE),
    (b"\x1aE\xdf\xa3", _VIDEO),
    (b"v/1\x01", _FORMAT),
    (b"#?RADIANCE", _FORMAT),
    (b"version https://git-lfs", _POINTER),
)
KINDS = frozenset(
    reason.partition(":")[0] for reason in (*_ENDINGS, _PAGE, _POINTER, *(f"{plugin.kind}:" for plugin in _PLUGINS.values()))
)
"""What reasons of this file begin with; behind the colon they say what helps."""

_PAGES = (b"<!doctype html", b"<html")
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"qoif", b"\xff\x4f\xff\x51")
_JPEG2000 = b"\0\0\0\x0cjP  \r\n\x87\n"
_JPEG_XL = (b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a")
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def explain_ending(name: str) -> str:
    """Why a file of that name is no picture that can be read, as `kind: advice`; empty where the name does not tell."""
    return _UNFINISHED if name.endswith("~") else _BY_ENDING.get(PurePath(name).suffix.lower(), "")


def explain_start(start: bytes) -> str:
    """Likewise, by a file's first bytes."""
    if _is_boxed(start) and start[8:12] not in (b"avif", b"avis") and not _find_plugin(start):
        return _RAW if start[8:12] == b"crx " else _VIDEO
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        return _VIDEO
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGES):
        return _PAGE
    if text.startswith((b"<svg", b"<?xml")) and b"<svg" in text:
        return _DRAWING
    return next((reason for known, reason in _STARTS if start.startswith(known)), "")


def is_picture(start: bytes) -> bool:
    """Does a file that starts so hold a picture of a format that is read, with or without a plugin?"""
    if start.startswith((*_PICTURES, _JPEG2000)) or _find_plugin(start):
        return True
    if _is_boxed(start):
        return start[8:12] in (b"avif", b"avis")
    return start[:4] == b"RIFF" and start[8:12] == b"WEBP"


def open_picture(data: bytes) -> Image.Image:
    """Pillow's picture of a file's bytes, not yet decoded. Raises what Pillow raises, and MissingExtraError where a plugin is missing."""
    name = _find_plugin(data[:START_BYTES])
    if name:
        _load_plugin(_PLUGINS[name])
    return Image.open(BytesIO(data), formats=(name,) if name else _FORMATS)


def is_raw(image: Image.Image) -> bool:
    """Is that the thumbnail in a raw picture, which looks like a TIFF file?"""
    if image.format != "TIFF":
        return False
    tags = image.tag_v2  # type: ignore[attr-defined]
    is_reduced = bool(tags.get(_SUBFILE_TYPE, 0) & 1) and _SUB_IFDS in tags
    return _DNG_VERSION in tags or is_reduced


def explain_raw() -> str:
    """The reason of a raw picture under another name."""
    return _RAW


def _is_boxed(start: bytes) -> bool:
    return start[4:8] == b"ftyp"


def _find_plugin(start: bytes) -> str:
    """The format of a plugin that this is; empty for none."""
    if start.startswith(_JPEG_XL):
        return "JXL"
    brands = {start[place : place + 4] for place in range(8, min(len(start), int.from_bytes(start[:4], "big")) - 3, 4)}
    # AVIF files name mif1 too, and Pillow itself reads them.
    return "HEIF" if _is_boxed(start) and brands & _HEIF_BRANDS and not brands & {b"avif", b"avis"} else ""


def _load_plugin(plugin: _Plugin) -> None:
    if importlib.util.find_spec(plugin.module) is None:
        raise MissingExtraError(f"{plugin.kind}: {plugin.command} to read it, or convert it to JPEG or PNG", fix=plugin.command)
    module = importlib.import_module(plugin.module)
    if plugin.register:
        getattr(module, plugin.register)()
