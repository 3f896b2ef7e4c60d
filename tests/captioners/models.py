"""Tiny models of the real classes of transformers, with random weights, as folders that captioners read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPImageProcessorPil,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
)

SPECIAL = (
    *("<pad>", "<s>", "</s>", "<unk>", "<image>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|im_start|>", "<|im_end|>", "[DEC]", "[SEP]"),
)
WORDS = (
    *SPECIAL,
    *[
        "a",
        "cat",
        "dog",
        "red",
        "blue",
        "green",
        "sits",
        "on",
        "the",
        "mat",
        "user",
        "system",
        "assistant",
        "describe",
        "this",
        "image",
        "what",
        "is",
        "in",
        "it",
        "photo",
        "of",
    ],
    *["Question", "Answer", ":", "?", ".", ",", "short", "long", "you", "are", "painter", "Write", "caption"],
)
TEMPLATE = (
    "{% for m in messages %}<|im_start|> {{ m.role }} {% for c in m.content %}{% if c.type == 'image' %}MARK"
    "{% else %}{{ c.text }}{% endif %}{% endfor %} <|im_end|> {% endfor %}<|im_start|> assistant "
)
NUM_IMAGE_TOKENS = 4
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
IDS = {"vocab_size": len(WORDS), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def build_tokenizer(template: str | None = None, **keys: Any) -> PreTrainedTokenizerFast:
    """Each word is a token."""
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    given = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **keys}
    found = PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=list(SPECIAL[4:11]), **given)
    found.chat_template = template
    return found


def _find(word: str) -> int:
    return WORDS.index(word)


def _write_blip(folder: Path) -> None:
    text = {**SMALL, **IDS, "encoder_hidden_size": 16, "bos_token_id": _find("[DEC]"), "sep_token_id": _find("[SEP]"), "eos_token_id": 2}
    vision = {**SMALL, "image_size": 32, "patch_size": 16}
    BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    tokenizer = build_tokenizer(sep_token="[SEP]", cls_token="<s>")
    enclosed = TemplateProcessing("<s> $A [SEP]", special_tokens=[("<s>", _find("<s>")), ("[SEP]", _find("[SEP]"))])
    tokenizer.backend_tokenizer.post_processor = enclosed
    BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)


def _write_blip2(folder: Path) -> None:
    query = {**SMALL, "encoder_hidden_size": 16, "vocab_size": 30, "cross_attention_frequency": 1}
    text = {
        **IDS,
        "model_type": "opt",
        "hidden_size": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 16,
        "max_position_embeddings": 64,
    }
    config = Blip2Config(
        vision_config={**SMALL, "image_size": 32, "patch_size": 16},
        qformer_config=query,
        text_config=text,
        num_query_tokens=NUM_IMAGE_TOKENS,
        image_token_index=_find("<image>"),
    )
    Blip2ForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessorPil(size={"height": 32, "width": 32})
    Blip2Processor(images, build_tokenizer(), num_query_tokens=NUM_IMAGE_TOKENS).save_pretrained(folder)


def _write_git(folder: Path) -> None:
    config = GitConfig(**SMALL, **IDS, vision_config={**SMALL, "image_size": 32, "patch_size": 16}, max_position_embeddings=64)
    GitForCausalLM(config).save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32})
    GitProcessor(images, build_tokenizer(sep_token="</s>", cls_token="<s>")).save_pretrained(folder)


def _write_florence2(folder: Path) -> None:
    text = {
        **IDS,
        "model_type": "bart",
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": 128,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": 2,
        "is_encoder_decoder": True,
    }
    vision = {
        "depths": [1, 1],
        "embed_dim": [8, 16],
        "num_heads": [2, 2],
        "num_groups": [2, 2],
        "patch_size": [7, 3],
        "patch_stride": [4, 2],
        "patch_padding": [3, 1],
        "patch_prenorm": [False, True],
        "window_size": 4,
        "projection_dim": 16,
        "max_position_embeddings": 50,
        "max_temporal_embeddings": 10,
    }
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=_find("<image>"), is_encoder_decoder=True)
    Florence2ForConditionalGeneration(config).save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
    images.image_seq_length = 17
    tokenizer = build_tokenizer(extra_special_tokens={"image_token": "<image>"})
    Florence2Processor(images, tokenizer).save_pretrained(folder)


def _build_qwen_text(**more: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    return {**SMALL, **IDS, "num_key_value_heads": 2, "rope_parameters": rope, "max_position_embeddings": 512, **more}


def _list_marks() -> dict[str, int]:
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>", "vision_start_token_id": "<|vision_start|>"}
    return {key: _find(word) for key, word in {**names, "vision_end_token_id": "<|vision_end|>"}.items()}


def _write_qwen(folder: Path) -> None:
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(text_config=_build_qwen_text(), vision_config=vision, **_list_marks())
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    build_tokenizer(TEMPLATE.replace("MARK", "<|vision_start|> <|image_pad|> <|vision_end|> ")).save_pretrained(folder)
    Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112}).save_pretrained(folder)


def _write_qwen3(folder: Path) -> None:
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 16,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "deepstack_visual_indexes": [0],
        "num_position_embeddings": 64,
    }
    config = Qwen3VLConfig(text_config=_build_qwen_text(head_dim=8), vision_config=vision, **_list_marks())
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    build_tokenizer(TEMPLATE.replace("MARK", "<|vision_start|> <|image_pad|> <|vision_end|> ")).save_pretrained(folder)
    size = {"shortest_edge": 64 * 64, "longest_edge": 128 * 128}
    Qwen2VLImageProcessorPil(size=size, patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(folder)


def _write_joycaption(folder: Path) -> None:
    vision = {**SMALL, "model_type": "siglip_vision_model", "image_size": 32, "patch_size": 16}
    text = {**SMALL, **IDS, "model_type": "llama", "num_key_value_heads": 2, "max_position_embeddings": 256}
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=_find("<image>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-2,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    tokenizer = build_tokenizer(TEMPLATE.replace("MARK", "<image> "))
    LlavaProcessor(images, tokenizer, patch_size=16, vision_feature_select_strategy="full").save_pretrained(folder)


def write_clipseg(folder: Path) -> Path:
    """A model that finds what words say."""
    vision = {**SMALL, "image_size": 32, "patch_size": 16}
    text = {**SMALL, **IDS, "max_position_embeddings": 16}
    config = CLIPSegConfig(text_config=text, vision_config=vision, projection_dim=16, reduce_dim=8, extract_layers=[0, 1])
    config.decoder_num_attention_heads, config.decoder_intermediate_size = 2, 16
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPSegForImageSegmentation(config).save_pretrained(folder)
    images = ViTImageProcessorPil(size={"height": 32, "width": 32})
    CLIPSegProcessor(images, build_tokenizer()).save_pretrained(folder)
    return folder


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "blip": ("blip", _write_blip),
    "blip2": ("blip2", _write_blip2),
    "git": ("git", _write_git),
    "florence2": ("florence2", _write_florence2),
    "qwen-vl": ("qwen-vl", _write_qwen),
    "qwen3-vl": ("qwen-vl", _write_qwen3),
    "joycaption": ("joycaption", _write_joycaption),
}
"""The captioner that reads a folder, and what writes it."""


def write_model(kind: str, folder: Path) -> Path:
    """A model of that kind, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        WRITERS[kind][1](folder)
    return folder
