"""SimpleTuner's files as plain keys: config.json and config.toml with or without dashes, config.env with its extra arguments."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from weber.config.importers.answers import Table, find_answer
from weber.config.importers.draft import Draft
from weber.config.importers.outcome import Given
from weber.config.importers.shell import check_read, read_flags
from weber.config.importers.tool import Source
from weber.config.section import HIDDEN
from weber.errors import ConfigError

OLD_NAMES: Mapping[str, str] = {
    "validation_steps": "validation_step_interval",
    "checkpointing_steps": "checkpoint_step_interval",
    "save_total_limit": "checkpoints_total_limit",
    "fused_qkv_projections": "fuse_qkv_projections",
    "model_flavor": "model_flavour",
    "flux_schedule_shift": "flow_schedule_shift",
    "flux_schedule_auto_shift": "flow_schedule_auto_shift",
    "flux_use_uniform_schedule": "flow_use_uniform_schedule",
    "flux_use_beta_schedule": "flow_use_beta_schedule",
    "flux_beta_schedule_alpha": "flow_beta_schedule_alpha",
    "flux_beta_schedule_beta": "flow_beta_schedule_beta",
    "flow_matching_sigmoid_scale": "flow_sigmoid_scale",
}
"""What options were called before -> their names now."""

VARIABLES: Mapping[str, str] = {
    "RESUME_CHECKPOINT": "resume_from_checkpoint",
    "DATALOADER_CONFIG": "data_backend_config",
    "TRAINING_SEED": "seed",
    "ACCELERATE_CONFIG_PATH": "accelerate_config",
    "USE_XFORMERS": "enable_xformers_memory_efficient_attention",
    "MINIMUM_RESOLUTION": "minimum_image_size",
    "PUSH_CHECKPOINTS": "push_checkpoints_to_hub",
    "MAX_NUM_STEPS": "max_train_steps",
    "NUM_EPOCHS": "num_train_epochs",
    "CHECKPOINTING_LIMIT": "checkpoints_total_limit",
    "HUB_MODEL_NAME": "hub_model_id",
    "MODEL_NAME": "pretrained_model_name_or_path",
    "USE_GRADIENT_CHECKPOINTING": "gradient_checkpointing",
    "LR_SCHEDULE": "lr_scheduler",
    "TRAINING_NUM_PROCESSES": "num_processes",
    "TRAINING_NUM_MACHINES": "num_machines",
    "TRAINING_DYNAMO_BACKEND": "dynamo_backend",
    "TRAINER_DYNAMO_BACKEND": "dynamo_backend",
    "MIN_SNR_GAMMA": "snr_gamma",
    "DELETE_SMALL_IMAGES": "delete_unwanted_images",
    "DELETE_ERRORED_IMAGES": "delete_problematic_images",
    "USE_BITFIT": "layer_freeze_strategy",
}
"""Variables of config.env that are not the option's name in capitals."""

