"""Puts a run together, in order: plan, cache, network, adapter, optimizer, checkpoint. One of the two places that know all rooms."""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from weber.cache.latents import encode_latents
from weber.cache.masks import encode_loss_masks
from weber.cache.store import Store
from weber.cache.text import encode_texts
from weber.checkpoint.lock import lock_folder
from weber.checkpoint.resume import Found, load_latest
from weber.checkpoint.save import list_checkpoints
from weber.config.adapter import SHIFTED_STARTS
from weber.config.load import save_config
from weber.config.optim import OptimConfig
from weber.config.run import RunConfig
from weber.errors import CheckpointError, TrainingError
from weber.families.route import build_routes
from weber.kinds.text import build_text_put, find_text
from weber.optim.ema import Ema
from weber.optim.fused import FusedBackward
from weber.optim.states import Named
from weber.optim.stepper import Stepper
from weber.optim.table import build_optimizer
from weber.planning.plan import Plan, build_plan, list_captions, list_views, list_windows
from weber.planning.report import build_hint, build_summary
from weber.planning.resolve import build_absolute
from weber.results.runs import CONFIG_NAME, remove_finished
from weber.track.progress import Watcher
from weber.training.answers import write_answers
from weber.training.batch import Loader, Reader
from weber.training.learner import Learner
from weber.training.loop import Training, run
from weber.training.network import build_put, load_network
from weber.training.pictures import Painter
from weber.training.starts import write_start
from weber.training.state import check_state, load_state
from weber.training.teacher import Teacher


@dataclass(frozen=True)
class Encoded:
    """How many tensors were made because the cache did not have them."""

    latents: int
    texts: int


def train(config: RunConfig, *, resume: bool, watcher: Watcher) -> Path:
    """Run a config to the end, from its start or its latest checkpoint; returns the finished result: an adapter file, or a model."""
    folder = build_absolute(config.output.folder)
    _check_run_folder(folder, resume=resume)
    try:
        with watcher.shown():
            plan = build_plan(config, watcher.report, is_run=True, is_resumed=resume and load_latest(folder).folder is not None)
            watcher.write(build_summary(plan))
            with lock_folder(folder):
                start = _find_start(plan, folder, watcher) if resume else Found(0, None, {})
                store = Store(plan.resolved.output.cache)
                encode_cache(plan, store, watcher=watcher)
                training = assemble(plan, store, start=start, watcher=watcher)
                save_config(plan.resolved, folder / CONFIG_NAME)
                if start.step < plan.num_steps:
                    remove_finished(folder, config.adapter.kind)  # of a shorter run; it is in that checkpoint too
                swap = training.learner.swap
                with nullcontext() if swap is None else closing(swap):
                    finished = run(training, watcher)
                watcher.write(build_hint(plan, finished))
                return finished
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "The device has no memory left; the checkpoints of the run are whole.",
            got=str(error).splitlines()[0],
            fix="lower train.batch_size (raise train.accumulation instead), lower data.0.resolution, or set memory.gradient_checkpointing",
        ) from error


def encode_cache(plan: Plan, store: Store, *, watcher: Watcher) -> Encoded:
    """Encode what the cache lacks: masks and pictures first, then texts, one encoder in memory at a time."""
    size = plan.config.memory.encode_batch_size
    masks = encode_loss_masks(store, list_windows(plan), family=plan.family, progress=watcher.report)
    if masks:
        watcher.write(f"Read {masks} masks for the loss into {store.folder}.")
    latents = encode_latents(store, list_views(plan), encoders=plan.encoders, batch_size=size, progress=watcher.report)
    texts = encode_texts(store, list_captions(plan), encoders=plan.encoders, batch_size=size, progress=watcher.report)
    if latents or texts:
        watcher.write(f"Encoded {latents} latents and {texts} texts into {store.folder}.")
    return Encoded(latents, texts)


