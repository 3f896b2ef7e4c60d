"""SimpleTuner's options of the optimizer, the schedule and the length of a run: what each becomes here."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.simpletuner.facts import is_full
from weber.config.importers.values import read_float, simplify
from weber.config.optimizers import FACTS, read_optimizer_name
from weber.errors import ConfigError

_BETAS = (0.9, 0.999)
_OPTIMI_BETAS = (0.9, 0.99)

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "adamw_bf16": {"betas": _BETAS, "eps": 1e-6, "weight_decay": 0.01},
    "ao-adamw8bit": {"betas": _BETAS, "eps": 1e-6, "weight_decay": 0.01},
    "ao-adamw4bit": {"betas": _BETAS, "eps": 1e-6, "weight_decay": 0.01},
    "ao-adamfp8": {"betas": _BETAS, "eps": 1e-6, "weight_decay": 0.01},
    "ao-adamwfp8": {"betas": _BETAS, "eps": 1e-6, "weight_decay": 0.01},
    "adamw_schedulefree": {"betas": _BETAS, "eps": 1e-8, "weight_decay": 0.01},
    "optimi-stableadamw": {"betas": _OPTIMI_BETAS, "eps": 1e-6, "weight_decay": 0.01},
    "optimi-adamw": {"betas": _OPTIMI_BETAS, "eps": 1e-6, "weight_decay": 0.0},
    "optimi-lion": {"betas": _OPTIMI_BETAS, "weight_decay": 0.0},
    "optimi-radam": {"betas": _OPTIMI_BETAS, "eps": 1e-6, "weight_decay": 0.0},
    "optimi-ranger": {"betas": _OPTIMI_BETAS, "eps": 1e-6, "weight_decay": 0.0},
    "optimi-adan": {"betas": (0.98, 0.92, 0.999), "eps": 1e-6, "weight_decay": 0.02},
    "optimi-adam": {"betas": _OPTIMI_BETAS, "eps": 1e-6, "weight_decay": 0.0},
    "optimi-sgd": {"weight_decay": 0.0},
    "bnb-adam": {"betas": _BETAS, "eps": 1e-8, "weight_decay": 0.0},
    "bnb-adam8bit": {"betas": _BETAS, "eps": 1e-8, "weight_decay": 0.0},
    "bnb-adamw": {"betas": _BETAS, "eps": 1e-6, "weight_decay": 0.01},
    "bnb-adamw8bit": {"betas": _BETAS, "eps": 1e-6, "weight_decay": 0.01},
    "bnb-adamw-paged": {"betas": _BETAS, "eps": 1e-6, "weight_decay": 0.01},
    "bnb-adamw8bit-paged": {"betas": _BETAS, "eps": 1e-6, "weight_decay": 0.01},
    "prodigy": {"betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0},
}
"""What SimpleTuner gives an optimizer where the file says nothing, as far as it is known; others keep what is usual for them."""

_RENAMED = {"adam_bfloat16": "adamw_bf16", "adamw8bit": "bnb-adamw8bit", "use_8bit_adam": "bnb-adamw8bit"}
_PLAIN = ("betas", "eps", "weight_decay")
_UNCLIPPED = ("optimi-stableadamw", "prodigy")
_LEAST_ACTING = 0.1
"""Single numbers of gradients of a loss that is a mean are far below this, so that clipping them there changes nothing."""
_LARGEST_FACTOR = 100.0


def _read_name(keys: Keys) -> str:
    name = (keys.read_text("optimizer") or "adamw_bf16").lower()
    return _RENAMED.get(name, name)


def _find_ours(keys: Keys) -> str:
    """weber's name. Raises ValueError, in words."""
    return read_optimizer_name(_read_name(keys))