_SPELLED_SAME = (
    "ACCELERATE_EXTRA_ARGS ALLOW_TF32 ASPECT_BUCKET_ROUNDING AWS_MAX_POOL_CONNECTIONS BASE_MODEL_PRECISION "
    "CAPTION_DROPOUT_PROBABILITY CHECKPOINTING_STEPS CHECKPOINT_EPOCH_INTERVAL CHECKPOINT_STEP_INTERVAL CONTROLNET "
    "DEBUG_EXTRA_ARGS DISABLE_BENCHMARK EMA_DECAY ENABLE_CHUNKED_FEED_FORWARD FEED_FORWARD_CHUNK_SIZE "
    "FLUX_GUIDANCE_VALUE FLUX_LORA_TARGET GRADIENT_ACCUMULATION_STEPS GRADIENT_CHECKPOINTING_OFFLOAD_ATTENTION "
    "GRADIENT_CHECKPOINTING_OFFLOAD_PIN_MEMORY_MAX_BUCKETS GRADIENT_CHECKPOINTING_OFFLOAD_PREFETCH "
    "GRADIENT_CHECKPOINTING_SEGMENT_STRIDE IMAGE_PROCESSING_BATCH_SIZE INFERENCE_SCHEDULER_TIMESTEP_SPACING "
    "LEARNING_RATE LORA_TYPE LR_END LR_WARMUP_STEPS LYCORIS_CONFIG MAX_WORKERS METADATA_UPDATE_INTERVAL "
    "MIXED_PRECISION MODEL_CARD_SAFE_FOR_WORK MODEL_FAMILY MODEL_TYPE OPTIMIZER OUTPUT_DIR POST_CHECKPOINT_SCRIPT "
    "POST_UPLOAD_SCRIPT PUBLISHING_CONFIG PURE_BF16 PUSH_TO_HUB PUSH_TO_HUB_BACKGROUND QUANTIZATION_CONFIG "
    "QUANTIZE_VIA QWEN_TEXT_ENCODER_MODEL_NAME_OR_PATH READ_BATCH_SIZE RESOLUTION RESOLUTION_TYPE "
    "TEXT_CACHE_DISABLE TEXT_CACHE_ONDEMAND TEXT_ENCODER_BATCH_SIZE TOKENIZERS_PARALLELISM TORCH_NUM_THREADS "
    "TRACKER_PROJECT_NAME TRACKER_RUN_NAME TRAINING_SCHEDULER_TIMESTEP_SPACING TRAIN_BATCH_SIZE USE_DORA USE_EMA "
    "VALIDATE_AFTER_EPOCH VALIDATE_AFTER_STEP VALIDATION_EPOCH_INTERVAL VALIDATION_EXTERNAL_BACKGROUND "
    "VALIDATION_EXTERNAL_SCRIPT VALIDATION_GUIDANCE VALIDATION_GUIDANCE_REAL VALIDATION_GUIDANCE_RESCALE "
    "VALIDATION_INPUT VALIDATION_METHOD VALIDATION_NEGATIVE_PROMPT VALIDATION_NO_CFG_UNTIL_TIMESTEP "
    "VALIDATION_NUM_INFERENCE_STEPS VALIDATION_PROMPT VALIDATION_RESOLUTION VALIDATION_SEED VALIDATION_STEPS "
    "VALIDATION_STEP_INTERVAL WRITE_BATCH_SIZE "
)
_SAME_NAMES = frozenset(_SPELLED_SAME.split())
"""Those that are; SDNQ_... are too, and the rest of an environment is not read."""

OTHER_MODELS = ("STABLE_DIFFUSION_3", "STABLE_DIFFUSION_LEGACY", "KOLORS", "PIXART_SIGMA", "SMOLDIT", "SANA", "LTXVIDEO", "WAN")
"""Variables of config.env that say which other model it is, with true."""

SECRETS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "hf_token", "webshart.hf_token")
"""Keys whose values are not kept."""
_READ_SECRETS = ("webhook_config",)
"""Keys whose values become settings and are in no report."""

_PLACEHOLDER = re.compile(r"\{([^{}\s]+)\}")
_ENVIRONMENT = "env:"


def read_config(source: Source, draft: Draft, *, table: Table) -> list[Given]:
    """The options of a file, by their names now; of several values of one the last counts, as there."""
    given = list(_read_script(source, draft, table) if source.script is not None else _read_top(source))
    last = {one.name: one for one in given}
    for one in given:
        if last[one.name] is not one:
            draft.note(one, "no effect", line=f"given again as {last[one.name].text}, and the last one counts")
    return list(last.values())


def normalize(key: str) -> str:
    """The name of an option as the tables have it."""
    name = key.strip().lstrip("-").replace("-", "_")
    return OLD_NAMES.get(name, name)


def _read_top(source: Source) -> Iterator[Given]:
    yield from (build_given(normalize(str(key)), value, spelled=str(key), where=source.name) for key, value in source.top.items())


def build_given(name: str, value: Any, *, spelled: str, where: str) -> Given:
    """A key as it was given; what is secret is not kept, or not shown."""
    is_secret = name in _READ_SECRETS and value not in (None, "")
    return Given(name, HIDDEN if name in SECRETS and value not in (None, "") else value, spelled, where, is_secret=is_secret)


def _read_script(source: Source, draft: Draft, table: Table) -> Iterator[Given]:
    assert source.script is not None
    script = source.script
    for name, text in script.variables.items():
        where = f"{source.name}, line {script.lines[name]}"
        if name != "TRAINER_EXTRA_ARGS":
            yield from _read_variable(name, text, where, draft, table)
    if (extra := script.variables.get("TRAINER_EXTRA_ARGS")) is not None:
        where = f"{source.name}, line {script.lines['TRAINER_EXTRA_ARGS']}"
        yield from _read_words(check_read(extra, name="TRAINER_EXTRA_ARGS", where=source.name).split(), where)
    for command in script.commands:
        if starts_training(command.words):
            yield from _read_words(command.words, f"{source.name}, line {command.line}")


