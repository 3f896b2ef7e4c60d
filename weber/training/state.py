"""What outlives the process: what is trained, its running mean, optimizer state, step and settings, as files of a checkpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from weber.adapters.full import load_tensors
from weber.adapters.metadata import FACTS_KEY
from weber.checkpoint.save import Write, save_checkpoint
from weber.config.load import build_config
from weber.config.run import RunConfig
from weber.errors import CheckpointError
from weber.families.tensors import Weights, build_entry, open_weights, save_weights
from weber.kinds.kind import Learned
from weber.optim.libraries import evaluated
from weber.optim.states import list_states, load_states
from weber.planning.lessons import identify_factors
from weber.planning.plan import Plan
from weber.results.runs import EMA_NAME, EXACT_NAME
from weber.training.gathered import Gathered, gather
from weber.training.learner import Learner
from weber.version import VERSION

OPTIMIZER_NAME = "optimizer.safetensors"
STATE_NAME = "state.json"
FIXED = (
    *("model.variant", "adapter.kind", "adapter.rank", "adapter.alpha", "adapter.targets", "adapter.exclude", "adapter.blocks"),
    *("adapter.init", "adapter.rslora", "adapter.dora", "adapter.text_encoder", "adapter.lycoris", "adapter.rules"),
    *("optim.name", "optim.options"),
)
"""Settings that a checkpoint's tensors depend on, so that they cannot change on resume; but the rates of rules."""
LAYERS = ("adapter.targets", "adapter.exclude", "adapter.blocks")
"""Of these, those that may say the same in other words."""
_RATE = re.compile(r"adapter\.rules\.\d+\.lr:")
FREE = (
    *("output.", "publish.", "parallel.", "sampling.", "evaluation.", "adapter.start_from", "adapter.resize_start", "adapter.precision"),
    *("model.path", "model.revision", "model.transformer", "model.vae"),
    *("model.text_encoder", "model.tokenizer_path", "model.assistant:", "model.assistant_sample_strength"),
)
"""Settings that change no number of a run; of places it is what lies there that counts."""
_FREE_ADAPTER = re.compile(r"model\.adapters\.\d+\.(path|sample_strength):")


def save_state(run_folder: Path, learner: Learner, *, plan: Plan, step: int, ending: str = "") -> Path:
    """Write the checkpoint of `step` finished steps. `ending` of its name: no run goes on from it by itself."""
    gathered = gather(learner)
    learned, ema = build_learned(learner, plan=plan, step=step, gathered=gathered), learner.ema

    def list_tensors(states: bool) -> Weights:
        if gathered is not None:
            return gathered.states if states else gathered.means
        found = list_states(learner.optimizer, learner.parameters) if states or ema is None else ema.list_tensors()
        return {name: build_entry(tensor) for name, tensor in found.items()}

    def save_learned(path: Path) -> None:
        with evaluated(learner.optimizer):
            plan.kind.save(path, learned)

    files: dict[str, Write] = {
        plan.kind.file: save_learned,
        OPTIMIZER_NAME: lambda path: save_weights(path, list_tensors(states=True), metadata={}),
        STATE_NAME: lambda path: _write_text(path, json.dumps(_describe(learner.config, plan, step), indent=1) + "\n"),
    }
    exact = plan.kind.list_exact(learned)
    if exact:
        files[EXACT_NAME] = lambda path: save_weights(path, {name: build_entry(one) for name, one in exact.items()}, metadata={})
    if ema is not None:
        header = {FACTS_KEY: json.dumps(learned.facts, sort_keys=True)}
        files[EMA_NAME] = lambda path: save_weights(path, list_tensors(states=False), metadata=header)
    return save_checkpoint(run_folder, step, files=files, ending=ending)


