"""A picture as a graph of ComfyUI's nodes, in both of its forms: as its server takes it, and as its editor draws it.

Names and order of nodes, inputs and outputs are those of ComfyUI in January 2026 (nodes.py, comfy_extras); the tests compare them with
what was read there. What a family's graph is made of is in the family's own folder.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TypedDict

from weber.families.source import Source, name_file, name_single

_COLUMN, _ROW = 400, 260
_SIZE = (340, 200)


@dataclass(frozen=True)
class Added:
    """An adapter that takes part in a picture: the name of its file, its strength, and whether CLIP is part of it."""

    file: str
    strength: float
    has_text: bool = False


@dataclass(frozen=True)
class Given:
    """A picture that goes with a prompt: the name of its file, and (width, height) as the model sees it."""

    file: str
    size: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Painted:
    """All that makes a picture, with names of files and never their folders. `transformer`: a model that a run has trained; None: the base.

    `adapter` is the one that was trained, `others` those that were frozen. `step`: of the run. `masked`, `mask`: of what is painted anew.
    `no_cfg_until`: first steps without classifier-free guidance; `blocks`: strengths of single blocks, which no graph can have.
    """

    variant: str
    prompt: str
    seed: int
    steps: int
    width: int
    height: int
    guidance: float | None = None
    cfg: float = 1.0
    negative: str | None = None
    name: str | None = None
    step: int | None = None
    transformer: str | None = None
    adapter: Added | None = None
    others: tuple[Added, ...] = ()
    references: tuple[Given, ...] = ()
    masked: Given | None = None
    mask: str | None = None
    references_are_clean: bool = False
    no_cfg_until: int | None = None
    blocks: str | None = None

    @property
    def adapters(self) -> tuple[Added, ...]:
        """Those that change the picture."""
        return tuple(one for one in (*self.others, self.adapter) if one is not None and one.strength != 0)


@dataclass(frozen=True)
class Files:
    """The files that a graph loads, by name."""

    transformer: str
    texts: tuple[str, ...]
    vae: str


def choose_files(source: Source, files: Files, *, texts: Sequence[str]) -> Files:
    """What a model's parts are called there: files as they are named here, else as they are published. `texts`: the text parts."""
    return Files(
        name_file(source, "transformer") or files.transformer,
        tuple(name_single(source, part) or name for part, name in zip(texts, files.texts, strict=True)),
        name_single(source, "vae") or files.vae,
    )


@dataclass(frozen=True)
class Link:
    """An output of a node."""

    node: int
    slot: int


@dataclass(frozen=True)
class NodeRow:
    """A kind of node: what is linked to it (name and type), its widgets in order, and the types of its outputs.

    `hidden`: values that the editor keeps beside a widget, which are no inputs.
    """

    links: Mapping[str, str]
    widgets: tuple[str, ...]
    outputs: tuple[str, ...]
    hidden: Mapping[str, str] = field(default_factory=dict)


_LATENT_SIZE = ("width", "height", "batch_size")

