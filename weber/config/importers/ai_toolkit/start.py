"""Jobs of ai-toolkit for FLUX.1, Kontext, FLUX.2 and klein, as runs of weber: YAML, or the JSON of its window."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weber.config.importers.ai_toolkit.data import name_sets, set_trigger
from weber.config.importers.ai_toolkit.faults import list_faults
from weber.config.importers.ai_toolkit.keys import (
    DATASET,
    DATASET_EXAMPLE,
    DEFAULTS,
    EXAMPLE,
    KEYS,
    OF_DATASET,
    OF_NETWORK,
    OF_SAMPLES,
)
from weber.config.importers.ai_toolkit.optim import count_parts
from weber.config.importers.ai_toolkit.sample import list_samples
from weber.config.importers.apply import apply
from weber.config.importers.draft import Draft, Keys
from weber.config.importers.outcome import Given
from weber.config.importers.texts import parse_tree
from weber.config.importers.tool import Source, Tool
from weber.errors import ConfigError

_TYPES = ("sd_trainer", "diffusion_trainer", "ui_trainer")
_FAMILIES: Mapping[str, str] = {
    "flux": "flux",
    "flex1": "flux",
    "flux_kontext": "kontext",
    "flux2": "flux2",
    "flux2_klein_4b": "klein",
    "flux2_klein_9b": "klein",
}
_OPEN = ("train.ema_config", "train.optimizer_params", "train.lr_scheduler_params", "train.validation_config", "network.network_kwargs")
_OPENED = ("network", "save", "train", "model", "sample", "logging", "adapter", "embedding", "decorator", "slider", "guidance")
_VARIABLE = re.compile(r"\$\{([^}]+)\}")


def recognize(source: Source) -> bool:
    """A job has `job` and `config.process`."""
    tree = _find_job(source)
    config = tree.get("config")
    return "job" in tree and isinstance(config, Mapping) and "process" in config


def translate(source: Source, draft: Draft) -> None:
    """Fill a draft with what a job says. Raises ConfigError."""
    tree = _find_job(source)
    name = str(tree["config"].get("name") or "").strip() if isinstance(tree.get("config"), Mapping) else ""
    tree = _fill_in(tree, name=name, where=source.name)
    process = _find_process(tree, source)
    given = _list_given(tree, process, source)
    found = {one.name: one.value for one in given}
    _check_model(found, process, source)
    sets = _list_sets(process, source)
    keys = Keys(given, defaults=_build_facts(process, found, sets, name=name))
    keys.defaults["step_parts"] = count_parts(keys)
    if keys["kind"] == "full":
        draft.set("adapter.kind", "full", origin="there is no network: the weights of the model themselves are trained")
    elif "network.network_kwargs.only_if_contains" not in keys and not draft.weber_defaults:
        fused = "" if keys["family"] in ("flux", "kontext") else "; there queries, keys and values of a double block are one of them"
        draft.set("adapter.targets", "ai-toolkit", origin=f"what ai-toolkit trains: the linear layers of the blocks{fused}")
    if keys["is_schnell"] and "model.assistant_lora_path" not in keys and not draft.weber_defaults:
        draft.set("model.assistant", "off", origin="model.assistant_lora_path is left out")
    apply(draft, keys, table=KEYS, example=EXAMPLE, is_strict=False)
    for number, entries in enumerate(sets):
        facts = _build_set_facts(entries, sets, keys, number=number)
        one = Keys(_list_entries(entries, number, source), defaults=facts, set_number=number)
        apply(draft, one, table=DATASET, example=DATASET_EXAMPLE, is_strict=False)
        if draft.weber_defaults and facts.get("trigger_word"):
            set_trigger(draft, one, value=facts["trigger_word"])  # the job says it, though the set does not
    draft.faults += list_faults(keys)


def _find_job(source: Source) -> Mapping[str, Any]:
    """The job itself, which may stand as text or a tree in a row of the window's table."""
    top = source.top
    inner = top.get("job_config")
    if isinstance(inner, str):
        inner = parse_tree(inner, kind="JSON", where=f"{source.path}, job_config")
    return inner if isinstance(inner, Mapping) else top


def _fill_in(value: Any, *, name: str, where: str) -> Any:
    """`[name]` stands for the name of the job; variables of the machine are not known."""
    if isinstance(value, Mapping):
        return {key: _fill_in(one, name=name, where=where) for key, one in value.items()}
    if isinstance(value, list):
        return [_fill_in(one, name=name, where=where) for one in value]
    if not isinstance(value, str):
        return value
    found = _VARIABLE.search(value)
    if found is not None:
        raise ConfigError(
            f"{where} holds a variable of the machine that it was written for.",
            got=value,
            expected=f"a value in the place of {found[0]}",
            fix=f"write what {found[1]} is",
        )
    return value.replace("[name]", name) if name else value


