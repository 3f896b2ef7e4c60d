"""Scripts that start diffusers' own training scripts for FLUX.1, Kontext, FLUX.2 and klein, as runs of weber."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weber.config.importers.answers import find_answer, list_names
from weber.config.importers.apply import apply
from weber.config.importers.diffusers.faults import list_faults
from weber.config.importers.diffusers.keys import (
    ACCELERATE,
    BITSANDBYTES,
    DEFAULTS,
    EXAMPLE,
    KEYS,
    OF_FAMILY,
    OF_FULL,
    ONLY_LORA,
)
from weber.config.importers.diffusers.run import LAYERS
from weber.config.importers.draft import Draft, Keys
from weber.config.importers.outcome import Given
from weber.config.importers.shell import UNREAD, Command, check_read, read_flags
from weber.config.importers.texts import read_tree
from weber.config.importers.tool import Source, Tool, find_file
from weber.errors import ConfigError

_OURS = re.compile(r"train_(dreambooth|text_to_image|controlnet|control|instruct_pix2pix|unconditional)(_\w+)?\.py")
_FLUX = re.compile(r"train_(dreambooth|text_to_image)\w*_flux(?P<two>2)?\w*\.py")
_NOT_TRAINED = re.compile(r"train_control\w*\.py")
_SECRET = ("hub_token",)
_MAY_BE_EMPTY = (
    "cache_dir", "class_prompt", "final_validation_prompt", "hub_model_id", "hub_token", "logging_dir", "report_to",
    "resume_from_checkpoint", "revision", "validation_prompt", "variant",
)  # fmt: skip
_HIDDEN = "(kept to itself)"
_LAUNCHERS = ("launch", "torchrun", "accelerate.commands.launch", "torch.distributed.run", "torch.distributed.launch")


@dataclass(frozen=True)
class _Call:
    """A training script as a command starts it: its name, the words before and behind it, and the line of the command."""

    script: str
    before: Sequence[str]
    behind: Sequence[str]
    line: int

    @property
    def family(self) -> str:
        """`flux`, `kontext`, `flux2` or `klein`."""
        if "klein" in self.script:
            return "klein"
        if "kontext" in self.script:
            return "kontext"
        found = _FLUX.fullmatch(self.script)
        return "flux2" if found is not None and found["two"] else "flux"

    @property
    def is_full(self) -> bool:
        """Whether the weights of the model themselves are trained."""
        return "lora" not in self.script


def recognize(source: Source) -> bool:
    """Whether a script calls one of the library's own training scripts."""
    return any(_OURS.fullmatch(name) for name in source.programs)


def translate(source: Source, draft: Draft) -> None:
    """Fill a draft with what a script says. Raises ConfigError."""
    call = _find_call(source)
    given = _list_given(call, source)
    facts = _build_facts(call, given)
    launch, machine = _list_launch(call, source, draft)
    processes = _find_value([*machine, *launch], "num_processes", "nproc_per_node")
    precision = _find_value([*machine, *launch], "mixed_precision")
    facts |= {"num_processes": processes, "launch_precision": precision, "beside": str(source.path.parent)}
    keys = Keys(given, defaults=facts)
    _check_complete(keys, source)
    if call.is_full:
        draft.set("adapter.kind", "full", origin=f"{call.script} trains the weights themselves")
    apply(draft, keys, table=KEYS, example=EXAMPLE)
    _apply_launch(draft, keys, launch, machine)
    _apply_bits(draft, keys, source)
    draft.faults += list_faults(keys)


def _find_call(source: Source) -> _Call:
    calls = [found for command in (source.script.commands if source.script else ()) if (found := _split(command)) is not None]
    known = [one for one in calls if _FLUX.fullmatch(one.script) and not _NOT_TRAINED.fullmatch(one.script)]
    if not calls:
        raise ConfigError(
            f"{source.path} starts no training script of diffusers.",
            got=", ".join(source.programs) or "no Python program",
            expected="a command such as accelerate launch train_dreambooth_lora_flux.py",
            fix="name the script with that command",
        )
    if not known:
        is_control = any(_NOT_TRAINED.fullmatch(one.script) for one in calls)
        raise ConfigError(
            "weber trains no ControlNet and no control LoRA." if is_control else "That script trains another model than FLUX.",
            got=f"{calls[0].script} in {source.path}, line {calls[0].line}",
            expected="a script for FLUX.1, FLUX.1 Kontext, FLUX.2 or klein, such as train_dreambooth_lora_flux2.py",
            fix=(
                "train FLUX.1 Kontext or FLUX.2 with the control pictures as references: data.0.conditioning"
                if is_control
                else "import the command for FLUX; other models cannot be trained"
            ),
        )
    if len(known) > 1:
        lines = ", ".join(f"line {one.line} ({one.script})" for one in known)
        raise ConfigError(
            f"{source.path} starts {len(known)} runs, and an import is one.",
            got=lines,
            expected="one command that trains",
            fix="copy each of these commands, with the variables above it, to a file of its own",
        )
    return known[0]


