"""kohya's sd-scripts: their command lines, datasets and the files of programs around them, as runs of weber."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from weber.config.importers.answers import Table, find_answer, ignored, list_names, translated
from weber.config.importers.apply import apply
from weber.config.importers.draft import Draft, Keys
from weber.config.importers.kohya.data import SET, SET_DEFAULTS
from weber.config.importers.kohya.faults import FAULTS, SET_FAULTS, list_faults
from weber.config.importers.kohya.gui import is_added
from weber.config.importers.kohya.keys import COMMAND, EXAMPLE, FULL_DEFAULTS, LAUNCH, LORA_DEFAULTS, TABLES
from weber.config.importers.kohya.network import explain_unknown
from weber.config.importers.kohya.optim import ARGUMENTS, put_option
from weber.config.importers.kohya.read import FULL, LORA, Order, is_ours, read_order
from weber.config.importers.kohya.samples import SAMPLE_DEFAULTS, SAMPLES, paints, read_samples
from weber.config.importers.kohya.sets import SET_OPTIONS, Sets, read_sets
from weber.config.importers.kohya.train import is_schnell
from weber.config.importers.outcome import Given, Outcome
from weber.config.importers.tool import Source, Tool
from weber.errors import ConfigError


def translate(source: Source, draft: Draft) -> None:
    """Fill a draft from a file of kohya's scripts. Raises ConfigError."""
    order = read_order(source)
    draft.files += order.files
    if order.sets is not None:
        _check_sets_alone(source, draft)
    is_cached = {"cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk"}
    facts = {
        "run.is_adapter": order.program == LORA,
        "run.is_cached": any(one.name in is_cached and _is_on(one.value) for one in order.given),
        "run.masked_loss": any(one.name == "masked_loss" and _is_on(one.value) for one in order.given),
        "run.is_gui": order.is_gui,
        "run.beside": str(order.path),
        "run.zero_clip": "LoRA_type" in source.top and source.top.get("max_grad_norm") == 0,
        "run.lost_dropout": source.top.get("LoRA_type") == "Flux1" and any(map(source.top.get, ("rank_dropout", "module_dropout"))),
    }
    draft.outcomes += order.answered
    sets = read_sets(order, draft)
    if order.program:
        _apply_command(order, draft, sets, facts)
    _apply_sets(draft, sets, facts)


def _check_sets_alone(source: Source, draft: Draft) -> None:
    """A dataset says nothing of the model, the rate, or how long: the defaults of the scripts would train nothing of use."""
    if draft.weber_defaults:
        return
    beside = sorted(one.name for one in source.path.parent.iterdir() if one.suffix in (".sh", ".bat", ".ps1"))
    raise ConfigError(
        f"{source.path} says which pictures are trained on, and nothing else: no model, no rate, no number of steps.",
        got="a dataset file of kohya's scripts",
        expected="the script that starts flux_train.py or flux_train_network.py with --dataset_config",
        fix=f"name {source.path.parent / beside[0]}" if beside else "name that script; or take weber's own defaults: --weber-defaults",
    )


def _apply_command(order: Order, draft: Draft, sets: Sets, facts: Mapping[str, Any]) -> None:
    given = [_complete_name(one) for one in order.given if one.name not in SET_OPTIONS and one not in sets.used]
    loose = [one for one in given if find_answer(COMMAND, one.name) is None and _is_in(one, order.loose)]
    for one in loose:
        draft.note(one, "no effect", line="no such option there: what a settings file holds beside them is not read")
    unknown = [one for one in given if order.is_gui and find_answer(COMMAND, one.name) is None and not is_added(one)]
    for one in unknown:
        draft.note(one, "refused", line="weber knows no such key of the GUI: look up what it is, and set it here")
    given = [one for one in given if one not in (*loose, *unknown)]
    keys = Keys(given, defaults={**(LORA_DEFAULTS if order.program == LORA else FULL_DEFAULTS), **facts})
    if order.program == FULL:
        draft.set("adapter.kind", "full", origin=FULL)
    apply(draft, keys, table=_list_answers(given), example=EXAMPLE)
    each = {"gradient_accumulation_steps": keys["gradient_accumulation_steps"]}
    apply(draft, Keys(order.launch, defaults=each), table=LAUNCH)
    draft.faults += list_faults(FAULTS, keys)
    if paints(keys):
        samples = read_samples(keys.find("sample_prompts"), draft, beside=order.path)
        defaults = {**SAMPLE_DEFAULTS, "run.is_schnell": is_schnell(keys)} if samples else {}
        apply(draft, Keys(samples, defaults=defaults), table=SAMPLES, is_strict=False)
    if draft.get("sampling.every") is not None and draft.get("sampling.prompts") is None:
        draft.remove("sampling.every")


