"""Sizes, shapes and windows of a set's pictures: which settings have an effect beside which others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LISTED = ('aspect = "listed"', 'remove it or set aspect = "bucket"')


def list_shape_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """What cannot act, as sentences that say what to change; `values` are the settings of a set."""
    yield from _list_resolution_problems(values)
    yield from _list_crop_problems(values)
    yield from _list_aspect_problems(values)
    yield from _list_listed_problems(values)
    yield from _list_side_problems(values)
    yield from _list_filter_problems(values)
    if values["mirror_sides"] != "mirror" and not values["mirror"]:
        yield f'mirror_sides = "{values["mirror_sides"]}" has no effect without mirror = true; set that or remove it'
    if values["num_colors"] is not None and values["color_jitter"] is None:
        yield "num_colors has no effect without color_jitter; set color_jitter = 0.1 or so, or remove it"


def _list_resolution_problems(values: Mapping[str, Any]) -> Iterator[str]:
    resolution, unit = values["resolution"], values["resolution_type"]
    if unit == "megapixels" and resolution is None:
        yield 'resolution_type = "megapixels" needs resolution; set it, for example resolution = 1.0'
    if unit == "shorter_edge" and values["geometry"] not in ("ours", "simpletuner"):
        yield f'resolution_type = "shorter_edge" has no effect with geometry = "{values["geometry"]}", which goes by the area; remove it'
    several = resolution if isinstance(resolution, list) else [resolution]
    twice = next((one for one in several if several.count(one) > 1), None)
    if twice is not None:
        yield f"resolution has {twice} twice; name each once, and set repeats to use its pictures more often"
    rectangle = next((one for one in several if isinstance(one, str)), None)
    if rectangle is None:
        return
    if unit != "area":
        yield f'resolution = "{rectangle}" is in pixels, so resolution_type = "{unit}" has no effect; remove resolution_type'
    if values["aspect"] == "square":
        size = ", ".join(rectangle.replace(" ", "").split("x"))
        yield f'resolution = "{rectangle}" with aspect = "square" would be no square; for this one size write buckets = [[{size}]] instead'


def _list_crop_problems(values: Mapping[str, Any]) -> Iterator[str]:
    crop, aspect = values["crop"], values["aspect"]
    if values["num_crops"] is not None and crop != "random":
        yield f'num_crops has no effect with crop = "{crop}"; set crop = "random" or remove num_crops'
    if aspect in ("square", "closest", "random") and crop == "off":
        instead = "squares" if aspect == "square" else "other shapes"
        yield f'aspect = "{aspect}" with crop = "off" would distort the pictures to {instead}; set crop = "center" or aspect = "bucket"'
    if aspect in ("square", "closest", "random") and values["max_aspect"] != 4.0:
        yield f'max_aspect has no effect with aspect = "{aspect}"; remove it or set aspect = "bucket"'
    to, above = values["downsample_to"], values["downsample_above"]
    if to is None and above is not None:
        yield "downsample_above has no effect without downsample_to; set that too"
    if to is not None and crop == "off":
        yield 'downsample_to has no effect with crop = "off", which cuts nothing; remove one of them'
    if above is not None and values["geometry"] == "simpletuner":
        yield 'downsample_above has no effect with geometry = "simpletuner", where every picture is resized to downsample_to; remove it'
    resolution = values["resolution"]
    largest = max((one for one in (resolution if isinstance(resolution, list) else [resolution]) if isinstance(one, float)), default=None)
    if to is not None and largest is not None and to <= largest:
        yield f"downsample_to = {to:g} has no effect, because pictures are trained at resolution = {largest:g}; raise it"
    if to is not None and above is not None and above < to:
        yield f"downsample_above = {above:g} is below downsample_to = {to:g}, and nothing is enlarged; raise it"


def _list_aspect_problems(values: Mapping[str, Any]) -> Iterator[str]:
    aspect, aspects, weights = values["aspect"], values["aspects"], values["aspect_weights"]
    if aspect in ("closest", "random") and not aspects:
        yield f'aspect = "{aspect}" needs aspects; write the shapes, for example aspects = [1.0, 0.75, 1.5]'
    if aspects and aspect not in ("closest", "random"):
        yield 'aspects has no effect without aspect = "closest" or "random"; set one of them or remove aspects'
    twice = next((one for one in aspects if aspects.count(one) > 1), None)
    if twice is not None:
        yield f"aspects has {twice:g} twice; name each once" + (", and set aspect_weights" if aspect == "random" else "")
    extreme = next((one for one in aspects if not 1 / 16 <= one <= 16), None)
    if extreme is not None:
        yield f"aspects has {extreme:g}, longer than 16 to 1; write width divided by height"
    if weights and aspect != "random":
        yield 'aspect_weights has no effect without aspect = "random"; set that or remove it'
    elif weights and len(weights) != len(aspects):
        yield f"aspect_weights has {len(weights)} numbers for {len(aspects)} aspects; give one for each, in order"


def _list_listed_problems(values: Mapping[str, Any]) -> Iterator[str]:
    buckets, aspect = values["buckets"], values["aspect"]
    if buckets and aspect not in (None, "listed"):
        yield f'buckets has no effect with aspect = "{aspect}"; remove one of them'
    for size in buckets:
        if buckets.count(size) > 1:
            yield f"buckets has {size} twice; name each size once"
    if not buckets and aspect != "listed":
        return
    what, fix = ("buckets", "remove one of them") if buckets else _LISTED
    if values["resolution"] is not None:
        yield f"resolution has no effect with {what}; {fix}"
    if values["resolution_type"] != "area":
        yield f"resolution_type has no effect with {what}; {fix}"
    if values["bucket_step"] is not None and values["upscale"]:
        yield f"bucket_step has no effect with {what} and upscale = true; {fix}"
    if values["geometry"] != "ours":
        yield f'geometry = "{values["geometry"]}" has no effect with {what}; {fix}'


def _list_side_problems(values: Mapping[str, Any]) -> Iterator[str]:
    shortest, longest = values["shortest_side"], values["longest_side"]
    if shortest is not None and longest is not None and shortest > longest:
        yield f"shortest_side = {shortest} is above longest_side = {longest}; exchange them"
    name = next((name for name in ("shortest_side", "longest_side") if values[name] is not None), None)
    if name is None:
        return
    if values["buckets"] or values["aspect"] in ("square", "listed"):
        what = "buckets" if values["buckets"] else f'aspect = "{values["aspect"]}"'
        yield f"{name} has no effect with {what}; remove one of them"
    if values["geometry"] in ("ai-toolkit", "onetrainer", "simpletuner"):
        yield f'{name} has no effect with geometry = "{values["geometry"]}", which knows no such limit; remove one of them'
    if values["geometry"] == "kohya" and not values["upscale"]:
        yield f'{name} has no effect with geometry = "kohya" and upscale = false; set upscale = true or remove {name}'


def _list_filter_problems(values: Mapping[str, Any]) -> Iterator[str]:
    pairs = (("minimum_edge", "maximum_edge"), ("minimum_megapixels", "maximum_megapixels"))
    for low, high in pairs:
        if values[low] is not None and values[high] is not None and values[low] > values[high]:
            yield f"{low} = {values[low]:g} is above {high} = {values[high]:g}, so no picture would be left; exchange them"
    between = values["aspect_range"]
    if between is not None and between[0] > between[1]:
        yield f"aspect_range = [{between[0]:g}, {between[1]:g}] ends below its start; exchange the numbers"
