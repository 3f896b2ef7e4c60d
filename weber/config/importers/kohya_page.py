"""Saves of lora-scripts' pages: which option of kohya's scripts each key becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from weber.config.importers.outcome import Given

Spell = Callable[..., Iterator[Given]]

PAGE_ARGS: Mapping[str, str] = {
    "lycoris_algo": "network_args.algo",
    "lokr_factor": "network_args.factor",
    "conv_dim": "network_args.conv_dim",
    "conv_alpha": "network_args.conv_alpha",
    "dropout": "network_args.dropout",
    "train_norm": "network_args.train_norm",
    "train_t5xxl": "network_args.train_t5xxl",
    "prodigy_d_coef": "optimizer_args.d_coef",
    "prodigy_d0": "optimizer_args.d0",
}
"""Keys of lora-scripts' page -> the entry of a list of arguments that it makes of them."""

_LISTS = {"optimizer_args_custom": "optimizer_args", "network_args_custom": "network_args"}
_SAMPLES = {"sample_width": "w", "sample_height": "h", "sample_cfg": "l", "sample_steps": "s", "sample_seed": "d", "negative_prompts": "n"}


def read_page(given: list[Given], *, spell: Spell) -> Iterator[Given]:
    """Options of the scripts that a save of lora-scripts' page starts them with."""
    there = {one.name: one for one in given}
    for one in given:
        if one.name in PAGE_ARGS and PAGE_ARGS[one.name] not in there and one.value not in (None, ""):
            value = str(one.value) if PAGE_ARGS[one.name].startswith("network") else _read_number(one.value)
            yield Given(PAGE_ARGS[one.name], value, one.spelled, one.where)
        elif one.name in _LISTS:
            yield from spell(_LISTS[one.name], one.value or [], spelled=one.spelled, where=one.where)
        elif one.name == "positive_prompts" and "sample_prompts" not in there and there.get("enable_preview", one).value is True:
            flags = [f"--{flag} {there[name].value}" for name, flag in _SAMPLES.items() if name in there]
            yield Given("sample_prompts", " ".join([str(one.value).replace("\n", " "), *flags]), one.spelled, one.where)
        else:
            yield one


def _read_number(value: object) -> object:
    try:
        return float(str(value))
    except ValueError:
        return value
