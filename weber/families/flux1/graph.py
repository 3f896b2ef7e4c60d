"""A picture of FLUX.1 as a graph of ComfyUI's nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weber.families.flux1.variants import Variant
from weber.families.graphs import Files, Graph, Painted, add_adapters, add_conditions, add_picture, add_sampler, choose_files
from weber.families.source import Source

_PUBLISHED = {"flux1-krea": "flux1-krea-dev", "flux1-kontext": "flux1-kontext-dev", "flux1-fill": "flux1-fill-dev"}
"""Names of the makers' files, where they are not called as the variant."""


def build_files(row: Variant) -> Files:
    """The files of a variant as they are published for ComfyUI."""
    name = _PUBLISHED.get(row.name, "flux1-pocket" if row.name == "pocket" else row.name)
    return Files(f"{name}.safetensors", ("clip_l.safetensors", "t5xxl_fp16.safetensors"), "ae.safetensors")


def build_model_graph(painted: Painted, *, source: Source, row: Variant, scheduler: Mapping[str, Any]) -> Graph:
    """Of the model at `source`; `scheduler`: the settings of its sampler."""
    shifts = {name: scheduler[name] for name in ("max_shift", "base_shift")} if scheduler["use_dynamic_shifting"] else None
    return build_graph(painted, choose_files(source, build_files(row), texts=("text_encoder", "text_encoder_2")), shifts=shifts)


def build_graph(painted: Painted, files: Files, *, shifts: Mapping[str, float] | None) -> Graph:
    """`shifts`: `base_shift` and `max_shift` of a sampler whose noise levels depend on the number of tokens."""
    graph = Graph()
    [model] = graph.add("UNETLoader", unet_name=painted.transformer or files.transformer, weight_dtype="default")
    [clip] = graph.add("DualCLIPLoader", clip_name1=files.texts[0], clip_name2=files.texts[1], type="flux", device="default")
    [vae] = graph.add("VAELoader", vae_name=files.vae)
    model, clip = add_adapters(graph, model, clip=clip, adapters=painted.adapters)
    if shifts is not None:
        [model] = graph.add("ModelSamplingFlux", model=model, **shifts, width=painted.width, height=painted.height)
    conditions = add_conditions(graph, painted, clip=clip, vae=vae, is_pair=painted.masked is not None)
    if painted.masked is not None and painted.mask is not None:
        pixels = add_picture(graph, painted.masked)
        [mask] = graph.add("LoadImageMask", image=painted.mask, channel="red")
        positive, negative, latent = graph.add(
            "InpaintModelConditioning",
            positive=conditions[0],
            negative=conditions[1],
            vae=vae,
            pixels=pixels,
            mask=mask,
            noise_mask=False,
        )
        conditions = [positive, negative]
    else:
        [latent] = graph.add("EmptySD3LatentImage", width=painted.width, height=painted.height, batch_size=1)
    [sigmas] = graph.add("BasicScheduler", model=model, scheduler="simple", steps=painted.steps, denoise=1.0)
    add_sampler(graph, painted, model=model, conditions=conditions, sigmas=sigmas, latent=latent, vae=vae)
    return graph