def assemble(plan: Plan, store: Store, *, start: Found, watcher: Watcher) -> Training:
    """Load the network, put on it what learns, and go on from the checkpoint `start`, if it has one."""
    config, folder = plan.resolved, plan.resolved.output.folder
    reader = Reader(store, plan.encoders)
    watcher.write(f"Loading the model to {plan.device} in {str(plan.dtype).removeprefix('torch.')}.")
    for one in plan.frozen:
        watcher.write(f"The {one.name.replace('_', ' ')} {one.place} takes part with strength {one.strength:g}.")
    parameters: list[tuple[str, nn.Parameter]] = []
    base = plan.family.open_transformer()

    def put(transformer: nn.Module) -> None:
        parameters.extend(plan.kind.build(transformer, config, trained=plan.trained, base=base, start=plan.start))

    network = load_network(
        plan.family,
        config.memory,
        device=plan.device,
        dtype=plan.dtype,
        trained=plan.trained.shapes,
        put=build_text_put(build_put(put, plan.frozen), config, encoders=plan.encoders),
        cache=config.output.cache,
        progress=watcher.report,
    )
    predictor = network.predictor
    predictor.transformer.train()
    predictor.routes = build_routes(config.objective.tread, num_blocks=len(plan.family.blocks(predictor)))
    rates = [plan.trained.rates.get(name, 1.0) for name, _ in parameters]
    optimizer = build_optimizer([parameter for _, parameter in parameters], config.optim, seed=config.train.seed, rates=rates)
    learner = Learner(
        config,
        plan.family,
        predictor,
        parameters,
        optimizer,
        plan.training_guidance,
        fused=FusedBackward(optimizer) if config.optim.fused_backward and isinstance(optimizer, Stepper) else None,
        ema=_build_mean(config.optim, parameters, plan.device),
        swap=network.swap,
        text=find_text(plan.family, predictor.transformer),
        teacher=Teacher(predictor, plan.kind) if any(one.is_regularization for one in plan.dataset.examples) else None,
    )
    loader = Loader(plan, store)
    write_answers(plan, learner, loader=loader, store=store, progress=watcher.report)
    if start.folder is not None:
        load_state(start.folder, learner, plan=plan)
    elif config.adapter.init in (*SHIFTED_STARTS, "eva"):
        write_start(learner, loader, base=base, num_steps=plan.num_steps, progress=watcher.report)
    painter = Painter(plan, predictor, run_folder=folder, reader=reader, ema=learner.ema, swap=learner.swap)
    return Training(plan, learner, loader, painter, folder, start.step)


def _build_mean(config: OptimConfig, parameters: Named, device: torch.device) -> Ema | None:
    if config.ema_decay is None:
        return None
    home = device if config.ema_on == "device" else torch.device("cpu")
    return Ema(parameters, decay=config.ema_decay, device=home, warmup=config.ema_warmup)


def _find_start(plan: Plan, folder: Path, watcher: Watcher) -> Found:
    """The checkpoint to go on from, checked against the plan before weights are read."""
    found = load_latest(folder)
    for damaged, reason in found.damaged.items():
        watcher.write(f"Skipped the damaged checkpoint {damaged.name}: {reason}.")
    if found.folder is None:
        watcher.write(f"There is no checkpoint in {folder} yet: starting at step 0.")
        return found
    if found.step > plan.num_steps:
        raise CheckpointError(
            "The run has gone further than it is now asked to.",
            got=f"{found.folder.name}, and {plan.num_steps} steps in all",
            fix=f"set train.steps to {found.step} or more",
        )
    changed = check_state(found.folder, plan)
    watcher.write(f"Resuming {found.folder.name}: {plan.num_steps - found.step} of {plan.num_steps} steps are left.")
    if changed and found.step == plan.num_steps:
        raise CheckpointError(
            "Nothing is left to train, so changed settings would have no effect.",
            got="; ".join(changed),
            fix=f"raise train.steps above {plan.num_steps}, or take the changes back",
        )
    if changed:
        watcher.write("Changed since that checkpoint, so not bit for bit the same run: " + "; ".join(changed))
    return found


def _check_run_folder(folder: Path, *, resume: bool) -> None:
    if folder.is_file():
        raise CheckpointError("The run folder is a file.", got=f"output.folder = {folder}", fix="choose another output.folder")
    if not resume and (list_checkpoints(folder) or (folder / "metrics.jsonl").exists()):
        raise CheckpointError(
            "The run folder already holds a run.",
            got=f"output.folder = {folder}",
            expected="an empty or new folder, or --resume",
            fix="add --resume to go on with that run, or set output.folder to another folder",
        )