def _find_process(tree: Mapping[str, Any], source: Source) -> Mapping[str, Any]:
    job, entries = str(tree.get("job")), tree["config"].get("process")
    if job not in ("extension", "train"):
        raise ConfigError(
            f"{source.path} is a job that trains nothing.",
            got=f"job: {job}",
            expected="job: extension, with a process that trains",
            fix="name the job that trains",
        )
    if not isinstance(entries, list) or not entries or not all(isinstance(one, Mapping) for one in entries):
        raise ConfigError(f"{source.path} has no process.", got=f"process: {entries}", expected="one process", fix="name a whole job")
    if len(entries) > 1:
        kinds = ", ".join(str(one.get("type")) for one in entries)
        raise ConfigError(
            f"{source.path} holds {len(entries)} processes, and an import is one run.",
            got=kinds,
            expected="one process",
            fix="copy the file once for each, and leave one process in each copy",
        )
    process: Mapping[str, Any] = entries[0]
    kind = str(process.get("type"))
    if kind not in _TYPES:
        raise ConfigError(
            f"weber has nothing for ai-toolkit's process {kind}.",
            got=f"type: {kind}",
            expected=" or ".join(_TYPES),
            fix="train a LoRA: type: sd_trainer" if "slider" in kind or "textual" in kind else "name a job that trains FLUX",
        )
    return process


def _check_model(found: Mapping[str, Any], process: Mapping[str, Any], source: Source) -> None:
    if not found.get("model.name_or_path"):
        raise ConfigError(
            f"{source.path} does not say which model is trained.",
            got="no model.name_or_path",
            expected="a hub id or a folder",
            fix="write model.name_or_path",
        )
    arch = _find_arch(found)
    if arch not in _FAMILIES:
        others = [name.removeprefix("model.") for name, value in found.items() if name.startswith("model.is_") and value is True]
        said = ", ".join(others) or f"neither arch nor is_flux, with {found['model.name_or_path']}"
        raise ConfigError(
            "That job trains another model than FLUX.",
            got=f"arch: {arch}" if found.get("model.arch") else said,
            expected=f"arch: {', '.join(_FAMILIES)}, or is_flux: true",
            fix="import a job for FLUX; other models cannot be trained",
        )
    adapter = process.get("adapter")
    if isinstance(adapter, Mapping) and adapter.get("train") and not process.get("network"):
        raise ConfigError(
            "That job trains an adapter for a picture encoder.",
            got=f"adapter.type: {adapter.get('type')}",
            expected="a network, or the weights of the model",
            fix="train FLUX.1 Kontext or FLUX.2 with reference pictures: data.0.conditioning",
        )


def _find_arch(found: Mapping[str, Any]) -> str:
    arch = found.get("model.arch")
    if arch:
        return str(arch).partition(":")[0].strip()
    return "flux" if str(found.get("model.is_flux")).lower() == "true" else "sd1"


def _list_given(tree: Mapping[str, Any], process: Mapping[str, Any], source: Source) -> list[Given]:
    top = {key: value for key, value in tree.items() if key != "config"}
    config = {f"config.{key}": value for key, value in tree["config"].items() if key != "process"}
    own = {key: value for key, value in process.items() if key != "datasets"}
    pairs = [*_flatten(top, ("meta",)), *config.items(), *_flatten(own, (*_OPENED, *_OPEN, "model.quantize_kwargs", "model.model_kwargs"))]
    return [Given(name, value, name, source.name) for name, value in pairs]


