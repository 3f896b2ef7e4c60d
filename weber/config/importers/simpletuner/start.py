"""SimpleTuner: config.json, config.toml and config.env, with the files that they name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weber.config.importers.apply import apply
from weber.config.importers.draft import Draft, Keys
from weber.config.importers.outcome import Given
from weber.config.importers.simpletuner.data import parse_entries, read_entries, translate_sets
from weber.config.importers.simpletuner.data_keys import CONDITIONING_TABLE, SET_TABLE, TEXT_TABLE
from weber.config.importers.simpletuner.facts import DEFAULT_FLAVOURS, FLAVOURS, find_family
from weber.config.importers.simpletuner.faults import list_data_faults, list_faults
from weber.config.importers.simpletuner.keys import DEFAULTS, EXAMPLE, GROUPS, TABLE
from weber.config.importers.simpletuner.read import build_model_error, fill_placeholders, normalize, read_config, starts_training
from weber.config.importers.tool import Source, Tool

_OWN_KEYS = ("data_backend_config", "model_family", "model_flavour", "flux_lora_target", "lycoris_config", "lora_type")
_OWN_VARIABLES = ("DATALOADER_CONFIG", "TRAINER_EXTRA_ARGS", "VALIDATION_NUM_INFERENCE_STEPS", "MAX_NUM_STEPS")
_SET_KEYS = ("instance_data_dir", "caption_strategy", "dataset_type", "cache_dir_vae", "metadata_backend")


def _recognize(source: Source) -> bool:
    if source.script is not None:
        has_variables = any(name in source.script.variables for name in _OWN_VARIABLES)
        return has_variables or any(starts_training(command.words) for command in source.script.commands)
    return _is_list_of_sets(source.tree) or bool({normalize(str(key)) for key in source.top} & set(_OWN_KEYS))


def _is_list_of_sets(tree: Any) -> bool:
    sets = [one for one in tree if isinstance(one, Mapping)] if isinstance(tree, list) else []
    return bool(sets) and all("id" in one for one in sets) and any(key in one for one in sets for key in _SET_KEYS)


def _translate(source: Source, draft: Draft) -> None:
    if isinstance(source.tree, list):
        config = Keys([])
        translate_sets(draft, parse_entries(source.tree, where=source.name, config=config), config=config)
        return
    given = fill_placeholders(read_config(source, draft, table=TABLE), TABLE, variables={})
    keys = Keys(given, defaults=DEFAULTS)
    _check_family(keys, source)
    if "model_flavour" not in keys and "pretrained_model_name_or_path" not in keys:
        keys.defaults["model_flavour"] = DEFAULT_FLAVOURS[find_family(keys)]
    if draft.weber_defaults and keys["lora_type"] == "lycoris" and "lycoris_config" not in keys:
        keys.given["lycoris_config"] = Given("lycoris_config", DEFAULTS["lycoris_config"], "lycoris_config", source.name)
    entries = read_entries(draft, keys)
    sets = translate_sets(draft, entries, config=keys)
    apply(draft, keys, table=TABLE, example=EXAMPLE)
    draft.faults += [*list_faults(keys), *list_data_faults(entries, sets, config=keys)]


def _check_family(keys: Keys, source: Source) -> None:
    family = keys.read_text("model_family")
    path = (keys.read_text("pretrained_model_name_or_path") or "").lower()
    if family is not None and family.lower() not in FLAVOURS:
        raise build_model_error(keys.find("model_family").text, source.name)
    if family is None and path and "flux" not in path and source.script is not None:
        raise build_model_error(keys.find("pretrained_model_name_or_path").text, source.name)


SIMPLETUNER = Tool(
    name="simpletuner",
    title="SimpleTuner",
    files=("config.json", "config.toml", "config.env", "config/config.json", "config/config.toml", "config/config.env"),
    recognize=_recognize,
    translate=_translate,
    tables={
        **GROUPS,
        "multidatabackend.json: sets of pictures": SET_TABLE,
        "multidatabackend.json: references and masks": CONDITIONING_TABLE,
        "multidatabackend.json: caches": TEXT_TABLE,
    },
    about=(
        "Name config.json, config.toml or config.env, or the folder that holds it; multidatabackend.json, lycoris_config.json and the"
        " prompt library are found beside it. Keys may begin with `--`, numbers and yes and no may be texts, and an empty text or null is"
        " a key that is left out, as SimpleTuner has it. Sets get `geometry = \"simpletuner\"`: the same sizes and windows to the pixel."
    ),
)
