"""A picture of FLUX.2 as a graph of ComfyUI's nodes."""

from __future__ import annotations

from weber.families.flux2.variants import Variant
from weber.families.graphs import Files, Graph, Painted, add_adapters, add_conditions, add_sampler, choose_files
from weber.families.source import Source

_TEXTS = {15360: "mistral_3_small_flux2_bf16", 7680: "qwen_3_4b", 12288: "qwen_3_8b"}
"""Names of the text encoders' files, by the width of what they say."""


def build_files(row: Variant) -> Files:
    """The files of a variant as they are published for ComfyUI."""
    name = row.name if row.has_guidance else row.name.replace("flux2", "flux-2")
    return Files(f"{name}.safetensors", (f"{_TEXTS[row.text_width]}.safetensors",), "flux2-vae.safetensors")


def build_model_graph(painted: Painted, *, source: Source, row: Variant) -> Graph:
    """Of the model at `source`."""
    return build_graph(painted, choose_files(source, build_files(row), texts=("text_encoder",)))


def build_graph(painted: Painted, files: Files) -> Graph:
    """The noise levels are those of `Flux2Scheduler`, which are ours."""
    graph = Graph()
    [model] = graph.add("UNETLoader", unet_name=painted.transformer or files.transformer, weight_dtype="default")
    [clip] = graph.add("CLIPLoader", clip_name=files.texts[0], type="flux2", device="default")
    [vae] = graph.add("VAELoader", vae_name=files.vae)
    model, clip = add_adapters(graph, model, clip=clip, adapters=painted.adapters)
    conditions = add_conditions(graph, painted, clip=clip, vae=vae)
    [latent] = graph.add("EmptyFlux2LatentImage", width=painted.width, height=painted.height, batch_size=1)
    [sigmas] = graph.add("Flux2Scheduler", steps=painted.steps, width=painted.width, height=painted.height)
    add_sampler(graph, painted, model=model, conditions=conditions, sigmas=sigmas, latent=latent, vae=vae)
    return graph