def _flatten(tree: Mapping[str, Any], opened: Sequence[str], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        full = f"{above}{name}"
        if isinstance(value, Mapping) and value and full in opened:
            yield from _flatten(value, opened, f"{full}.")
        else:
            yield full, None if value == {} else value


def _list_sets(process: Mapping[str, Any], source: Source) -> list[Mapping[str, Any]]:
    sets = process.get("datasets")
    if not isinstance(sets, list) or not sets or not all(isinstance(one, Mapping) for one in sets):
        raise ConfigError(
            f"{source.path} has no pictures.",
            got=f"datasets: {sets}",
            expected="datasets, a list with folder_path in each",
            fix="write datasets with a folder_path",
        )
    empty = next((number for number, one in enumerate(sets) if not one.get("folder_path") and not one.get("dataset_path")), None)
    if empty is not None:
        raise ConfigError(
            f"datasets[{empty}] names no folder.",
            got=", ".join(sets[empty]) or "no keys",
            expected="folder_path",
            fix=f"write folder_path into datasets[{empty}], or remove the set",
        )
    return sets


def _list_entries(entries: Mapping[str, Any], number: int, source: Source) -> list[Given]:
    return [Given(name, value, f"datasets[{number}].{name}", source.name) for name, value in entries.items()]


def _build_facts(
    process: Mapping[str, Any], found: Mapping[str, Any], sets: Sequence[Mapping[str, Any]], *, name: str
) -> dict[str, Any]:
    """What ai-toolkit takes for keys that are left out, and facts that several answers need; these are in no table."""
    arch, path = _find_arch(found), str(found.get("model.name_or_path"))
    trigger, sample = process.get("trigger_word"), process.get("sample")
    items = list_samples(sample, trigger=trigger) if isinstance(sample, Mapping) else []
    kind = "full" if not process.get("network") else "lokr" if str(found.get("network.type")).lower() == "lokr" else "lora"
    facts = {**DEFAULTS, **(OF_NETWORK if kind != "full" else {}), **(OF_SAMPLES if items else {})}
    if "network.rank" in found:
        facts.pop("network.linear", None)
    if "train.unet_lr" in found:
        facts.pop("train.lr", None)
    return facts | {
        "family": _FAMILIES[arch],
        "arch": arch,
        "kind": kind,
        "items": items,
        "job_name": process.get("name") or name,
        "is_schnell": _FAMILIES[arch] == "flux" and "schnell" in path.lower(),
        "is_cached": _is_cached(found, sets),
        "has_trigger": bool(trigger) or any(one.get("trigger_word") for one in sets),
        "has_dropout": any(_is_above_0(one.get("caption_dropout_rate")) for one in sets),
        "draws_tags": any(one.get("shuffle_tokens") or _is_above_0(one.get("token_dropout_rate")) for one in sets),
        "has_json": any(str(one.get("caption_ext")).strip(". ").lower() == "json" for one in sets),
        "crops_once": any(one.get("random_crop") for one in sets),
        "flips_x": any(one.get("flip_x") for one in sets) and len(sets) > 1,
        "has_references": any(one.get("control_path") or one.get("control_path_1") for one in sets),
    }


def _is_above_0(value: Any) -> bool:
    return str(value).strip() not in ("", "None", "0", "0.0", "False")


def _is_cached(found: Mapping[str, Any], sets: Sequence[Mapping[str, Any]]) -> bool:
    return bool(found.get("train.cache_text_embeddings")) or any(one.get("cache_text_embeddings") for one in sets)


def _build_set_facts(entries: Mapping[str, Any], sets: Sequence[Mapping[str, Any]], keys: Keys, *, number: int) -> dict[str, Any]:
    folders = [str(one.get("dataset_path") or one.get("folder_path")) for one in sets]
    num_reg = sum(bool(one.get("is_reg")) for one in sets)
    trigger = {} if entries.get("trigger_word") or not keys["trigger_word"] else {"trigger_word": keys["trigger_word"]}
    is_unread = keys.read_bool("train.unload_text_encoder") and not keys["is_cached"]
    return {
        **OF_DATASET,
        **trigger,
        "family": keys["family"],
        "kind": keys["kind"],
        "num_sets": len(sets),
        "num_learned": sum(not one.get("prior_reg") for one in sets),
        "set_name": name_sets(folders)[number],
        "is_unread": is_unread,
        "reg_share": (len(sets) - num_reg) / num_reg if num_reg and num_reg < len(sets) else 1.0,
        "reg_weight": keys["train.reg_weight"],
        "matches_target": keys["model.model_kwargs.match_target_res"],
    }


_ABOUT = """\
weber reads ai-toolkit's jobs for FLUX.1, Kontext, FLUX.2 and klein: the YAML files that run.py is given, and the JSON of its window
(sd_trainer, diffusion_trainer). Numbers may be texts, as PyYAML reads 1e-4. ai-toolkit reads no key that it does not know, and says
nothing of it; here each such key is named. What a key that is left out would be there is taken over. Sets get
`geometry = "ai-toolkit"`: the same sizes and windows to the pixel."""

AI_TOOLKIT = Tool(
    name="ai-toolkit",
    title="ai-toolkit",
    files=("config.yaml", ".job_config.json"),
    recognize=recognize,
    translate=translate,
    tables={"Keys of the job": KEYS, "Keys of each set of pictures": DATASET},
    about=_ABOUT,
)
