"""Captioners that go on with a text: BLIP, BLIP-2 and GIT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from weber.captioners.loaded import Runner, find_folder, load_as_told, load_network, put_network
from weber.captioners.wish import Describe, Wish
from weber.config.memory import MemoryConfig
from weber.errors import ModelError
from weber.memory.device import build_device, build_dtype

_MAX_LENGTH = 75
_PICKLES = (".pth", ".pt")
BLIP_HOME = "Salesforce/blip-image-captioning-large"


def build_blip(place: str, wish: Wish, *, memory: MemoryConfig) -> Describe:
    """BLIP: a folder, a hub id, or its makers' file (`model_large_caption.pth`), whose tokenizer and sizes are then those of the hub."""
    from transformers import BlipForConditionalGeneration

    path = Path(place).expanduser()
    is_original = path.suffix.lower() in _PICKLES
    folder = find_folder(BLIP_HOME if is_original else place)
    if is_original:
        network = put_network(_load_original(BlipForConditionalGeneration, path, folder, memory), memory)
    else:
        network = load_network(BlipForConditionalGeneration, folder, memory=memory)
    return _build(network, folder, wish, max_length=_MAX_LENGTH)


def build_blip2(place: str, wish: Wish, *, memory: MemoryConfig) -> Describe:
    """BLIP-2: a question is best written as "Question: what is this? Answer:"."""
    from transformers import Blip2ForConditionalGeneration

    folder = find_folder(place)
    return _build(load_network(Blip2ForConditionalGeneration, folder, memory=memory), folder, wish, max_length=_MAX_LENGTH)


def build_git(place: str, wish: Wish, *, memory: MemoryConfig) -> Describe:
    """GIT."""
    from transformers import GitForCausalLM

    folder = find_folder(place)
    return _build(load_network(GitForCausalLM, folder, memory=memory), folder, wish, max_length=_MAX_LENGTH)


def _build(network: Any, folder: Path, wish: Wish, *, max_length: int) -> Describe:
    from transformers import AutoProcessor

    load: Any = AutoProcessor
    processor = load_as_told(lambda: load.from_pretrained(str(folder)), folder)
    runner = Runner(network, processor.tokenizer, wish, max_length)

    def describe(images: Sequence[Image.Image]) -> list[str]:
        if wish.question is None and network.config.model_type != "blip-2":
            inputs = dict(processor(images=list(images), return_tensors="pt"))
        else:
            texts = [wish.question or ""] * len(images)
            inputs = dict(processor(images=list(images), text=texts, return_tensors="pt", padding=True))
            inputs = _cut_end(inputs, network.config.model_type, processor.tokenizer)
        inputs.pop("token_type_ids", None)
        num_prompt_tokens = inputs["input_ids"].shape[1] if network.config.model_type == "blip-2" else 0
        return runner.run(inputs, num_prompt_tokens=num_prompt_tokens)

    return describe


def _cut_end(inputs: dict[str, Tensor], kind: str, tokenizer: Any) -> dict[str, Tensor]:
    """GIT's text goes on where its beginning ends, so without the mark of the end; BLIP cuts it off by itself."""
    if kind != "git":
        return inputs
    ends = inputs["input_ids"][:, -1] == tokenizer.sep_token_id
    if not bool(ends.all()):
        return inputs
    return {name: one[:, :-1] if name in ("input_ids", "attention_mask") else one for name, one in inputs.items()}


# ---- the file of BLIP's makers

_RENAMED = (
    ("visual_encoder", "vision_model.encoder"),
    ("blocks", "layers"),
    ("attn", "self_attn"),
    ("norm1", "layer_norm1"),
    ("norm2", "layer_norm2"),
    ("encoder.norm", "post_layernorm"),
    ("encoder.patch_embed.proj", "embeddings.patch_embedding"),
    ("encoder.pos_embed", "embeddings.position_embedding"),
    ("encoder.cls_token", "embeddings.class_embedding"),
    ("self_attn.proj", "self_attn.projection"),
)
"""Parts of names in the makers' file (salesforce/BLIP, models/vit.py) and in transformers, in that order, for the vision part."""


def rename_original(name: str) -> str:
    """The name in transformers of a tensor of salesforce/BLIP."""
    if not name.startswith("visual_encoder."):
        return name
    for old, new in _RENAMED:
        name = name.replace(old, new)
    return name


def _load_original(kind: Any, file: Path, folder: Path, memory: MemoryConfig) -> Any:
    """The weights of the makers' file, which is a pickle: tensors alone are read from it, and no code."""
    if not file.is_file():
        raise ModelError("There is no such file.", got=str(file), fix="correct --model")
    config = load_as_told(lambda: kind.config_class.from_pretrained(str(folder)), folder)
    tree = load_as_told(lambda: torch.load(file, map_location="cpu", weights_only=True), file)
    tensors = tree.get("model", tree) if isinstance(tree, dict) else {}
    weights = {rename_original(name): tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    network = kind(config)
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in weights and not name.endswith("position_ids")]
    misshaped = [name for name, tensor in wanted.items() if name in weights and weights[name].shape != tensor.shape]
    tied = {name for name in missing if name.startswith("text_decoder.cls.predictions.decoder")}
    if wrong := [*(name for name in missing if name not in tied), *misshaped]:
        raise ModelError(
            "The file is not BLIP's captioner of that size.",
            got=f"{file}: {len(wrong)} tensors are missing or of another shape, such as {wrong[0]}",
            expected=f"the tensors of {folder.name} under the names of salesforce/BLIP, such as model_large_caption.pth",
            fix=f"use --model {BLIP_HOME}, which is the same model",
        )
    network.load_state_dict({name: tensor for name, tensor in weights.items() if name in wanted}, strict=False)
    network.tie_weights()
    return network.to(build_dtype(memory, build_device(memory)))
