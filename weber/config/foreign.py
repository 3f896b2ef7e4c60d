"""What other trainers call sections, settings and values: looked up before anything is guessed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, time
from fnmatch import fnmatchcase

FOREIGN_SECTIONS: dict[str, str] = {
    "base": "model",
    "model_config": "model",
    "pretrained": "model",
    "concept": "data",
    "concepts": "data",
    "data_backend": "data",
    "dataset": "data",
    "datasets": "data",
    "general": "data",
    "images": "data",
    "subset": "data",
    "subsets": "data",
    "train_data": "data",
    "lora": "adapter",
    "lora_config": "adapter",
    "lycoris": "adapter",
    "network": "adapter",
    "peft": "adapter",
    "offload": "memory",
    "offloading": "memory",
    "performance": "memory",
    "quantization": "memory",
    "deepspeed": "parallel",
    "deepspeed_config": "parallel",
    "distributed": "parallel",
    "fsdp": "parallel",
    "fsdp_config": "parallel",
    "loss": "objective",
    "noise": "objective",
    "noise_scheduler": "objective",
    "ema": "optim",
    "ema_config": "optim",
    "lr_scheduler": "optim",
    "optimiser": "optim",
    "optimizer": "optim",
    "scheduler": "optim",
    "job": "train",
    "loop": "train",
    "trainer": "train",
    "training": "train",
    "training_arguments": "train",
    "preview": "sampling",
    "sample": "sampling",
    "sampler": "sampling",
    "samples": "sampling",
    "validation": "sampling",
    "checkpoint": "output",
    "checkpointing": "output",
    "logging": "output",
    "meta": "output",
    "save": "output",
}


def find_foreign(table: Mapping[str, str], name: str, *, section: str = "") -> str | None:
    """What a table has for a name: in this section, anywhere, or by a pattern."""
    for wanted in (f"{section}.{name}", name):
        if wanted in table:
            return table[wanted]
    patterns = (pattern for pattern in table if "*" in pattern)
    found = next((one for one in patterns if fnmatchcase(name, one) or fnmatchcase(f"{section}.{name}", one)), None)
    return None if found is None else table[found]


def find_spelling(tables: Iterable[Mapping[str, str]], name: str, *, section: str = "") -> str:
    """The name as one of the tables has it: some trainers begin it with the name of a model."""
    words = (name, name.partition("_")[2])
    return next((word for word in words if word and any(find_foreign(table, word, section=section) for table in tables)), name)


def find_value(tables: Mapping[str, Mapping[str, str]], name: str, *, value: object) -> str | None:
    """What the tables of values have for one of a setting, or of a name."""
    word = read_word(value)
    if word is None:
        return None
    for names, rows in tables.items():
        if name not in names.split("|"):
            continue
        for patterns, found in rows.items():
            if any(fnmatchcase(word, pattern) for pattern in patterns.split("|")):
                return found
    return None


def read_word(value: object) -> str | None:
    """A value as the tables have it; None for tables and the like."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            word = value.strip().lower()
            return word[:1] + word[1:].replace("-", "_").replace(" ", "_")
        case int() | float():
            return f"{value:g}" if value == value // 1 else str(value)
        case list() if value and all(isinstance(one, int | float | str) for one in value):
            return ",".join(str(one) for one in value)
        case date() | time():
            return value.isoformat()
        case _:
            return None
