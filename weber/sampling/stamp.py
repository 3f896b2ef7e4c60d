"""What made a picture, as texts that its file carries: for weber, for readers of other programs, and as a graph of ComfyUI."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from weber.families.family import Family
from weber.families.graphs import Painted
from weber.version import VERSION

OURS, LINE, PROMPT, WORKFLOW = "weber", "parameters", "prompt", "workflow"
KEYS = (OURS, LINE, PROMPT, WORKFLOW)
"""The texts, by the keys that programs look for."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def build_texts(painted: Painted, family: Family) -> dict[str, str]:
    """The texts of a picture; without a graph where ComfyUI has no nodes for the model or for what was asked."""
    texts = {OURS: json.dumps(_describe(painted)), LINE: _build_line(painted)}
    graph = None if painted.blocks is not None else family.build_graph(painted)  # it would paint another picture
    if graph is None:
        return texts
    return texts | {PROMPT: json.dumps(graph.build_prompt()), WORKFLOW: json.dumps(graph.build_workflow())}


def build_info(picture: Image.Image) -> PngInfo:
    """What a file of the picture says of it: the texts that were put into its `info`."""
    info = PngInfo()
    for key in KEYS:
        text = picture.info.get(key)
        if isinstance(text, str):
            info.add_text(key, text)  # of latin-1, else as UTF-8, as other programs do it
    return info


def _describe(painted: Painted) -> dict[str, object]:
    """Every setting that is there."""
    facts = asdict(painted)
    size = facts.pop("width"), facts.pop("height")
    return {"version": VERSION, "size": list(size)} | {name: value for name, value in facts.items() if not _is_idle(value)}


def _is_idle(value: object) -> bool:
    """Whether there is no such thing; 0 is a number."""
    return value is None or value is False or value == ()


def _build_line(painted: Painted) -> str:
    """The prompt, the negative one, and settings in one line, as AUTOMATIC1111's programs write them."""
    adapters = "".join(f" <lora:{one.file.removesuffix('.safetensors')}:{one.strength:g}>" for one in painted.adapters)
    lines = [_clean(painted.prompt) + adapters]
    if painted.cfg != 1 and painted.negative:
        lines.append(f"Negative prompt: {_clean(painted.negative)}")
    settings = {
        "Steps": f"{painted.steps}",
        "Sampler": "Euler",
        "Schedule type": "Simple",
        "CFG scale": f"{painted.cfg:g}",
        **({} if painted.guidance is None else {"Distilled CFG Scale": f"{painted.guidance:g}"}),
        "Seed": f"{painted.seed}",
        "Size": f"{painted.width}x{painted.height}",
        "Model": (painted.transformer or painted.variant).removesuffix(".safetensors"),
        "Version": f"weber {VERSION}",
    }
    return "\n".join([*lines, ", ".join(f"{name}: {value}" for name, value in settings.items())])


def _clean(text: str) -> str:
    return _CONTROL.sub(" ", text)
