"""OneTrainer: saves and presets, with the concepts and samples that they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weber.config.importers.answers import Table
from weber.config.importers.apply import apply
from weber.config.importers.draft import Draft, Keys
from weber.config.importers.named import find_named
from weber.config.importers.onetrainer.concepts import (
    CONCEPT_DEFAULTS,
    CONCEPT_TABLE,
    DISABLED_TABLE,
    HAS_BUCKETS,
    IS_CACHED,
    PRIOR_TABLE,
    RESOLUTION,
    finish_concept,
    set_sizes,
)
from weber.config.importers.onetrainer.faults import list_faults
from weber.config.importers.onetrainer.keys import DEFAULTS, GROUPS, TABLE
from weber.config.importers.onetrainer.read import adopt_defaults, check_model, flatten_table, is_flux2, is_full, read_config
from weber.config.importers.onetrainer.samples import PROMPTS, SAMPLE_TABLE, check_samples, is_painting, translate_samples
from weber.config.importers.texts import read_tree
from weber.config.importers.tool import Source, Tool, find_file
from weber.errors import ConfigError

_OWN_KEYS = ("concept_file_name", "training_method", "sample_definition_file_name", "base_model_name", "output_model_format")
_CONCEPTS = "training_concepts/concepts.json"
_SAMPLES = "training_samples/samples.json"


def _recognize(source: Source) -> bool:
    return "model_type" in source.top and any(name in source.top for name in _OWN_KEYS) and not any(
        str(key).startswith("--") or key == "model_family" for key in source.top
    )


def _translate(source: Source, draft: Draft) -> None:
    keys = Keys(adopt_defaults(read_config(source.top, draft, where=source.name)), defaults=DEFAULTS)
    check_model(keys, source.name)
    if is_flux2(keys):
        for name in ("text_encoder.train", "text_encoder_2.train", "text_encoder_2_sequence_length"):
            keys.defaults.pop(name)
    concepts = _translate_concepts(draft, _read_concepts(draft, keys), keys)
    samples, where = _read_samples(draft, keys)
    keys.defaults[PROMPTS] = translate_samples(draft, samples, config=keys, where=where)
    apply(draft, keys, table=TABLE, is_strict=False)
    draft.faults += list_faults(keys, concepts)


# ---- concepts


def _read_concepts(draft: Draft, keys: Keys) -> list[tuple[Mapping[str, Any], str]]:
    inline, where = keys["concepts"], Path(draft.files[0]).name
    tree: Any = inline
    if not isinstance(inline, list):
        path = find_named(draft, str(keys["concept_file_name"] or _CONCEPTS), key="concept_file_name")
        tree, where = read_tree(path), path.name
    if not isinstance(tree, list) or not all(isinstance(one, Mapping) for one in tree):
        raise ConfigError(
            f"{where} is no list of concepts.",
            got="a table" if isinstance(tree, Mapping) else "something else",
            expected='[{"path": "pictures/cats", ...}, ...]',
            fix="name the file that OneTrainer reads as concept_file_name",
        )
    return [(one, where) for one in tree]


def _choose_table(tree: Mapping[str, Any], *, trains_model: bool) -> Table:
    if not tree.get("enabled", True):
        return DISABLED_TABLE
    if trains_model and str(tree.get("type") or "").upper() == "PRIOR_PREDICTION":
        return PRIOR_TABLE
    return CONCEPT_TABLE


def _translate_concepts(draft: Draft, concepts: list[tuple[Mapping[str, Any], str]], config: Keys) -> list[Keys]:
    context = {
        RESOLUTION: config["resolution"] or "512",
        f"{RESOLUTION}, as it was given": config.find("resolution") if "resolution" in config else "resolution = 512, the default there",
        HAS_BUCKETS: config["aspect_ratio_bucketing"] is not False,
        IS_CACHED: config["latent_caching"] is not False,
    }
    read: list[Keys] = []
    names: list[str] = []
    for number, (tree, where) in enumerate(concepts):
        table = _choose_table(tree, trains_model=is_full(config))
        given = flatten_table(tree, f"{where}, concept {number + 1}")
        if table is not CONCEPT_TABLE:
            apply(draft, Keys(given), table=table, is_strict=False)
            continue
        keys = Keys(given, defaults=CONCEPT_DEFAULTS | context, set_number=len(read))
        apply(draft, keys, table=table, is_strict=False)
        set_sizes(draft, keys)
        finish_concept(draft, keys)
        _name_apart(draft, keys, names)
        read.append(keys)
    if not read:
        raise ConfigError(
            "there is no concept to learn.",
            got=f"{len(concepts)} concepts, all of them turned off" if concepts else "an empty list",
            expected="a concept with pictures",
            fix="add one, or turn one on",
        )
    return read


def _name_apart(draft: Draft, keys: Keys, names: list[str]) -> None:
    """Concepts may have the same name, or none and folders of the same name; sets may not."""
    key = f"data.{keys.set_number}.name"
    own = keys.read_text("name") or (keys.read_text("path") or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    name = next(one for one in [own, *(f"{own}-{number}" for number in range(2, len(names) + 3))] if one not in names)
    if name != own:
        draft.set(key, name, origin="another set has the same name")
    names.append(name)


# ---- samples


def _read_samples(draft: Draft, keys: Keys) -> tuple[list[Mapping[str, Any]], str]:
    if isinstance(keys["samples"], list):
        return check_samples(keys["samples"], where="samples"), "samples"
    if not is_painting(keys):
        return [], _SAMPLES
    if "sample_definition_file_name" not in keys and find_file(_SAMPLES, beside=Path(draft.files[0])) is None:
        return [], _SAMPLES
    path = find_named(draft, str(keys["sample_definition_file_name"] or _SAMPLES), key="sample_definition_file_name")
    return check_samples(read_tree(path), where=path.name), path.name


ONETRAINER = Tool(
    name="onetrainer",
    title="OneTrainer",
    files=("config.json",),
    recognize=_recognize,
    translate=_translate,
    tables={**GROUPS, "A concept": CONCEPT_TABLE, "A sample": SAMPLE_TABLE},
    about=(
        "Name a save or a preset of a FLUX model; the concepts and samples that it names are found beside it. Tables within tables are"
        " named by dots, as in `transformer.weight_dtype`. Keys of other models are there in every save and have no effect. Sets get"
        " `geometry = \"onetrainer\"`: the same sizes and windows to the pixel."
    ),
)