NODES: Mapping[str, NodeRow] = {
    "UNETLoader": NodeRow({}, ("unet_name", "weight_dtype"), ("MODEL",)),
    "CLIPLoader": NodeRow({}, ("clip_name", "type", "device"), ("CLIP",)),
    "DualCLIPLoader": NodeRow({}, ("clip_name1", "clip_name2", "type", "device"), ("CLIP",)),
    "VAELoader": NodeRow({}, ("vae_name",), ("VAE",)),
    "LoraLoader": NodeRow(
        {"model": "MODEL", "clip": "CLIP"}, ("lora_name", "strength_model", "strength_clip"), ("MODEL", "CLIP")
    ),
    "LoraLoaderModelOnly": NodeRow({"model": "MODEL"}, ("lora_name", "strength_model"), ("MODEL",)),
    "CLIPTextEncode": NodeRow({"clip": "CLIP"}, ("text",), ("CONDITIONING",)),
    "FluxGuidance": NodeRow({"conditioning": "CONDITIONING"}, ("guidance",), ("CONDITIONING",)),
    "ReferenceLatent": NodeRow({"conditioning": "CONDITIONING", "latent": "LATENT"}, (), ("CONDITIONING",)),
    "FluxKontextMultiReferenceLatentMethod": NodeRow(
        {"conditioning": "CONDITIONING"}, ("reference_latents_method",), ("CONDITIONING",)
    ),
    "InpaintModelConditioning": NodeRow(
        {"positive": "CONDITIONING", "negative": "CONDITIONING", "vae": "VAE", "pixels": "IMAGE", "mask": "MASK"},
        ("noise_mask",),
        ("CONDITIONING", "CONDITIONING", "LATENT"),
    ),
    "LoadImage": NodeRow({}, ("image",), ("IMAGE", "MASK"), {"image": "image"}),
    "LoadImageMask": NodeRow({}, ("image", "channel"), ("MASK",), {"channel": "image"}),
    "ImageScale": NodeRow({"image": "IMAGE"}, ("upscale_method", "width", "height", "crop"), ("IMAGE",)),
    "VAEEncode": NodeRow({"pixels": "IMAGE", "vae": "VAE"}, (), ("LATENT",)),
    "EmptySD3LatentImage": NodeRow({}, _LATENT_SIZE, ("LATENT",)),
    "EmptyFlux2LatentImage": NodeRow({}, _LATENT_SIZE, ("LATENT",)),
    "ModelSamplingFlux": NodeRow({"model": "MODEL"}, ("max_shift", "base_shift", "width", "height"), ("MODEL",)),
    "BasicScheduler": NodeRow({"model": "MODEL"}, ("scheduler", "steps", "denoise"), ("SIGMAS",)),
    "Flux2Scheduler": NodeRow({}, ("steps", "width", "height"), ("SIGMAS",)),
    "KSamplerSelect": NodeRow({}, ("sampler_name",), ("SAMPLER",)),
    "SplitSigmas": NodeRow({"sigmas": "SIGMAS"}, ("step",), ("SIGMAS", "SIGMAS")),
    "DisableNoise": NodeRow({}, (), ("NOISE",)),
    "RandomNoise": NodeRow({}, ("noise_seed",), ("NOISE",), {"noise_seed": "fixed"}),
    "BasicGuider": NodeRow({"model": "MODEL", "conditioning": "CONDITIONING"}, (), ("GUIDER",)),
    "CFGGuider": NodeRow({"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING"}, ("cfg",), ("GUIDER",)),
    "SamplerCustomAdvanced": NodeRow(
        {"noise": "NOISE", "guider": "GUIDER", "sampler": "SAMPLER", "sigmas": "SIGMAS", "latent_image": "LATENT"},
        (),
        ("LATENT", "LATENT"),
    ),
    "VAEDecode": NodeRow({"samples": "LATENT", "vae": "VAE"}, (), ("IMAGE",)),
    "SaveImage": NodeRow({"images": "IMAGE"}, ("filename_prefix",), ()),
}

_OUTPUT_NAMES = {
    "SamplerCustomAdvanced": ("output", "denoised_output"),
    "InpaintModelConditioning": ("positive", "negative", "latent"),
    "SplitSigmas": ("high_sigmas", "low_sigmas"),
}
"""Where they are not called as their type."""


class Node(TypedDict):
    """A node as the server takes it."""

    class_type: str
    inputs: dict[str, object]


