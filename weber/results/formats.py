"""The formats that results are written in: which there are, what each can carry, and where each goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from weber.adapters.factors import Factors
from weber.adapters.layouts import LAYOUTS, check_layout
from weber.config.foreign import find_value
from weber.config.foreign_values import FOREIGN_VALUES, REFUSED_VALUES
from weber.config.near import find_near
from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.families.pairing import Pairing
from weber.results.runs import EMA_ENDING, MODEL_FOLDER, MODEL_NAME, SUFFIX, build_adapter_name, build_mean_path

DIFFUSERS, MERGED_FOLDER, MERGED_FILE = "diffusers", "merged-diffusers", "merged-bfl"
FORMATS = (*LAYOUTS, MERGED_FOLDER, MERGED_FILE)
_FORMATS_KEY = "output.formats"


def check_formats(
    formats: Sequence[str], modules: Mapping[str, Factors] | Sequence[str], *, pairings: Sequence[Pairing], key: str, is_dora: bool = False
) -> None:
    """Refuse layouts that cannot carry changes of these modules; needs no weights. `is_dora`: they will be DoRAs."""
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        fix = propose_format(unknown[0], FORMATS, key=key) if unknown else "choose of these"
        got = f"{key} = {', '.join(unknown) or 'nothing'}"
        raise ConfigError("There is no such format.", got=got, expected=", ".join(FORMATS), fix=fix)
    for name in formats:
        if name in LAYOUTS:
            check_layout(modules, layout=name, pairings=pairings, is_dora=is_dora)


def check_merged(config: RunConfig) -> None:
    """Refuse merged models beside frozen adapters, which they would lack."""
    merged = sorted({MERGED_FILE, MERGED_FOLDER} & set(config.output.formats))
    if merged and config.model.adapters:
        raise ConfigError(
            "A merged model would lack the frozen adapters that the trained one builds on.",
            got=f"output.formats with {', '.join(merged)}, and model.adapters",
            fix="remove it from output.formats, and merge them all with `weber merge`",
        )


def check_model_formats(formats: Sequence[str], *, key: str) -> None:
    """Refuse layouts of adapters where the weights of a model themselves are trained; needs no weights."""
    layouts = [name for name in formats if name in LAYOUTS and name != DIFFUSERS]
    if layouts:
        raise ConfigError(
            "A whole model has no adapter layout.",
            got=f"{key} = {', '.join(layouts)}, and the weights of the model themselves are trained",
            expected=f"{MERGED_FOLDER} (or {DIFFUSERS}), {MERGED_FILE}",
            fix=f'use {MERGED_FILE}, one file with the names that ComfyUI reads; or train a LoRA (adapter.kind = "lora")',
        )
    check_formats(formats, [], pairings=(), key=key)


def check_named_layout(layout: str, modules: Iterable[str], *, pairings: Sequence[Pairing]) -> None:
    """Refuse a layout that there is not, or that cannot carry changes of these modules."""
    if layout not in LAYOUTS:
        fix = propose_format(layout, tuple(LAYOUTS), key="--layout")
        raise ConfigError("There is no such layout.", got=f"--layout {layout}", expected=", ".join(LAYOUTS), fix=fix)
    check_layout(list(modules), layout=layout, pairings=pairings)


def propose_format(name: str, choices: Sequence[str], *, key: str) -> str:
    """What to write in place of a format that there is not: what other programs call so, else what is near."""
    known = (find_value(FOREIGN_VALUES, _FORMATS_KEY, value=name) or "").strip('"')
    meant = known if known in choices else find_near(name.lower(), choices)
    if meant is not None:
        return f"write {key} {meant}"
    return find_value(REFUSED_VALUES, _FORMATS_KEY, value=name) or "choose of these"


def build_format_path(path: Path, name: str) -> Path:
    """Where an adapter, or a model with it, goes in a format, beside `path`, which has no ending."""
    ending = {MERGED_FILE: f"-merged{SUFFIX}", MERGED_FOLDER: "-merged"}.get(name, f"-{name}{SUFFIX}")
    return path.with_name(path.name + ending)


def list_models(formats: Sequence[str], folder: Path, *, name: str | None = None, ending: str = "") -> list[Path]:
    """Where a whole model that was trained goes, in formats of such. `name`: `output.name`."""
    in_folder, in_file = (name or MODEL_FOLDER) + ending, (name or Path(MODEL_NAME).stem) + ending + SUFFIX
    names = {DIFFUSERS: in_folder, MERGED_FOLDER: in_folder, MERGED_FILE: in_file}
    return [folder / name for name in dict.fromkeys(names[one] for one in formats)]


def list_finished(config: RunConfig, folder: Path) -> list[Path]:
    """Where finished results of a run may lie, in every format that there is, whatever it was asked for."""
    if config.adapter.kind == "full":
        models = list_models((MERGED_FOLDER, MERGED_FILE), folder, name=config.output.name)
        return [*models, *map(build_mean_path, models)]
    adapter = folder / build_adapter_name(config)
    stems = [adapter.with_name(adapter.name.removesuffix(SUFFIX) + ending) for ending in ("", EMA_ENDING)]
    others = [build_format_path(stem, name) for stem in stems for name in FORMATS if name != DIFFUSERS]
    return [adapter, build_mean_path(adapter), *others]
