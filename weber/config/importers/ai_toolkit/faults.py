"""What ai-toolkit really does at some settings, without saying so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from weber.config.importers.ai_toolkit.optim import count_parts
from weber.config.importers.ai_toolkit.train import find_rank
from weber.config.importers.draft import Keys

Fault = tuple[Callable[[Keys], bool], Callable[[Keys], str]]


def _say(text: str) -> Callable[[Keys], str]:
    return lambda keys: text


def _has_other_alpha(keys: Keys) -> bool:
    alpha = keys.read_float("network.linear_alpha")
    return keys["kind"] == "lora" and alpha is not None and alpha != find_rank(keys)


def _is_summed(keys: Keys) -> bool:
    return (keys.read_int("train.gradient_accumulation") or 1) > 1


def _is_schedule(keys: Keys, *names: str) -> bool:
    return str(keys["train.lr_scheduler"]).lower() in names


def _is_packed_otherwise(keys: Keys) -> bool:
    kind = keys["model.qtype_te"]
    packs = keys.read_bool("model.quantize_te") or ("model.quantize_te" not in keys and keys.read_bool("model.quantize"))
    return bool(packs and keys["family"] != "klein" and kind is not None and kind != (keys["model.qtype"] or "qfloat8"))


FAULTS: tuple[Fault, ...] = (
    (
        _has_other_alpha,
        lambda keys: (
            f"network.linear_alpha {keys['network.linear_alpha']} is not read for FLUX: the scale was rank / rank = 1, not"
            f" {(keys.read_float('network.linear_alpha') or 0) / find_rank(keys):g}"
        ),
    ),
    (
        lambda keys: count_parts(keys) > 1,
        lambda keys: (
            f"gradient_accumulation_steps {count_parts(keys)} throws the gradients of all but the last batch of each step away"
            " (each begins with zero_grad): one batch was learned from in a step. weber learns from all"
        ),
    ),
    (
        _is_summed,
        lambda keys: (
            f"The gradients of {keys['train.gradient_accumulation']} batches are added and not averaged there, so that max_grad_norm cuts"
            " them sooner; weber averages"
        ),
    ),
    (
        lambda keys: keys.read_bool("train.ema_config.use_ema"),
        lambda keys: (
            f"Every file that it saves and each picture is of the running mean (ema_decay {keys['train.ema_config.ema_decay'] or 0.999}),"
            " not of the trained weights; weber saves both"
        ),
    ),
    (
        lambda keys: bool(keys["has_trigger"]) and bool(keys["has_dropout"]),
        _say("A dropped caption is not empty there: the trigger word is put back, so that the model never learned without it"),
    ),
    (
        lambda keys: keys.read_bool("train.unload_text_encoder") and not keys["is_cached"],
        _say("With unload_text_encoder no caption is read: every picture was learned with the trigger word alone, or with nothing"),
    ),
    (
        lambda keys: bool(keys["is_cached"]) and bool(keys["draws_tags"]),
        _say("With cache_text_embeddings tags are shuffled once, before the run, and never left out"),
    ),
    (
        lambda keys: _is_schedule(keys, "cosine_with_restarts"),
        _say("lr_scheduler cosine_with_restarts never restarts: its first cycle is as long as the run, whatever T_0 says"),
    ),
    (
        lambda keys: _is_schedule(keys, "linear") and keys["train.lr_scheduler_params.start_factor"] is None,
        _say("lr_scheduler linear does not fall: it rises from a third of the rate to the whole rate over the run"),
    ),
    (
        lambda keys: _is_schedule(keys, "constant_with_warmup") and keys["train.lr_scheduler_params.num_warmup_steps"] is None,
        _say("lr_scheduler constant_with_warmup without num_warmup_steps warms up over 1000 steps"),
    ),
    (
        lambda keys: _is_schedule(keys, "step", "polynomial", "cosine_with_hard_restarts", "piecewise_constant"),
        lambda keys: f"lr_scheduler {keys['train.lr_scheduler']} stops the job before its first step: it does not know total_iters",
    ),
    (
        _is_packed_otherwise,
        lambda keys: (
            f"model.qtype_te {keys['model.qtype_te']} is not read for that model: the text encoder was packed as"
            f" {keys['model.qtype'] or 'qfloat8'}"
        ),
    ),
    (
        lambda keys: bool(keys["is_schnell"]) and keys["model.assistant_lora_path"] is None,
        _say("FLUX.1 schnell was trained without an assistant LoRA, which breaks its four steps; model.assistant has one"),
    ),
    (
        lambda keys: bool(keys["has_json"]) and not keys.read_bool("train.unload_text_encoder"),
        _say("A .json file of a caption is read as it stands there, with its braces; weber reads what it says"),
    ),
    (
        lambda keys: bool(keys["crops_once"]),
        _say("random_crop is drawn once for each picture, when the set is opened, and is the same in all epochs"),
    ),
    (
        lambda keys: (keys.read_int("train.batch_size") or 1) > 1,
        _say("A batch that is not full is filled up with copies of its own pictures, which count more than others then"),
    ),
    (
        lambda keys: keys["family"] == "kontext" and str(keys["train.timestep_type"]) in ("shift", "flux_shift", "next_sample"),
        _say(
            "For Kontext it counts four times as many tokens as there are: noise levels are shifted by 25.3 and not by 3.16 at 1024 x 1024"
            " pixels. weber counts them rightly"
        ),
    ),
    (
        lambda keys: bool(keys["flips_x"]),
        _say("flip_x adds mirrored copies, so that a set with it counts twice beside others"),
    ),
    (
        lambda keys: keys["family"] == "kontext" and bool(keys["has_references"]),
        _say("A reference of another shape than its picture was stretched to it; weber cuts it instead"),
    ),
    (
        lambda keys: keys.read_float("train.max_grad_norm") == 0,
        _say("max_grad_norm 0 makes each gradient 0 there: nothing was learned"),
    ),
    (
        lambda keys: keys["kind"] == "lokr" and keys.read_float("network.dropout") not in (None, 0.0),
        _say("network.dropout does nothing for a LoKr"),
    ),
    (
        lambda keys: str(keys["train.optimizer"]).lower() in ("adamw8bit", "adamw", "adam", "adam8bit")
        and (keys.read_float("train.lr") or 0) >= 1e-2,
        lambda keys: f"train.lr {keys['train.lr']} is for an optimizer that finds its rate; {keys['train.optimizer']} takes it as it is",
    ),
)  # fmt: skip


def list_faults(keys: Keys) -> Sequence[str]:
    """Those that a job triggers."""
    return [say(keys) for is_there, say in FAULTS if is_there(keys)]
