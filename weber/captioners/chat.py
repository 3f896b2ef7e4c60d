"""Captioners that are talked to: Qwen's models that see, and LLaVA, of which JoyCaption is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image
from torch import Tensor

from weber.captioners.loaded import Runner, find_folder, load_as_told, load_network
from weber.captioners.wish import Describe, Wish
from weber.config.memory import MemoryConfig
from weber.errors import ModelError

_MAX_LENGTH = 512
_QWEN_QUESTION = "Describe this image in one paragraph. Say what is there, where, and how it looks, and nothing else."
_JOY_QUESTION = "Write a long descriptive caption for this image in a formal tone."
_JOY_SYSTEM = "You are a helpful image captioner."


@dataclass(frozen=True)
class _Talk:
    """What a kind of model needs beside the picture: what marks it in a text, and how many marks each picture takes."""

    mark: str
    question: str
    system: str | None
    count: Callable[[dict[str, Any], int], int]
    has_types: bool = False
    """Is it told which of its tokens are pictures?"""


def build_qwen(place: str, wish: Wish, *, memory: MemoryConfig) -> Describe:
    """Qwen2.5-VL, Qwen2-VL and Qwen3-VL."""
    folder = find_folder(place)
    merged = load_images(folder).merge_size ** 2

    def count(pictures: dict[str, Any], number: int) -> int:
        return int(pictures["image_grid_thw"][number].prod()) // int(merged)

    return _build(folder, wish, memory, _Talk("<|image_pad|>", _QWEN_QUESTION, None, count, has_types=True))


def build_llava(place: str, wish: Wish, *, memory: MemoryConfig) -> Describe:
    """LLaVA, such as JoyCaption."""
    folder = find_folder(place)
    facts = {**_read_json(folder / "config.json"), **_read_json(folder / "processor_config.json")}
    vision = facts.get("vision_config", {})
    patch = int(facts.get("patch_size") or vision.get("patch_size") or 14)
    fewer = 1 if facts.get("vision_feature_select_strategy", "default") == "default" else 0
    more = int(facts.get("num_additional_image_tokens") or 0)

    def count(pictures: dict[str, Any], number: int) -> int:
        height, width = pictures["pixel_values"][number].shape[-2:]
        return int(height // patch) * int(width // patch) + more - fewer

    return _build(folder, wish, memory, _Talk(str(facts.get("image_token") or "<image>"), _JOY_QUESTION, _JOY_SYSTEM, count))


def load_images(folder: Path) -> Any:
    """What makes of pictures what the model sees; with Pillow, as that needs no further package."""
    from transformers import AutoImageProcessor

    load: Any = AutoImageProcessor
    return load_as_told(lambda: load.from_pretrained(str(folder), backend="pil"), folder)


def _build(folder: Path, wish: Wish, memory: MemoryConfig, talk: _Talk) -> Describe:
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    tokenizer, see = load_as_told(lambda: AutoTokenizer.from_pretrained(str(folder)), folder), load_images(folder)
    tokenizer.padding_side = "left"
    text = _write_prompt(tokenizer, wish, talk, folder)
    network = load_network(AutoModelForImageTextToText, folder, memory=memory)
    runner = Runner(network, tokenizer, wish, _MAX_LENGTH)
    mark = tokenizer.convert_tokens_to_ids(talk.mark)

    def describe(images: Sequence[Image.Image]) -> list[str]:
        pictures = dict(see(images=list(images), return_tensors="pt"))
        texts = [text.replace(talk.mark, talk.mark * talk.count(pictures, number), 1) for number in range(len(images))]
        tokens = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=not _begins(text, tokenizer))
        inputs: dict[str, Tensor] = {name: tokens[name] for name in ("input_ids", "attention_mask")} | pictures
        if talk.has_types:
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == mark).to(torch.int32)
        return runner.run(inputs, num_prompt_tokens=inputs["input_ids"].shape[1])

    return describe


def _write_prompt(tokenizer: Any, wish: Wish, talk: _Talk, folder: Path) -> str:
    """What the model is told, with one mark where the picture goes."""
    system = talk.system if wish.system is None else wish.system
    asked = wish.question or talk.question
    messages: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked}]}]
    if system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    template = tokenizer.chat_template or _read_template(folder)
    if not isinstance(template, str):
        raise ModelError(
            "The model does not say how it is talked to.",
            got=f"{folder} without a chat_template",
            expected="chat_template.jinja, or chat_template in tokenizer_config.json",
            fix="download the whole model again, or name another one with --model",
        )

    for told in (messages, _write_plainly(messages, ""), _write_plainly(messages, f"{talk.mark}\n")):
        text = _render(tokenizer, template, told)
        if text.count(talk.mark) == 1 and asked in text and "'type'" not in text:
            return text
    raise ModelError(
        "The model's chat template has no place for a picture.",
        got=f"{folder}: no text with one {talk.mark} and the question can be made of it",
        expected="the template that the model came with",
        fix="download the whole model again, or name another one with --model",
    )


def _write_plainly(messages: Sequence[dict[str, Any]], mark: str) -> list[dict[str, Any]]:
    """Messages for templates that take texts alone: they put the picture's mark in by themselves, or it is a text like any other."""
    texts = (["".join(mark if part["type"] == "image" else part["text"] for part in one["content"])] for one in messages)
    return [{"role": one["role"], "content": text} for one, [text] in zip(messages, texts, strict=True)]


def _render(tokenizer: Any, template: str, messages: Sequence[dict[str, Any]]) -> str:
    """What a template makes of messages; empty for messages that are not as it wants them."""
    try:
        return str(tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=False))
    except (TemplateError, TypeError, ValueError):
        return ""


def _begins(text: str, tokenizer: Any) -> bool:
    return tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)


def _read_template(folder: Path) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    return _read_json(folder / "chat_template.json").get("chat_template")


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    tree = json.loads(file.read_text(encoding="utf-8"))
    return tree if isinstance(tree, dict) else {}
