"""Florence-2, which is asked for a task by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from weber.captioners.loaded import Runner, find_folder, load_as_told, load_network
from weber.captioners.wish import Describe, Wish
from weber.config.memory import MemoryConfig
from weber.errors import ConfigError

TASKS = {"short": "<CAPTION>", "detailed": "<DETAILED_CAPTION>", "long": "<MORE_DETAILED_CAPTION>", "text": "<OCR>"}
"""What a person may ask for, and its own word for it."""

_DEFAULT = "long"
_MAX_LENGTH = 512


def build(place: str, wish: Wish, *, memory: MemoryConfig) -> Describe:
    """Florence-2 as transformers has it (`florence-community/...`)."""
    from transformers import AutoProcessor, Florence2ForConditionalGeneration

    task = wish.question or _DEFAULT
    task = TASKS.get(task.lower(), task)
    if task not in TASKS.values():
        raise ConfigError(
            "Florence-2 has no such task.", got=f"--question {wish.question}", expected=", ".join(TASKS), fix="name one of them"
        )
    folder = find_folder(place)
    load: Any = AutoProcessor
    processor = load_as_told(lambda: load.from_pretrained(str(folder)), folder)
    runner = Runner(load_network(Florence2ForConditionalGeneration, folder, memory=memory), processor.tokenizer, wish, _MAX_LENGTH)

    def describe(images: Sequence[Image.Image]) -> list[str]:
        return runner.run(dict(processor(images=list(images), text=[task] * len(images), return_tensors="pt", padding=True)))

    return describe
