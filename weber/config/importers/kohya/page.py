"""Saves of lora-scripts' pages: which option of kohya's scripts each key becomes."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from weber.config.importers.outcome import Given, Outcome

Spell = Callable[..., Iterator[Given]]

_LYCORIS: Mapping[str, str] = {
    "lycoris_algo": "algo",
    "lokr_factor": "factor",
    "conv_dim": "conv_dim",
    "conv_alpha": "conv_alpha",
    "dropout": "dropout",
    "train_norm": "train_norm",
}
"""Key of the page -> the network argument that it makes of it with network_module = "lycoris.kohya"."""

_PRODIGY: Mapping[str, str] = {"prodigy_d_coef": "d_coef", "prodigy_d0": "d0"}
"""The same of the optimizer's arguments, with Prodigy."""

_MADE: Mapping[str, Mapping[str, bool | float]] = {
    "prodigy": {"decouple": True, "weight_decay": 0.01, "use_bias_correction": True},
    "dadaptation": {"decouple": True, "weight_decay": 0.01},
    "dadaptadam": {"decouple": True, "weight_decay": 0.01},
}
"""Optimizer -> arguments that the page adds by itself."""

_LISTS = {"optimizer_args_custom": "optimizer_args", "network_args_custom": "network_args"}
_RATES = ("learning_rate", "unet_lr", "text_encoder_lr")
_BEHIND = (
    ("n", "negative_prompts", ""), ("w", "sample_width", 512), ("h", "sample_height", 512), ("l", "sample_cfg", 7),
    ("s", "sample_steps", 24), ("d", "sample_seed", 2333),
)
"""What the page writes behind a prompt: flag, key, and what it takes where the key is left out."""
_PAINTING = ("sample_prompts", "positive_prompts", "prompt_file", "sample_sampler", "sample_every_n_epochs", "randomly_choice_prompt")


def read_page(given: list[Given], *, spell: Spell) -> tuple[list[Given], list[Outcome]]:
    """Options of the scripts that a save of lora-scripts' page starts them with, and what became of keys that it does not pass on."""
    there = {one.name: one for one in given}
    found = _make_arguments(there)
    last: list[Given] = []
    answered: list[Outcome] = []
    for one in given:
        line = _find_reason(one, there)
        if line is not None:
            answered.append(Outcome(one, "no effect", line))
        elif one.name == "randomly_choice_prompt" and one.value:
            answered.append(Outcome(one, "refused", "the caption of a picture, at random: write prompts in sampling.prompts"))
        elif one.name == "ui_custom_params":
            last += _read_custom(one, spell)
        else:
            found += _read_key(one, there, spell)
    return [*found, *last], answered


def _find_reason(one: Given, there: Mapping[str, Given]) -> str | None:
    if one.name in _PAINTING and "enable_preview" in there and not there["enable_preview"].value:
        return "the page does not pass it on without enable_preview"
    if one.name in ("base_weights", "base_weights_multiplier") and "enable_base_weight" in there and not there["enable_base_weight"].value:
        return "the page does not pass it on without enable_base_weight"
    if one.name == "train_t5xxl":
        return "the page passes it on beside network_args, where the scripts do not read it"
    return None


def _read_key(one: Given, there: Mapping[str, Given], spell: Spell) -> Iterator[Given]:
    optimizer = _name_optimizer(there)
    if one.name in _LYCORIS and _read(there, "network_module") == "lycoris.kohya":
        if one.value or one.name in ("conv_dim", "conv_alpha", "dropout"):
            yield Given(f"network_args.{_LYCORIS[one.name]}", str(one.value), one.spelled, one.where)
        else:
            yield one
    elif one.name in _PRODIGY and optimizer == "prodigy" and one.value:
        yield Given(f"optimizer_args.{_PRODIGY[one.name]}", _read_number(one.value), one.spelled, one.where)
    elif one.name in _LISTS:
        yield from spell(_LISTS[one.name], one.value or [], spelled=one.spelled, where=one.where)
    elif one.name in _RATES and optimizer.startswith("dada"):
        yield replace(one, value=1.0, spelled=f"{one.spelled} {one.value}, with {optimizer}")
    elif one.name == "prompt_file" and one.value:
        yield Given("sample_prompts", one.value, one.spelled, one.where)
    elif one.name == "positive_prompts" and not any(map(_reader(there), ("prompt_file", "randomly_choice_prompt"))):
        flags = [f"--{flag} {there[name].value if name in there else usual}" for flag, name, usual in _BEHIND]
        yield Given("sample_prompts", " ".join([str(one.value).strip(), *flags]), one.spelled, one.where)
    else:
        yield one


def _make_arguments(there: Mapping[str, Given]) -> list[Given]:
    """Arguments of the optimizer that are not in a save: the page adds them."""
    optimizer = _name_optimizer(there)
    made = dict(_MADE.get(optimizer, {}))
    if optimizer == "prodigy" and _read(there, "lr_warmup_steps"):
        made["safeguard_warmup"] = True
    where = next(iter(there.values())).where
    arguments = [Given(f"optimizer_args.{name}", value, f"{optimizer}: {name}", where) for name, value in made.items()]
    if optimizer.startswith("dada") and "learning_rate" not in there:
        arguments.append(Given("learning_rate", 1.0, f"{optimizer}: learning_rate", where))
    return [one for one in arguments if one.name not in there]


def _read_custom(own: Given, spell: Spell) -> Iterator[Given]:
    """A TOML text whose keys count before those of the page, which passes over one that is not whole."""
    try:
        tree = tomllib.loads(str(own.value))
    except tomllib.TOMLDecodeError:
        yield own
        return
    if not tree:
        yield own
    for name, value in tree.items():
        spelled = f"{own.spelled} {name}"
        if name in _LISTS.values():
            yield from spell(name, value, spelled=spelled, where=own.where)
        else:
            yield Given(name, value, spelled, own.where)


def _name_optimizer(there: Mapping[str, Given]) -> str:
    return str(_read(there, "optimizer_type") or "").lower()


def _read(there: Mapping[str, Given], name: str) -> object:
    return there[name].value if name in there else None


def _reader(there: Mapping[str, Given]) -> Callable[[str], object]:
    return lambda name: _read(there, name)


def _read_number(value: object) -> object:
    try:
        return float(str(value))
    except ValueError:
        return value