def check_state(folder: Path, plan: Plan) -> list[str]:
    """Compare a checkpoint with a plan, before weights are read; returns what changed since, as `key: old -> new`.

    Raises CheckpointError where something changed that the saved tensors depend on.
    """
    state = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
    changed = _list_differences(build_config(state["config"]), plan.resolved)
    fixed = [line for line in changed if line.startswith(FIXED) and not _RATE.match(line)]
    if fixed and _has_same_names(folder, plan):
        fixed = [line for line in fixed if not line.startswith(LAYERS)]
    if state["model"] != plan.family.identify("transformer"):
        fixed.append(f"the weights of the model in {plan.resolved.model.path or plan.family.variant}")
    precision = str(plan.trained.dtype).removeprefix("torch.")
    if state.get("precision", precision) != precision:
        fixed.append(f"the precision of the trained weights: {state['precision']} -> {precision}")
    if fixed:
        raise CheckpointError(
            "The run cannot be resumed with these settings, because the saved tensors depend on them.",
            got="; ".join(fixed),
            fix="resume with the old values, or train into another output.folder",
        )
    pictures = plan.dataset.examples.identify()
    data = [] if state.get("pictures", pictures) == pictures else ["the pictures or captions"]
    parts = _identify_parts(plan)
    other = [f"the {part} of the model" for part, identity in state.get("parts", parts).items() if parts.get(part) != identity]
    return [line for line in changed if not line.startswith(FREE) and not _FREE_ADAPTER.match(line)] + data + other


def _has_same_names(folder: Path, plan: Plan) -> bool:
    """Whether the optimizer has moved the same parameters as it would now, by their names."""
    names = {name for key in open_weights([folder / OPTIMIZER_NAME]) if "." in (name := key.partition("/")[0])}
    return names == set(plan.trained.shapes)


def load_state(folder: Path, learner: Learner, *, plan: Plan) -> None:
    """Put a checkpoint's tensors back. A running mean that the checkpoint does not have starts at its weights."""
    transformer = learner.predictor.transformer
    plan.kind.load(folder / plan.kind.file, transformer, parameters=learner.parameters)
    if (folder / EXACT_NAME).is_file():
        exact = open_weights([folder / EXACT_NAME])
        load_tensors([(name, transformer.get_parameter(name)) for name in exact], exact, where=str(folder / EXACT_NAME))
    load_states(learner.optimizer, learner.parameters, tensors=_read_own(folder / OPTIMIZER_NAME, learner))
    if learner.ema is not None:
        means = folder / EMA_NAME
        trained = {name: parameter.detach() for name, parameter in learner.parameters}
        learner.ema.load_tensors(_read_own(means, learner) if means.is_file() else trained)


def _read_own(file: Path, learner: Learner) -> dict[str, Tensor]:
    """The tensors of a file; where each process moves a part, those of this one."""
    if learner.crew is None or not learner.crew.owners:
        return load_file(file)
    own = {name for name, _ in learner.parameters}
    return {name: tensor for name, tensor in load_file(file).items() if name.partition("/")[0] in own}


def build_learned(learner: Learner, *, plan: Plan, step: int, gathered: Gathered | None = None) -> Learned:
    """What has been learned after `step` finished steps, to be written. `gathered`: what is known of it of other processes."""
    gathered = gathered or gather(learner)
    weights, means = (None, None) if gathered is None else (gathered.weights, gathered.means)
    facts, transformer = build_facts(learner, plan=plan, step=step), learner.predictor.transformer
    return Learned(learner.config, learner.family, transformer, learner.parameters, learner.ema, facts, weights, means)


