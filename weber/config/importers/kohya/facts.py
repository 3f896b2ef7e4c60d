"""Facts of a command of kohya's scripts that several answers ask for."""

from __future__ import annotations

import re
from typing import Any

from weber.config.importers.draft import Keys
from weber.config.importers.values import read_float
from weber.config.optimizers import FACTS, read_optimizer_name
from weber.config.optimizers import REFUSED as REFUSED_OPTIMIZERS
from weber.errors import ConfigError

NESTEROV = ("sgdnesterov", "sgdnesterov8bit")


def is_adapter(keys: Keys) -> bool:
    """Whether it is flux_train_network.py that runs."""
    return bool(keys["run.is_adapter"])


def name_optimizer(keys: Keys) -> str:
    """The optimizer here; of one that weber has not the one that it names as the nearest."""
    text = spell_optimizer(keys)
    if text.lower().replace("_", "") in NESTEROV:
        return "torch_sgd"
    try:
        return read_optimizer_name(text)
    except ValueError as error:
        named = re.search(r'name = "([^"]+)"', str(error))
        plain = re.sub(r"[-_. ]", "", text.rpartition(".")[2]).lower()
        is_known = any(plain == re.sub(r"[-_. ]", "", name).lower() for name in REFUSED_OPTIMIZERS)
        if not is_known or named is None:
            raise ConfigError(
                f"{keys.find('optimizer_type').spelled} names no optimizer that weber knows: {error}",
                got=keys.find("optimizer_type").text,
                expected="an optimizer of kohya's scripts, such as AdamW8bit, Prodigy, Adafactor or Lion",
                fix="correct its name, or write AdamW8bit",
            ) from error
        return named[1]


def spell_optimizer(keys: Keys) -> str:
    """The optimizer as the file has it."""
    if keys.read_bool("use_8bit_adam"):
        return "AdamW8bit"
    return "Lion" if keys.read_bool("use_lion_optimizer") else str(keys["optimizer_type"] or "AdamW").strip()


def is_relative(keys: Keys) -> bool:
    """Whether Adafactor has the rate of its own that it has if nothing is said."""
    if name_optimizer(keys) != "adafactor":
        return False
    is_said = keys["optimizer_args.relative_step"] is not None
    return not is_said or keys.read_bool("optimizer_args.relative_step") or keys.read_bool("optimizer_args.warmup_init")


def is_schedule_free(keys: Keys) -> bool:
    """Whether it is an optimizer for which the scripts make no schedule."""
    return spell_optimizer(keys).lower().endswith("schedulefree")


def trains_text(keys: Keys) -> bool:
    """Whether adapters on CLIP are trained there: they are unless it is switched off."""
    if not is_adapter(keys) or keys.read_bool("network_train_unet_only"):
        return False
    rate = read_text_rate(keys)
    return rate is None or rate > 0


def read_text_rate(keys: Keys) -> float | None:
    """The rate of CLIP: the first of `text_encoder_lr`, or `learning_rate`."""
    value = keys["text_encoder_lr"]
    first = list_values(value)[0] if list_values(value) else keys["learning_rate"]
    return None if first is None else read_float(first, name="text_encoder_lr")


def list_values(value: Any) -> list[Any]:
    """A list, or a text with commas or blanks between values."""
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value in (None, "") else [one for one in re.split(r"[,\s]+", str(value).strip("[] ")) if one]


def is_lycoris(keys: Keys) -> bool:
    """Whether what is trained is a form of LyCORIS."""
    module = str(keys["network_module"] or "")
    return module.startswith("lycoris.") or module in ("networks.loha", "networks.lokr", "networks.oft_flux")


def moves_at_once(keys: Keys) -> bool:
    """Whether each weight moves as soon as its gradient is there."""
    if is_adapter(keys) or (keys.read_int("gradient_accumulation_steps") or 1) > 1:
        return False
    asked = keys.read_bool("fused_backward_pass") or keys.read_bool("blockwise_fused_optimizers")
    return asked and FACTS[name_optimizer(keys)].is_own
