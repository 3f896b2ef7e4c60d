"""SimpleTuner's options of the model and the adapter: what each becomes here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weber.config.importers.answers import Call
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.named import find_named
from weber.config.importers.outcome import Given
from weber.config.importers.simpletuner.facts import (
    DEFAULT_FLAVOURS,
    FLAVOURS,
    find_family,
    find_flavour,
    is_flux2,
    is_full,
    is_lycoris,
    is_quantized,
    is_standard,
    read_precision,
    read_structure,
)
from weber.config.importers.texts import read_tree
from weber.config.importers.values import read_float, read_texts
from weber.config.lycoris import LycorisConfig
from weber.errors import ConfigError

_GGUF = ".gguf"
_DEFAULT_LAYERS = ["to_k", "to_q", "to_v", "to_out.0"]
"""What is trained there for a choice of `flux_lora_target` that has no list of its own."""

_TARGETS: Mapping[str, str | list[str]] = {
    "all": "all",
    "context": "context",
    "context+ffs": "context+ffs",
    "all+ffs": "all+ffs",
    "all+ffs+embedder": "all+ffs+embedder",
    "ai-toolkit": "all+ffs+modulation",
    "tiny": "tiny",
    "nano": "nano",
}
"""`flux_lora_target` -> `adapter.targets`."""

_STARTS = ("default", "gaussian", "loftq", "olora", "pissa")


def set_family(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The family is one of the variant; alone it says nothing that the model's files do not."""
    family, given = find_family(keys), "model_flavour" in keys or "pretrained_model_name_or_path" in keys
    if given:
        return f"a model of {'FLUX.2' if family == 'flux2' else 'FLUX.1'}, as the other keys say"
    return f"a model of {'FLUX.2' if family == 'flux2' else 'FLUX.1'}; without a flavour it is {DEFAULT_FLAVOURS[family]}"


def set_flavour(draft: Draft, keys: Keys, *, value: Any) -> str:
    """A flavour is a variant."""
    family, flavour = find_family(keys), str(value).strip().lower()
    variant = FLAVOURS[family].get(flavour)
    if variant is None:
        raise ConfigError(
            f"SimpleTuner's family {family} has no flavour {flavour} that weber knows.",
            got=keys.find("model_flavour").text,
            expected=f"one of {', '.join(FLAVOURS[family])}",
            fix=f"write model_flavour = {DEFAULT_FLAVOURS[family]}, or name the model by pretrained_model_name_or_path",
        )
    return draft.set("model.variant", variant, origin=keys.find("model_flavour"))


def set_model(draft: Draft, keys: Keys, *, value: Any) -> str:
    """A folder or a hub id."""
    if str(value).strip().lower().endswith(_GGUF):
        return f"{REFUSED}weber packs weights itself, from a model in 16 bits: name that one, with memory.quantize"
    return draft.set("model.path", str(value).strip(), origin=keys.find("pretrained_model_name_or_path"))