def build_facts(learner: Learner, *, plan: Plan, step: int) -> dict[str, object]:
    """What a file says of the training that made it."""
    config = learner.config
    return {
        "version": VERSION,
        "variant": learner.family.variant,
        "architecture": learner.family.architecture,
        "model": Path(config.model.transformer or config.model.path or learner.family.variant).name,
        "base_identity": learner.family.identify("transformer"),
        "steps": step,
        "num_pictures": len(plan.dataset.examples),
        "num_captions": sum(len(part.captions) for part in plan.dataset.examples.parts),
        "resolutions": sorted(f"{one.width}x{one.height}" for one in plan.dataset.examples.count_uses()),
        "batch_size": config.train.batch_size * config.train.accumulation,
        "optimizer": config.optim.name,
        "lr": config.optim.lr,
        **({"text_encoder_lr": config.optim.text_encoder_lr or config.optim.lr} if config.adapter.text_encoder else {}),
        "timesteps": config.objective.timesteps,
        "guidance": learner.guidance,
        "seed": config.train.seed,
        **({} if plan.kind.is_adapter else {"kind": config.adapter.kind}),
        **_describe_form(config),
    } | _describe_pictures(plan)


def _describe_form(config: RunConfig) -> dict[str, object]:
    """What was asked of the adapter: of LyCORIS what differs from its own, of a LoRA rank and scale, which files have in their numbers."""
    adapter, lycoris = config.adapter, config.adapter.lycoris
    if lycoris is not None:
        return {"lycoris": {"algo": lycoris.algo} | lycoris.model_dump(exclude_defaults=True)}
    if adapter.kind != "lora":
        return {}
    asked = {"rank": adapter.rank, "alpha": adapter.rank if adapter.alpha is None else adapter.alpha}
    rules = [rule.model_dump(exclude_none=True) for rule in adapter.rules]
    return {"adapter": asked | ({"rslora": True} if adapter.rslora else {}) | ({"rules": rules} if rules else {})}


def _describe_pictures(plan: Plan) -> dict[str, object]:
    """What was shown to the network beside the noise; nothing is said of what was not there."""
    pictures = plan.dataset.examples
    num_references = max(len(shape.references) for _, shape in pictures.kinds)
    if num_references == 0:
        num_masks = sum(len(part.array("mask.share")) for part in pictures.parts if "mask" in part.columns)
        return {"masks": num_masks} if plan.family.picture_inputs.repaints else {}
    kinds = {one.conditioning_type or "reference_strict" for one in plan.config.learned_sets if one.num_references}
    return {
        "references": num_references,
        "conditioning_type": ", ".join(sorted(kinds)),
        "reference_timestep": plan.config.objective.reference_timestep,
    }


def _describe(config: RunConfig, plan: Plan, step: int) -> dict[str, object]:
    return {
        "step": step,
        "num_steps": plan.num_steps,
        "weber": VERSION,
        "model": plan.family.identify("transformer"),
        "parts": _identify_parts(plan),
        "pictures": plan.dataset.examples.identify(),
        "precision": str(plan.trained.dtype).removeprefix("torch."),
        "config": config.model_dump(mode="json", exclude={"output": {"webhooks"}}),
    }


def _identify_parts(plan: Plan) -> dict[str, str]:
    """What the run's numbers depend on beside the transformer: encoders, and frozen adapters."""
    family = plan.family
    parts = {part: plan.encoders.identify(part) for part in (family.image_part, *family.text_parts)}
    return parts | {one.name: identify_factors(one.modules) for one in plan.frozen}


def _list_differences(old: RunConfig, new: RunConfig) -> list[str]:
    before, after = flatten_settings(old.model_dump(mode="json")), flatten_settings(new.model_dump(mode="json"))
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return [f"{key}: {before.get(key, 'not set')} -> {after.get(key, 'not set')}" for key in keys]


def flatten_settings(tree: object, prefix: str = "") -> dict[str, object]:
    """A tree of settings as `section.key` to value."""
    if isinstance(tree, dict):
        return {key: leaf for name, value in tree.items() for key, leaf in flatten_settings(value, f"{prefix}{name}.").items()}
    if isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
        return {key: leaf for name, value in enumerate(tree) for key, leaf in flatten_settings(value, f"{prefix}{name}.").items()}
    return {prefix[:-1]: tree}


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