class Graph:
    """Nodes in the order in which they were added, each after those that it is linked to."""

    def __init__(self) -> None:
        self._nodes: list[tuple[str, dict[str, Link | str | int | float | bool]]] = []

    def add(self, kind: str, **inputs: Link | str | int | float | bool) -> list[Link]:
        """Add a node with all of its inputs; returns its outputs."""
        row = NODES[kind]
        assert {*row.links, *row.widgets} == inputs.keys(), (kind, sorted(inputs))
        for name, wanted in row.links.items():
            link = inputs[name]
            assert isinstance(link, Link) and NODES[self._nodes[link.node - 1][0]].outputs[link.slot] == wanted, (kind, name)
        self._nodes.append((kind, inputs))
        return [Link(len(self._nodes), slot) for slot in range(len(row.outputs))]

    def build_prompt(self) -> dict[str, Node]:
        """The form that the server takes."""
        return {
            str(number): {
                "class_type": kind,
                "inputs": {name: [str(one.node), one.slot] if isinstance(one, Link) else one for name, one in inputs.items()},
            }
            for number, (kind, inputs) in enumerate(self._nodes, 1)
        }

    def build_workflow(self) -> dict[str, object]:
        """The form that the editor draws."""
        links = [
            (one.node, one.slot, number, place, NODES[kind].links[name])
            for number, (kind, inputs) in enumerate(self._nodes, 1)
            for place, name in enumerate(NODES[kind].links)
            if isinstance(one := inputs[name], Link)
        ]
        numbers = {(link[2], link[3]): number for number, link in enumerate(links, 1)}
        leaving: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for number, link in enumerate(links, 1):
            leaving[link[0], link[1]].append(number)
        places = self._list_places()
        nodes = []
        for number, (kind, inputs) in enumerate(self._nodes, 1):
            row = NODES[kind]
            names = _OUTPUT_NAMES.get(kind, row.outputs)
            widgets = [[inputs[name], *([row.hidden[name]] if name in row.hidden else [])] for name in row.widgets]
            nodes.append(
                {
                    "id": number,
                    "type": kind,
                    "pos": places[number - 1],
                    "size": list(_SIZE),
                    "flags": {},
                    "order": number - 1,
                    "mode": 0,
                    "inputs": [
                        {"name": name, "type": type_, "link": numbers[number, place]}
                        for place, (name, type_) in enumerate(row.links.items())
                    ],
                    "outputs": [
                        {"name": name, "type": type_, "links": leaving[number, slot], "slot_index": slot}
                        for slot, (name, type_) in enumerate(zip(names, row.outputs, strict=True))
                    ],
                    "properties": {"Node name for S&R": kind},
                    "widgets_values": [value for values in widgets for value in values],
                }
            )
        return {
            "last_node_id": len(nodes),
            "last_link_id": len(links),
            "nodes": nodes,
            "links": [[number, *link] for number, link in enumerate(links, 1)],
            "groups": [],
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    def _list_places(self) -> list[list[int]]:
        """Left to right as the work goes, nodes of equal depth below each other."""
        depths: list[int] = []
        for _, inputs in self._nodes:
            depths.append(max((depths[one.node - 1] + 1 for one in inputs.values() if isinstance(one, Link)), default=0))
        return [[_COLUMN * depth, _ROW * depths[:number].count(depth)] for number, depth in enumerate(depths)]


BuildGraph = Callable[[Painted], Graph | None]
"""From a picture to its graph; None where ComfyUI has no nodes for the model."""


def build_no_graph(painted: Painted) -> None:
    """Of a model that ComfyUI had no nodes for when this was written."""


def add_adapters(graph: Graph, model: Link, *, clip: Link, adapters: Sequence[Added]) -> tuple[Link, Link]:
    """The model and the text encoder with the adapters on them."""
    for one in adapters:
        if one.has_text:
            model, clip = graph.add(
                "LoraLoader", model=model, clip=clip, lora_name=one.file, strength_model=one.strength, strength_clip=one.strength
            )
        else:
            [model] = graph.add("LoraLoaderModelOnly", model=model, lora_name=one.file, strength_model=one.strength)
    return model, clip


def add_conditions(graph: Graph, painted: Painted, *, clip: Link, vae: Link, is_pair: bool = False) -> list[Link]:
    """What the network is told: of the prompt, and of the negative one where there is guidance away from it, or where it is a pair."""
    latents = [_add_latent(graph, one, vae=vae) for one in painted.references]
    conditions = []
    for text in [painted.prompt, *([painted.negative or ""] if painted.cfg != 1 or is_pair else [])]:
        [condition] = graph.add("CLIPTextEncode", clip=clip, text=_escape(text))
        if painted.guidance is not None:
            [condition] = graph.add("FluxGuidance", conditioning=condition, guidance=painted.guidance)
        for latent in latents:
            [condition] = graph.add("ReferenceLatent", conditioning=condition, latent=latent)
        if latents and painted.references_are_clean:
            [condition] = graph.add(
                "FluxKontextMultiReferenceLatentMethod", conditioning=condition, reference_latents_method="index_timestep_zero"
            )
        conditions.append(condition)
    return conditions


def add_picture(graph: Graph, given: Given) -> Link:
    """A picture at the size at which the model sees it."""
    image, _ = graph.add("LoadImage", image=given.file)
    width, height = given.size
    [image] = graph.add("ImageScale", image=image, upscale_method="lanczos", width=width, height=height, crop="center")
    return image


def add_sampler(
    graph: Graph, painted: Painted, *, model: Link, conditions: Sequence[Link], sigmas: Link, latent: Link, vae: Link
) -> None:
    """From noise to a picture, by Euler steps."""
    [noise] = graph.add("RandomNoise", noise_seed=painted.seed)
    [sampler] = graph.add("KSamplerSelect", sampler_name="euler")
    if painted.no_cfg_until:
        first, sigmas = graph.add("SplitSigmas", sigmas=sigmas, step=painted.no_cfg_until)
        [guider] = graph.add("BasicGuider", model=model, conditioning=conditions[0])
        latent, _ = graph.add("SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=first, latent_image=latent)
        [noise] = graph.add("DisableNoise")
    if painted.cfg == 1:
        [guider] = graph.add("BasicGuider", model=model, conditioning=conditions[0])
    else:
        [guider] = graph.add("CFGGuider", model=model, positive=conditions[0], negative=conditions[1], cfg=painted.cfg)
    samples, _ = graph.add("SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent)
    [image] = graph.add("VAEDecode", samples=samples, vae=vae)
    graph.add("SaveImage", images=image, filename_prefix="weber")


def build_file_name(place: str) -> str:
    """The name of a file or folder, or of what an address names: no folder, no host, nothing that opens a door."""
    return PurePath(place.partition("?")[0].partition("#")[0]).name


def _add_latent(graph: Graph, given: Given, *, vae: Link) -> Link:
    [latent] = graph.add("VAEEncode", pixels=add_picture(graph, given), vae=vae)
    return latent


def _escape(text: str) -> str:
    """There, brackets weigh words; here they are signs like others."""
    return text.replace("(", "\\(").replace(")", "\\)")