def _list_answers(given: Sequence[Given]) -> Table:
    """The table, with rows for entries of lists that have none of their own, and for options of sets, which may have been meant."""
    known = set(list_names(COMMAND))
    own = [one.name for one in given if one.name.startswith("optimizer_args.") and one.name not in known]
    other = [one.name for one in given if one.name.startswith("network_args.") and one.name not in known]
    options = {name: translated(put_option(name.partition(".")[2]), ARGUMENTS["optimizer_args.*"].why) for name in own}
    meant = {name: SET[name] for name in SET_OPTIONS if name in SET and name not in known}
    return {**COMMAND, **meant, **options, **{name: ignored(explain_unknown(name)) for name in other}}


def _complete_name(given: Given) -> Given:
    """argparse takes the beginning of a name, where it is that of one option alone."""
    if not given.spelled.startswith("--") or find_answer(COMMAND, given.name) is not None:
        return given
    names = [name for name in (*list_names(COMMAND), *SET_OPTIONS) if name.startswith(given.name)]
    return replace(given, name=names[0]) if len(names) == 1 else given


def _is_in(given: Given, others: Sequence[Given]) -> bool:
    return any(one is given for one in others)


def _is_on(value: Any) -> bool:
    return value is True or str(value).strip().lower() in ("true", "1")


def _apply_sets(draft: Draft, sets: Sets, facts: Mapping[str, Any]) -> None:
    """The sets of pictures, and what became of each of their keys: one line for a key that several sets share."""
    before, faults = len(draft.outcomes), list[str]()
    for number, one in enumerate(sets.sets):
        defaults = {**SET_DEFAULTS, **facts, "run.is_parent": one.is_parent}
        keys = Keys(one.given, defaults=defaults, set_number=number)
        apply(draft, keys, table=SET)
        faults += list_faults(SET_FAULTS, keys)
    draft.faults += list(dict.fromkeys(faults))
    draft.outcomes[before:] = _fold(draft.outcomes[before:])
    noted = {(one.given.spelled, one.given.where) for one in draft.outcomes}
    for given, line in sets.idle:
        if (given.spelled, given.where) not in noted:
            draft.note(given, "no effect", line=line)
            noted.add((given.spelled, given.where))


def _fold(outcomes: Sequence[Outcome]) -> list[Outcome]:
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((one.given.spelled, one.given.where, one.given.name), []).append(one)
    return [_join(those) for those in groups.values()]


def _join(outcomes: Sequence[Outcome]) -> Outcome:
    """One answer for a key that several sets share."""
    first = next((one for one in outcomes if one.kind != "no effect"), outcomes[0])
    lines = list(dict.fromkeys(one.line for one in outcomes if one.kind == first.kind))
    plain = list(dict.fromkeys(re.sub(r"\bdata\.\d+\.", "data.*.", line) for line in lines))
    return replace(first, line=lines[0] if len(lines) == 1 else plain[0] if len(plain) == 1 else "; ".join(lines))


KOHYA = Tool(
    name="kohya",
    title="kohya's sd-scripts",
    files=("train.sh", "train.bat"),
    recognize=is_ours,
    translate=translate,
    tables=TABLES,
    about=(
        f"Name the script that starts `{FULL}` or `{LORA}` (a shell script, .bat, PowerShell, a notebook), the TOML of `--config_file`, a"
        " JSON save of the kohya_ss GUI, or a TOML of lora-scripts. The dataset TOML and the prompts that it names are read from where they"
        " are named, or from beside it."
    ),
)