def starts_training(words: Sequence[str]) -> bool:
    """Whether a command is one that trains with SimpleTuner."""
    names = [word.replace("\\", "/").rpartition("/")[2] for word in words]
    is_own = any(one == "simpletuner" and other == "train" for one, other in zip(names, names[1:], strict=False))
    return is_own or ("train.py" in names and any("data_backend_config" in word for word in words))


def _read_words(words: Sequence[str], where: str) -> Iterator[Given]:
    for name, value in read_flags(words):
        text = " ".join(value) if isinstance(value, list) else value
        yield build_given(normalize(name), _strip_quotes(text) if isinstance(text, str) else text, spelled=f"--{name}", where=where)


def _strip_quotes(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _read_variable(name: str, text: str, where: str, draft: Draft, table: Table) -> Iterator[Given]:
    given = Given(name.lower(), text, name, where)
    is_on = text.strip().lower() == "true"
    if name == "FLUX":
        if is_on:
            yield Given("model_family", "flux", name, where)
        else:
            draft.note(given, "no effect", line="it says that it is no FLUX.1; which model it is, another key says")
        return
    if name in OTHER_MODELS:
        if is_on:
            raise build_model_error(f"{name} = {text}", where)
        draft.note(given, "no effect", line="it says which model it is not")
        return
    option = normalize(VARIABLES.get(name, name.lower()))
    is_read = name in VARIABLES or name in _SAME_NAMES or name.startswith("SDNQ_")
    if not is_read or find_answer(table, option) is None:
        near = "; the variable is called LR_SCHEDULE" if name == "LR_SCHEDULER" else ""
        draft.note(given, "no effect", line=f"no option of SimpleTuner is read from this variable{near}")
        return
    yield Given(option, check_read(text, name=name, where=where), name, where)


def build_model_error(got: str, where: str) -> ConfigError:
    """It is a file of another model."""
    return ConfigError(
        f"{where} is for a model that weber does not train.",
        got=got,
        expected="model_family flux or flux2 (FLUX=true in config.env): FLUX.1, its Kontext, Fill and schnell, FLUX.2 and its klein models",
        fix="use a file of a FLUX model, or set model_family to flux or flux2 in it",
    )


def fill_placeholders(given: Iterable[Given], table: Table, *, variables: Mapping[str, str]) -> list[Given]:
    """`{model_family}` and the like in texts, and `{env:NAME}` where the environment has it. ConfigError: what is needed is not known."""
    filled = [replace(one, value=_fill(one.value, variables, is_needed=_is_needed(one, table))) for one in given]
    unknown = {one.spelled: name for one in filled if _is_needed(one, table) for name in _list_unknown(one.value)}
    if unknown:
        names = ", ".join(f"{name} of {key}" for key, name in unknown.items())
        raise ConfigError(
            f"{filled[0].where.partition(',')[0]} takes values from the environment that are not there: {names}.",
            got=next(one.text for one in filled if one.spelled in unknown),
            expected="variables that are set, or the values themselves",
            fix=f"set {next(iter(unknown.values()))} in the environment, or write its value into the file",
        )
    return filled


def _is_needed(given: Given, table: Table) -> bool:
    answer = find_answer(table, given.name)
    return answer is not None and answer.kind in ("used", "translated")


def _fill(value: Any, variables: Mapping[str, str], *, is_needed: bool) -> Any:
    if isinstance(value, list):
        return [_fill(one, variables, is_needed=is_needed) for one in value]
    if not isinstance(value, str):
        return value
    return _PLACEHOLDER.sub(lambda found: _find_text(found[1], variables, is_needed=is_needed), value)


def _find_text(name: str, variables: Mapping[str, str], *, is_needed: bool) -> str:
    placeholder = f"{{{name}}}"
    if name in variables or not (is_needed and name.startswith(_ENVIRONMENT)):
        return variables.get(name, placeholder)
    unset = f"${{{name.removeprefix(_ENVIRONMENT)}}}"
    text = os.path.expandvars(unset)
    return placeholder if text == unset else text


def _list_unknown(value: Any) -> list[str]:
    texts = value if isinstance(value, list) else [value]
    found = [name for text in texts if isinstance(text, str) for name in _PLACEHOLDER.findall(text)]
    return [name.removeprefix(_ENVIRONMENT) for name in found if name.startswith(_ENVIRONMENT)]