def _split(command: Command) -> _Call | None:
    for place, word in enumerate(command.words):
        name = word.replace("\\", "/").rpartition("/")[2]
        if _OURS.fullmatch(name):
            return _Call(name, command.words[:place], command.words[place + 1 :], command.line)
    return None


def _list_given(call: _Call, source: Source) -> list[Given]:
    where = f"{source.name}, line {call.line}"
    found = [Given(_complete(name), value, f"--{name}", where) for name, value in read_flags(call.behind)]
    _check_filled(found, where)
    given = [Given(one.name, _HIDDEN, one.spelled, one.where) if one.name in _SECRET else one for one in found]
    for one in given:
        for text in one.value if isinstance(one.value, list) else [one.value]:
            check_read(str(text), name=one.spelled, where=where)
    return given


def _check_filled(found: Sequence[Given], where: str) -> None:
    """A flag without its value is an error there too, unless it takes any text."""
    empty = next((one for one in found if one.value == "" and one.name not in _MAY_BE_EMPTY), None)
    if empty is not None:
        raise ConfigError(
            f"{empty.spelled} in {where} has no value.",
            got="an empty text, as of a variable that the script sets nowhere, or in a loop",
            expected=f"a value of {empty.spelled}",
            fix="write the value itself, or set the variable above the command",
        )


def _complete(name: str) -> str:
    """Python's parser of flags takes the start of a name for the name, where it is of one only."""
    if find_answer(KEYS, name) is not None:
        return name
    longer = [one for one in list_names(KEYS) if one.startswith(name)]
    return longer[0] if len(longer) == 1 else name


def _build_facts(call: _Call, given: Sequence[Given]) -> dict[str, Any]:
    names = {one.name for one in given}
    facts = {**DEFAULTS, **OF_FAMILY[call.family], "lora_layers": ",".join(LAYERS[call.family])}
    if call.is_full:
        facts = {name: value for name, value in facts.items() if name not in (*ONLY_LORA, "lora_layers")}
        facts |= OF_FULL
    dropped = {"num_train_epochs"} if "max_train_steps" in names else set()
    dropped |= {"validation_epochs"} if "validation_steps" in names else set()
    dropped |= {"lora_layers"} if "lora_blocks" in names else set()
    facts = {name: value for name, value in facts.items() if name not in dropped}
    kind = "full" if call.is_full else "lora"
    return facts | {"family": call.family, "kind": kind, "is_edit": "img2img" in call.script, "script": call.script}


def _check_complete(keys: Keys, source: Source) -> None:
    if "pretrained_model_name_or_path" not in keys:
        _refuse_missing("--pretrained_model_name_or_path", "the model that is trained", keys, source)
    if "data_df_path" in keys:
        raise ConfigError(
            "That script reads encoded texts from a table, and no pictures are named.",
            got=f"--data_df_path {keys['data_df_path']}",
            expected="pictures with their captions",
            fix="put --dataset_name or --instance_data_dir, with the captions, in its place; weber encodes them itself",
        )
    if "instance_data_dir" not in keys and "dataset_name" not in keys:
        _refuse_missing("--instance_data_dir or --dataset_name", "the pictures", keys, source)
    if "instance_prompt" not in keys and ("caption_column" not in keys or "instance_data_dir" in keys):
        flags = "--instance_prompt" if "instance_data_dir" in keys else "--instance_prompt or --caption_column"
        _refuse_missing(flags, "the captions", keys, source)


def _refuse_missing(flags: str, what: str, keys: Keys, source: Source) -> None:
    given = ", ".join(one.spelled for one in keys.given.values())
    raise ConfigError(
        f"The command in {source.path} does not say {what}.",
        got=f"{given or 'no flags'}; no {flags}",
        expected=flags,
        fix=f"write {flags} into the command",
    )


# ---- accelerate


def _list_launch(call: _Call, source: Source, draft: Draft) -> tuple[list[Given], list[Given]]:
    """Flags of the launcher, and keys of the file that `--config_file` names; each with those of the file of DeepSpeed that it names."""
    places = [place for place, word in enumerate(call.before) if word.rpartition("/")[2] in _LAUNCHERS]
    words = call.before[places[-1] + 1 :] if places else ()
    where = f"{source.name}, line {call.line}"
    flags = [Given(name.replace("-", "_"), value, f"--{name}", where) for name, value in read_flags(words)]
    for one in flags:
        check_read(str(one.value), name=one.spelled, where=where)
    named = next((str(one.value) for one in flags if one.name == "config_file"), None)
    flags += _list_deepspeed(flags, source, draft)
    if named is None:
        return flags, []
    path = _find_beside(named, source, flag="--config_file", what="how many processes there are")
    draft.files.append(str(path))
    tree = read_tree(path)
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{path} is no file of accelerate.", got="no keys", expected="num_processes and others", fix="name its YAML file")
    machine = [Given(name, value, name, path.name) for name, value in _flatten(tree)]
    return flags, machine + _list_deepspeed(machine, source, draft)