def set_optimizer(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The optimizer with the settings that SimpleTuner gives it."""
    origin, name = keys.find("optimizer"), _read_name(keys)
    try:
        ours = _find_ours(keys)
    except ValueError as error:
        return f'{REFUSED}{error}; until then the run has weber\'s adamw'
    lines = [draft.set("optim.name", ours, origin=origin)]
    given = _read_config(keys)
    for key, setting in SETTINGS.get(name, {}).items():
        if key not in given and _is_other(ours, key, setting):
            lines.append(draft.set(f"optim.{key}", _write(setting), origin=f"{name}, as SimpleTuner has it"))
    note = "; SimpleTuner's is ProdigyPlusScheduleFree, which weber does not have" if name == "prodigy" else ""
    return ", ".join(lines) + note


def _is_other(ours: str, key: str, setting: Any) -> bool:
    usual = {"betas": FACTS[ours].betas, "eps": FACTS[ours].eps, "weight_decay": FACTS[ours].weight_decay}[key]
    return usual is not None and usual != setting


def _write(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _read_config(keys: Keys) -> dict[str, Any]:
    """The settings of `optimizer_config` and of both betas."""
    parts = [part.partition("=") for part in (keys.read_text("optimizer_config") or "").split(",") if part.strip()]
    found: dict[str, Any] = {name.strip(): _read_value(text.strip()) for name, _, text in parts}
    if "optimizer_beta1" in keys and "optimizer_beta2" in keys:
        found["betas"] = [keys.read_float("optimizer_beta1"), keys.read_float("optimizer_beta2")]
    return found


def _read_value(text: str) -> Any:
    words: dict[str, Any] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return simplify(float(text)) if "e" not in text.lower() and "." not in text else float(text)
    except ValueError:
        return text


def set_optimizer_config(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Settings of the optimizer: those that all have, and those of its library."""
    origin = keys.find("optimizer_config")
    try:
        facts = FACTS[_find_ours(keys)]
    except ValueError:
        return f"{NO_EFFECT}the optimizer itself cannot be had"
    lines, refused, options = list[str](), list[str](), dict[str, Any]()
    for name, one in _read_config(keys).items():
        if name == "betas" and "optimizer_beta1" in keys:
            continue
        has = {"betas": facts.betas, "eps": facts.eps, "weight_decay": facts.weight_decay}
        if name in _PLAIN and has[name] is not None and one is not None:
            lines.append(draft.set(f"optim.{name}", one, origin=origin))
        elif facts.is_own or one is None:
            refused.append(name)
        else:
            options[name] = one
    if options:
        lines.append(draft.set("optim.options", options, origin=origin))
    left = f"{', '.join(refused)}: weber's optimizer has no such setting" if refused else ""
    return "; ".join([*lines, left] if left else lines) if lines else f"{REFUSED}{left}"


def set_betas(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Both decays, which SimpleTuner takes together only."""
    if "optimizer_beta1" not in keys or "optimizer_beta2" not in keys:
        raise ConfigError(
            "optimizer_beta1 and optimizer_beta2 are taken together only, as SimpleTuner has it.",
            got=keys.find("optimizer_beta1" if "optimizer_beta1" in keys else "optimizer_beta2").text,
            expected="both, or neither",
            fix="add the other one",
        )
    try:
        facts = FACTS[_find_ours(keys)]
    except ValueError:
        return f"{NO_EFFECT}the optimizer itself cannot be had"
    if facts.betas is None or len(facts.betas) != 2:
        return f"{NO_EFFECT}the optimizer has no such decays"
    betas = [keys.read_float("optimizer_beta1"), keys.read_float("optimizer_beta2")]
    return draft.set("optim.betas", betas, origin=keys.find("optimizer_beta1"))


def find_rate(keys: Keys) -> float:
    """The learning rate that acts: scaled by the pictures of a step, where the file asks for that."""
    rate = keys.read_float("learning_rate") or 4e-7
    pictures = (keys.read_int("train_batch_size") or 4) * (keys.read_int("gradient_accumulation_steps") or 1)
    pictures *= keys.read_int("num_processes") or 1
    if keys.read_bool("lr_scale"):
        return rate * (sqrt(pictures) if keys.read_bool("lr_scale_sqrt") else pictures)
    return rate


def set_rate(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The learning rate."""
    rate, origin = find_rate(keys), keys.find("learning_rate")
    try:
        found = FACTS[_find_ours(keys)]
    except ValueError:
        return f"{NO_EFFECT}it is a rate of an optimizer that weber does not have; the usual one is taken"
    if found.fixed_lr == 1 and not found.has_rates and rate < 0.01:
        return f"{REFUSED}of {_read_name(keys)}, which finds its rate itself, it is a factor; {rate:g} would all but stop it, 1.0 is taken"
    if rate > _LARGEST_FACTOR or rate <= 0:
        raise ConfigError("no optimizer learns so.", got=origin.text, expected="a rate such as 1e-4", fix="correct learning_rate")
    line = draft.set("optim.lr", rate, origin=origin)
    return line + (f", {read_float(value, name='learning_rate'):g} scaled as lr_scale asks" if keys.read_bool("lr_scale") else "")


def set_scale(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The rate, scaled by the pictures of a step."""
    if not keys.read_bool("lr_scale"):
        return f"{NO_EFFECT}asks for nothing, here as there"
    return f"in optim.lr = {find_rate(keys):g}"


# ---- the schedule


def _read_schedule(keys: Keys) -> str:
    name = (keys.read_text("lr_scheduler") or "constant_with_warmup").lower()
    return {"cosine_with_warmup": "cosine"}.get(name, name)


def _is_free(keys: Keys) -> bool:
    """Whether the optimizer needs the same rate to the end, whatever the schedule says."""
    return _read_name(keys).startswith("adamw_schedulefree")


def count_wave(keys: Keys) -> int:
    """Steps in which SimpleTuner's cosine goes down once, before it goes up again."""
    return keys.read_int("lr_warmup_steps") or 1000


def set_schedule(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The course of the rate. SimpleTuner's cosine is a wave whose half is `lr_warmup_steps`; here it is one fall."""
    schedule, origin = _read_schedule(keys), keys.find("lr_scheduler")
    if _is_free(keys):
        return f"{NO_EFFECT}a schedule-free optimizer keeps its rate, there as here"
    match schedule:
        case "constant" | "constant_with_warmup":
            return draft.set("optim.schedule", "constant", origin=origin)
        case "linear" | "polynomial":
            return draft.set("optim.schedule", schedule, origin=origin)
        case "cosine":
            line = draft.set("optim.schedule", "cosine", origin=origin)
            wave = count_wave(keys)
            if keys.read_int("max_train_steps") == wave:
                return line
            return f"{line}, one fall; SimpleTuner's goes down in {wave} steps (lr_warmup_steps, or 1000), up in as many, and so on"
        case "cosine_with_restarts":
            line = draft.set("optim.schedule", "constant", origin=origin)
            return f"{line}, because in SimpleTuner this one stays where it is (it warns of it itself)"
        case _:
            return f"{REFUSED}weber's rates go down once, from optim.lr to optim.end_lr: the rate is constant here; set optim.schedule"


def set_warmup(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Steps in which the rate rises, but for schedules that use the number otherwise."""
    if _read_schedule(keys) in ("cosine", "cosine_with_restarts", "sine") and not _is_free(keys):
        return f"{NO_EFFECT}there is no warm-up: SimpleTuner's {_read_schedule(keys)} takes it for the length of its wave"
    return draft.set("optim.warmup_steps", keys.read_int("lr_warmup_steps"), origin=keys.find("lr_warmup_steps"))


def set_end_rate(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The rate at the end."""
    schedule, end = _read_schedule(keys), keys.read_float("lr_end") or 0.0
    if schedule not in ("polynomial", "cosine") or _is_free(keys):
        return f"{NO_EFFECT}the schedule {schedule} does not go down to it"
    if schedule == "polynomial" and end >= find_rate(keys):
        raise ConfigError(
            "the learning rate would not go down; SimpleTuner refuses that too.",
            got=f"{keys.find('learning_rate').text}, {keys.find('lr_end').text}",
            expected="lr_end below learning_rate",
            fix="lower lr_end, or raise learning_rate",
        )
    if end > find_rate(keys):
        return f"{REFUSED}weber's rates only go down, and it is above learning_rate"
    return draft.set("optim.end_lr", end, origin=keys.find("lr_end"))


def set_power(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The exponent of the polynomial schedule."""
    if _read_schedule(keys) != "polynomial" or _is_free(keys):
        return f"{NO_EFFECT}it is for the polynomial schedule"
    return draft.set("optim.power", keys.read_float("lr_power"), origin=keys.find("lr_power"))


# ---- clipping, running mean, where the state lies


def set_clip(draft: Draft, keys: Keys, *, value: Any) -> str:
    """SimpleTuner clips each number of the gradient by default, not its norm."""
    limit, origin = keys.read_float("max_grad_norm") or 0.0, keys.find("max_grad_norm")
    if _read_name(keys) in _UNCLIPPED:
        return f"{NO_EFFECT}SimpleTuner does not clip with this optimizer, which bounds its updates itself, here too"
    if (keys.read_text("grad_clip_method") or "value").lower() == "norm":
        return draft.set("optim.clip_norm", limit if limit > 0 else "off", origin=origin)
    line = draft.set("optim.clip_norm", "off", origin=origin)
    if limit <= 0:
        return line
    if limit < _LEAST_ACTING:
        return f"{REFUSED}weber clips the norm of all gradients, not single numbers: {line}; optim.clip_norm = 1.0 is usual"
    return f"{line}: SimpleTuner clips each number of the gradient at {limit:g}, which none reaches, and not the norm"


def set_ema(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The running mean of the weights."""
    if not keys.read_bool("use_ema"):
        return f"{NO_EFFECT}asks for nothing, here as there"
    if _is_free(keys):
        return f"{NO_EFFECT}the weights of a schedule-free optimizer are a mean already"
    return draft.set("optim.ema_decay", keys.read_float("ema_decay") or 0.995, origin=keys.find("use_ema"))


def set_ema_decay(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Its decay."""
    if not keys.read_bool("use_ema") or _is_free(keys):
        return f"{NO_EFFECT}no running mean is kept"
    return draft.set("optim.ema_decay", keys.read_float("ema_decay"), origin=keys.find("ema_decay"))


def set_ema_device(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Where it lies."""
    if not keys.read_bool("use_ema") or _is_free(keys) or str(value).lower() == "cpu" or keys.read_bool("ema_cpu_only"):
        return f"{NO_EFFECT}no running mean is kept, or it lies in the memory of the host as here by default"
    return draft.set("optim.ema_on", "device", origin=keys.find("ema_device"))


def set_state_place(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The optimizer's state in the memory of the host."""
    if str(value).strip().lower() in ("none", "no"):
        return f"{NO_EFFECT}asks for nothing, here as there"
    try:
        if not FACTS[_find_ours(keys)].is_own:
            return f"{NO_EFFECT}it saves memory alone; weber has it for adamw, adamw_bf16, adamw_8bit, adafactor and lion"
    except ValueError:
        return f"{NO_EFFECT}the optimizer itself cannot be had"
    return draft.set("optim.state_on", "host", origin=keys.find("optimizer_cpu_offload_method"))


# ---- length


def set_steps(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Optimizer steps; 0 means that epochs count."""
    steps = keys.read_int("max_train_steps") or 0
    if steps <= 0:
        return f"{NO_EFFECT}num_train_epochs says how long"
    return draft.set("train.steps", steps, origin=keys.find("max_train_steps"))


def set_epochs(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Passes over the data, where no steps are given."""
    if (keys.read_int("max_train_steps") or 0) > 0:
        return f"{NO_EFFECT}max_train_steps says how long"
    epochs = keys.read_float("num_train_epochs") or 0
    if epochs < 1 or epochs != int(epochs):
        raise ConfigError(
            "weber counts whole epochs, or steps.",
            got=keys.find("num_train_epochs").text,
            expected="max_train_steps, or num_train_epochs of 1 or more",
            fix="set max_train_steps",
        )
    return draft.set("train.epochs", int(epochs), origin=keys.find("num_train_epochs"))


def set_seed(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The seed; 0 and -1 mean another one at each start."""
    seed = keys.read_int("seed")
    if seed is None or seed <= 0:
        return f"{NO_EFFECT}SimpleTuner takes another seed at each start; here it is train.seed = 42"
    return draft.set("train.seed", seed, origin=keys.find("seed"))


def set_text_rate(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The rate of text encoders, which SimpleTuner does not train for these models."""
    return f"{NO_EFFECT}{'the whole model' if is_full(keys) else 'the transformer alone'} is trained; no text encoder learns"