def set_transformer(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The folder of the transformer itself, or a hub id that has it in the usual place."""
    subfolder = keys.read_text("pretrained_transformer_subfolder") or "transformer"
    path = str(value).strip()
    if subfolder.lower() not in ("transformer", "none"):
        path = f"{path.rstrip('/')}/{subfolder}"
    return draft.set("model.transformer", path, origin=keys.find("pretrained_transformer_model_name_or_path"))


def set_vae(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Another autoencoder; that of the model itself needs no mention."""
    path = str(value).strip()
    if path == keys.read_text("pretrained_model_name_or_path"):
        return f"{NO_EFFECT}it is the autoencoder of the model itself"
    if "sdxl" in path.lower():
        return f"{NO_EFFECT}SimpleTuner itself drops an autoencoder of SDXL for these models"
    return draft.set("model.vae", path, origin=keys.find("pretrained_vae_model_name_or_path"))


def set_t5(draft: Draft, keys: Keys, *, value: Any) -> str:
    """T5 is the second text encoder of FLUX.1."""
    if is_flux2(keys):
        return f"{NO_EFFECT}FLUX.2 has no T5"
    return draft.set("model.text_encoder_2", str(value).strip(), origin=keys.find("pretrained_t5_model_name_or_path"))


def set_kind(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`lora`, `lycoris` or the model itself."""
    kind = str(value).strip().lower()
    if kind not in ("full", "lora"):
        raise ConfigError(
            f"model_type = {value} is of a model, or a way to train, that weber does not have.",
            got=keys.find("model_type").text,
            expected="lora or full",
            fix="write model_type = lora",
        )
    if kind == "full" and is_quantized(keys):
        raise ConfigError(
            "model_type = full cannot train a quantized model; SimpleTuner stops there too.",
            got=f"{keys.find('model_type').text}, {keys.find('base_model_precision').text}",
            expected="a LoRA on a quantized model, or the whole model in 16 bits",
            fix="write model_type = lora, or remove base_model_precision",
        )
    ours = "full" if kind == "full" else "lycoris" if is_lycoris(keys) else "lora"
    return draft.set("adapter.kind", ours, origin=keys.find("model_type"))


def set_lora_type(draft: Draft, keys: Keys, *, value: Any) -> str:
    """PEFT's LoRA or LyCORIS."""
    if is_full(keys):
        return f"{NO_EFFECT}the model itself is trained"
    return draft.set("adapter.kind", "lycoris" if is_lycoris(keys) else "lora", origin=keys.find("lora_type"))


def for_standard(key: str) -> Call:
    """A setting of PEFT's LoRA alone."""

    def call(draft: Draft, keys: Keys, value: Any) -> str:
        name = next(name for name, setting in _STANDARD.items() if setting == key)
        if not is_standard(keys):
            return f"{NO_EFFECT}{_name_other(keys)}"
        return draft.set(key, value, origin=keys.find(name))

    return call


_STANDARD = {"lora_rank": "adapter.rank", "lora_alpha": "adapter.alpha", "lora_dropout": "adapter.dropout"}


def _name_other(keys: Keys) -> str:
    if is_full(keys):
        return "the model itself is trained, and there is no adapter"
    return "LyCORIS takes its sizes from lycoris_config alone"


def set_init(draft: Draft, keys: Keys, *, value: Any) -> str:
    """How the adapter starts."""
    start = str(value).strip().lower()
    if not is_standard(keys):
        return f"{NO_EFFECT}{_name_other(keys)}"
    if start in ("true", "default"):
        return f"{NO_EFFECT}it is the default here too"
    if "init_lora" in keys:
        return f"{NO_EFFECT}the adapter starts from the file of init_lora"
    if keys.read_bool("use_dora"):
        return f"{NO_EFFECT}with use_dora SimpleTuner starts as by default"
    if start == "loftq" and is_quantized(keys):
        return (
            f"{NO_EFFECT}SimpleTuner has no LoftQ for a model that it quantized: it starts as by default, and newer versions stop with an"
            ' error; here adapter.init = "loftq" does it'
        )
    if start not in _STARTS:
        return f'{REFUSED}weber knows no such start; adapter.init takes {", ".join(_STARTS)}'
    if start == "loftq":
        return f'{REFUSED}weber starts with LoftQ on a quantized model only: set memory.quantize = "nf4" and adapter.init = "loftq"'
    return draft.set("adapter.init", start, origin=keys.find("lora_init_type"))


def set_dora(draft: Draft, keys: Keys, *, value: Any) -> str:
    """DoRA, which SimpleTuner turns off on models that quanto packs."""
    if not keys.read_bool("use_dora"):
        return f"{NO_EFFECT}asks for nothing, here as there"
    if not is_standard(keys):
        return f"{NO_EFFECT}{_name_other(keys)}"
    if "quanto" in read_precision(keys):
        return f"{NO_EFFECT}SimpleTuner turns DoRA off on a model that quanto packed; here adapter.dora = true trains it"
    return draft.set("adapter.dora", True, origin=keys.find("use_dora"))


def set_targets(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Which layers get an adapter."""
    origin, target = keys.find("flux_lora_target"), str(value).strip().lower()
    if not is_standard(keys):
        return f"{NO_EFFECT}{'the model itself is trained' if is_full(keys) else 'LyCORIS takes its layers from lycoris_config'}"
    if "peft_lora_target_modules" in keys:
        return f"{NO_EFFECT}peft_lora_target_modules says which layers"
    if is_flux2(keys):
        return draft.set("adapter.targets", "simpletuner", origin=origin) + ", the one list that SimpleTuner has for FLUX.2"
    if target == "controlnet":
        return f"{REFUSED}weber trains no ControlNets; a reference picture belongs to [[data]] as conditioning"
    if target in _TARGETS:
        return draft.set("adapter.targets", _TARGETS[target], origin=origin)
    return draft.set("adapter.targets", _DEFAULT_LAYERS, origin=origin) + f", which SimpleTuner trains for {target}"


def set_modules(draft: Draft, keys: Keys, *, value: Any) -> str:
    """A list of layers by the ends of their names."""
    if not is_standard(keys):
        return f"{NO_EFFECT}{_name_other(keys)}"
    listed = read_structure(value, name="peft_lora_target_modules")
    names = read_texts(listed)
    return draft.set("adapter.targets", names, origin=keys.find("peft_lora_target_modules"))


def set_start(draft: Draft, keys: Keys, *, value: Any) -> str:
    """An adapter to start from."""
    if is_full(keys):
        return f"{NO_EFFECT}{_name_other(keys)}"
    return draft.set("adapter.start_from", str(value).strip(), origin=keys.find("init_lora"))


def set_format(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The layout of the file; that of diffusers is always written."""
    if not is_standard(keys):
        return f"{NO_EFFECT}{'a whole model is written' if is_full(keys) else 'LyCORIS has its own layout'}"
    if str(value).strip().lower() == "diffusers":
        return f"{NO_EFFECT}the layout of diffusers is written in any case"
    if keys.read_bool("use_dora") and "quanto" not in read_precision(keys):
        return f"{REFUSED}programs do not agree on DoRA in that layout: diffusers' is written"
    return draft.set("output.formats", ["diffusers", "comfyui"], origin=keys.find("lora_format"))


def set_assistant(draft: Draft, keys: Keys, *, value: Any) -> str:
    """A LoRA that takes part while training."""
    if keys.read_bool("disable_assistant_lora"):
        return f"{NO_EFFECT}disable_assistant_lora turns it off"
    return draft.set("model.assistant", str(value).strip(), origin=keys.find("assistant_lora_path"))


def set_no_assistant(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Without the assistant that comes with a distilled model."""
    if not keys.read_bool("disable_assistant_lora") or not _has_assistant(keys):
        return f"{NO_EFFECT}there is no assistant LoRA to leave out, or it stays"
    return draft.set("model.assistant", "off", origin=keys.find("disable_assistant_lora"))


def for_assistant(name: str, key: str) -> Call:
    """A strength of the assistant, where there is one."""

    def call(draft: Draft, keys: Keys, value: Any) -> str:
        if keys.read_bool("disable_assistant_lora") or not _has_assistant(keys):
            return f"{NO_EFFECT}no assistant LoRA takes part"
        return draft.set(key, read_float(value, name=name), origin=keys.find(name))

    return call


def _has_assistant(keys: Keys) -> bool:
    return "assistant_lora_path" in keys or find_flavour(keys) == "schnell"


def set_text_mask(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The padding behind captions, hidden."""
    if not keys.read_bool("flux_attention_masked_training"):
        return f"{NO_EFFECT}asks for nothing, here as there"
    if is_flux2(keys):
        return f"{NO_EFFECT}FLUX.2 looks at its padding in any case"
    if find_flavour(keys) in ("libreflux", "fluxbooru"):
        return f"{NO_EFFECT}SimpleTuner decides it by the model: always for LibreFlux, never for FluxBooru, and weber does the same"
    return draft.set("objective.text_mask", True, origin=keys.find("flux_attention_masked_training"))


# ---- lycoris_config.json


def set_lycoris(draft: Draft, keys: Keys, *, value: Any) -> str:
    """What LyCORIS is to do: its own file, key by key."""
    if not is_lycoris(keys):
        return f"{NO_EFFECT}it is read with lora_type = lycoris alone"
    path = None if isinstance(value, Mapping) else find_named(draft, str(value), key="lycoris_config")
    tree = value if path is None else read_tree(path)
    where = keys.find("lycoris_config").where if path is None else path.name
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{path} holds no settings of LyCORIS.", got=str(tree)[:60], expected='{"algo": "lokr", ...}', fix="correct it")
    for name, one in tree.items():
        given = Given(str(name), one, str(name), where)
        kind, said = _answer_lycoris(draft, given)
        draft.note(given, kind, line=said)
    return "the table [adapter.lycoris]" + ("" if path is None else f", as {path.name} has it")


def _answer_lycoris(draft: Draft, given: Given) -> tuple[Any, str]:
    name, value = given.name, given.value
    if value is None:
        return "no effect", "empty: left out, here as there"
    if name in _NO_LAYERS:
        return "no effect", "for convolutions, or for a form that is not trained: these models have no such layers"
    if name in ("multiplier", "use_tucker", "use_scalar", "train_norm"):
        is_off = value in (1, 1.0) if name == "multiplier" else not value
        return ("no effect", "it changes nothing") if is_off else ("refused", _CANNOT[name])
    if name not in LycorisConfig.model_fields:
        return "no effect", "no such setting of LyCORIS is read by weber"
    return "used", draft.set(f"adapter.lycoris.{name}", value, origin=given)


_NO_LAYERS = ("conv_dim", "conv_alpha", "block_size", "tlora_min_rank", "tlora_alpha")
_CANNOT = {
    "multiplier": "the strength while training is in no file, so it is 1 here; scale with linear_alpha",
    "use_tucker": "it is for convolutions, which these models do not have",
    "use_scalar": "a file holds factors already multiplied with it, so that no run could go on from it",
    "train_norm": "LyCORIS cannot change the norms of these models",
}
