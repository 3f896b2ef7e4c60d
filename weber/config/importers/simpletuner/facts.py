"""What is asked of SimpleTuner's keys again and again: which model, which adapter, whether pictures are painted."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from weber.config.importers.draft import Draft, Keys
from weber.config.importers.named import find_named
from weber.config.importers.texts import read_tree
from weber.errors import ConfigError

FLAVOURS: Mapping[str, Mapping[str, str]] = {
    "flux": {
        "krea": "flux1-krea",
        "dev": "flux1-dev",
        "schnell": "flux1-schnell",
        "kontext": "flux1-kontext",
        "fluxbooru": "fluxbooru",
        "libreflux": "libreflux",
    },
    "flux2": {"dev": "flux2-dev", "klein-4b": "flux2-klein-base-4b", "klein-9b": "flux2-klein-base-9b"},
}
"""SimpleTuner's families that weber trains, and their flavours -> weber's variants."""
DEFAULT_FLAVOURS = {"flux": "krea", "flux2": "klein-9b"}

QUANTIZED_PLAIN = ("no_change", "bf16", "fp16", "fp32", "none", "")
"""Values of precisions with which nothing is quantized."""


def find_family(keys: Keys) -> str:
    """`flux` or `flux2`; where no family is given, what the model's name says."""
    family = (keys.read_text("model_family") or "").lower()
    name = _read_model_name(keys)
    return family or ("flux2" if "flux.2" in name or "flux2" in name else "flux")


def is_flux2(keys: Keys) -> bool:
    """Whether it is one of the second generation."""
    return find_family(keys) == "flux2"


def find_flavour(keys: Keys) -> str:
    """The flavour that is given, else what the model's name shows; empty where neither says it."""
    given = (keys.read_text("model_flavour") or "").lower()
    name = _read_model_name(keys)
    return given or next((word for word in ("schnell", "kontext", "fluxbooru", "libreflux", "krea", "klein") if word in name), "")


def _read_model_name(keys: Keys) -> str:
    return (keys.read_text("pretrained_model_name_or_path") or "").lower()


def takes_guidance(keys: Keys) -> bool:
    """Whether guidance is an input of the network, as far as the file says which one it is."""
    return find_flavour(keys).split("-")[0] not in ("schnell", "libreflux", "klein")


def is_full(keys: Keys) -> bool:
    """Whether the model itself is trained."""
    return (keys.read_text("model_type") or "full").lower() == "full"


def is_lycoris(keys: Keys) -> bool:
    """Whether LyCORIS makes the adapter."""
    return not is_full(keys) and (keys.read_text("lora_type") or "standard").lower() == "lycoris"


def is_standard(keys: Keys) -> bool:
    """Whether PEFT makes the adapter."""
    return not is_full(keys) and not is_lycoris(keys)


def read_precision(keys: Keys) -> str:
    """`base_model_precision`, in lower case."""
    return (keys.read_text("base_model_precision") or "no_change").lower()


def is_quantized(keys: Keys) -> bool:
    """Whether the base model's weights are packed."""
    return read_precision(keys) not in QUANTIZED_PLAIN


def list_prompts(draft: Draft, keys: Keys) -> list[str]:
    """Texts that pictures are painted of: the one in the file, then those of the prompt library. Empty: none are painted."""
    if keys.read_bool("validation_disable"):
        return []
    own = keys.read_text("validation_prompt")
    prompts = [own] if own else []
    if name := keys.read_text("user_prompt_library"):
        prompts += _read_library(draft, name)
    return list(dict.fromkeys(prompts))


def _read_library(draft: Draft, name: str) -> list[str]:
    path = find_named(draft, name, key="user_prompt_library")
    tree = read_tree(path)
    if not isinstance(tree, Mapping):
        raise ConfigError(
            f"{path} is no prompt library.",
            got="a list" if isinstance(tree, list) else "a single value",
            expected='{"nickname": "the prompt", ...}',
            fix="correct it, or remove user_prompt_library",
        )
    prompts = [one.get("prompt") if isinstance(one, Mapping) else one for one in tree.values()]
    return [str(one).strip() for one in prompts if one is not None and str(one).strip()]


def has_pictures(keys: Keys) -> bool:
    """Whether the file asks for pictures on the way."""
    asks = keys.read_text("validation_prompt") or keys.read_text("user_prompt_library")
    return bool(asks) and not keys.read_bool("validation_disable")


def read_structure(value: Any, *, name: str) -> Any:
    """A list or table that may be written as a text. Raises ConfigError."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text[:1] not in ("[", "{"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise ConfigError(
            f"{name} is neither JSON nor a path.", got=text[:80], expected="JSON", fix=f"correct {name} in that file"
        ) from error