_OF_DEEPSPEED = {
    "zero_optimization.stage": "zero_stage",
    "zero_optimization.offload_param.device": "offload_param_device",
    "zero_optimization.offload_optimizer.device": "offload_optimizer_device",
}
"""What DeepSpeed calls what accelerate calls otherwise."""


def _list_deepspeed(given: Sequence[Given], source: Source, draft: Draft) -> list[Given]:
    """Keys of DeepSpeed's own file, as accelerate would have them; none where it is not here, and then what it asks for is not known."""
    named = _find_value(given, "deepspeed_config_file", "deepspeed_config.deepspeed_config_file")
    path = None if named is None else find_file(str(named), beside=source.path)
    if path is None:
        return []
    draft.files.append(str(path))
    tree = read_tree(path)
    if not isinstance(tree, Mapping):
        what = f"{path} is no file of DeepSpeed."
        raise ConfigError(what, got="no keys", expected="zero_optimization and others", fix="name its JSON file")
    return [Given(f"deepspeed_config.{_OF_DEEPSPEED.get(name, name)}", value, name, path.name) for name, value in _flatten(tree)]


def _flatten(tree: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            found += _flatten(value, f"{above}{name}.")
        else:
            found.append((f"{above}{name}", value if value != {} else None))
    return found


def _find_value(given: Sequence[Given], *names: str) -> Any:
    """The last value of the first of these keys that is given."""
    return next((one.value for name in names for one in reversed(given) if one.name == name and one.value not in (None, "")), None)


def _apply_launch(draft: Draft, keys: Keys, launch: Sequence[Given], machine: Sequence[Given]) -> None:
    """Flags of the launcher go before its file, and the script's own before both; the further names are in no table."""
    facts: dict[str, Any] = {"kind": keys["kind"], "script_accumulation": keys["gradient_accumulation_steps"]}
    if "mixed_precision" in keys:
        facts["script_precision"] = keys["mixed_precision"]
    says_processes = _find_value(launch, "num_processes", "nproc_per_node") is not None
    says_precision = _find_value(launch, "mixed_precision") is not None
    apply(draft, Keys(launch, defaults=facts), table=ACCELERATE)
    facts |= {"script_precision": True} if says_precision else {}
    facts |= {"launch_processes": True} if says_processes else {}
    apply(draft, Keys(machine, defaults=facts), table=ACCELERATE, is_strict=False)


# ---- other files


def _apply_bits(draft: Draft, keys: Keys, source: Source) -> None:
    if "bnb_quantization_config_path" not in keys:
        return
    named = str(keys["bnb_quantization_config_path"])
    path = _find_beside(named, source, flag="--bnb_quantization_config_path", what="in how many bits the model is")
    draft.files.append(str(path))
    tree = read_tree(path)
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{path} is not for bitsandbytes.", got="no keys", expected='{"load_in_4bit": true}', fix="name its JSON file")
    apply(draft, Keys([Given(name, value, name, path.name) for name, value in tree.items()]), table=BITSANDBYTES, is_strict=False)


def _find_beside(named: str, source: Source, *, flag: str, what: str) -> Path:
    if UNREAD in named or not named.strip():
        check_read(named, name=flag, where=source.name)
    path = find_file(named, beside=source.path)
    if path is None:
        raise ConfigError(
            f"{flag} names a file that is not here.",
            got=named,
            expected=f"that file, which says {what}",
            fix=f"copy it beside {source.name}",
        )
    return path


_ABOUT = """\
weber reads the script that starts one of diffusers' own training scripts for FLUX (train_dreambooth_lora_flux.py, _advanced, _kontext,
flux2, klein, their img2img twins, and train_dreambooth_flux.py): shell, .bat, PowerShell or a notebook, with its variables, the file of
accelerate that it names, and those of DeepSpeed and bitsandbytes. Nothing in it is executed. What a flag that is left out would be there is
taken over."""

DIFFUSERS = Tool(
    name="diffusers",
    title="diffusers' scripts",
    files=(),
    recognize=recognize,
    translate=translate,
    tables={"Flags of the script": KEYS, "Of accelerate": ACCELERATE, "Of bitsandbytes' JSON file": BITSANDBYTES},
    about=_ABOUT,
)
