"""Puts a run together, in order: plan, cache, network, adapter, optimizer, checkpoint. One of the two places that know all rooms."""

from __future__ import annotations

from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from weber.cache.latents import encode_latents
from weber.cache.live import LiveTexts
from weber.cache.masks import encode_loss_masks
from weber.cache.share import WHOLE, Share, keep_own_pace
from weber.cache.store import Store
from weber.cache.text import encode_texts
from weber.checkpoint.lock import lock_folder
from weber.checkpoint.resume import Found
from weber.checkpoint.save import CONFIG_NAME
from weber.config.adapter import SHIFTED_STARTS
from weber.config.importers.outcome import Imported
from weber.config.importers.report import write_summary
from weber.config.load import save_config
from weber.config.optim import OptimConfig
from weber.config.run import RunConfig
from weber.data.words import describe_count
from weber.errors import TrainingError
from weber.families.family import Predictor
from weber.families.route import build_routes
from weber.kinds.text import build_text_put, find_text
from weber.optim.ema import Ema
from weber.optim.fused import FusedBackward
from weber.optim.states import Named
from weber.optim.stepper import Stepper
from weber.optim.table import build_optimizer
from weber.parallel.devices import check_alone
from weber.parallel.shards import Sharding
from weber.parallel.world import World, check_equal
from weber.planning.attention import choose_attention
from weber.planning.budget import build_estimate
from weber.planning.old_run import PAGE_NAME, write_import
from weber.planning.places import check_places
from weber.planning.plan import Plan, build_plan
from weber.planning.report import build_hint, build_summary
from weber.planning.resolve import build_absolute
from weber.planning.space import check_space
from weber.progress import Progress
from weber.results.runs import is_run
from weber.sharing.beside import Publisher
from weber.sharing.captions import save_captions
from weber.track.progress import Watcher
from weber.track.webhooks import SILENT, Messages, Opened
from weber.training.answers import write_answers
from weber.training.batch import Loader, Reader
from weber.training.compiling import Compiling, compile_blocks
from weber.training.crew import build_crew
from weber.training.dealt import Dealt
from weber.training.divided import Divided
from weber.training.learner import Learner, build_health
from weber.training.loop import build_command, run
from weber.training.network import Where, build_put, load_network
from weber.training.pictures import Painter
from weber.training.prepared import Training
from weber.training.previews import Previews
from weber.training.resume import Resume, check_start, find_start, leave_branch, read_previous
from weber.training.saving import Saver
from weber.training.scoring import build_scoring
from weber.training.starts import write_start
from weber.training.state import load_state
from weber.training.stop import Stop, Stopped, stop_signals
from weber.training.teacher import Teacher


@dataclass(frozen=True)
class Encoded:
    """How many tensors were made because the cache did not have them."""

    latents: int
    texts: int


def train(
    config: RunConfig,
    *,
    resume: Resume,
    watcher: Watcher,
    stop: Stop | None = None,
    imported: Imported | None = None,
    world: World | None = None,
) -> Path:
    """Run a config to the end, from its start or a checkpoint; returns the finished result: an adapter file, or a model.

    `stop`: a wish to end the run, which signals express too. Raises KeyboardInterrupt after it. `imported`: what became of the settings of
    another trainer; it is said, and kept in the run folder. `world`: where several processes train, of which this one leads.
    """
    if world is None:
        check_alone(config)
    job = build_absolute(config.output.folder).name
    with Opened(config.output.webhooks, job=job, watcher=watcher) as opened:
        finished = _train(config, resume, opened=opened, stop=stop or Stop(), imported=imported, world=world)
        opened.messages.finish(finished)
        return finished


def _train(
    config: RunConfig, resume: Resume, *, opened: Opened, stop: Stop, imported: Imported | None, world: World | None
) -> Path:
    folder, watcher, (num, near) = build_absolute(config.output.folder), opened.watcher, (1, 1) if world is None else world.counts
    check_places(config)
    try:
        with watcher.shown(), stop_signals(stop, write=watcher.write), ExitStack() as held:
            was_run = is_run(folder)
            if was_run:
                held.enter_context(lock_folder(folder))
            start = find_start(folder, resume, watcher=watcher)
            goes_on, report = start.folder is not None, stop.guard(watcher.report)
            plan = build_plan(config, report, is_run=True, is_resumed=goes_on, num_processes=num, num_near=near)
            if imported is not None:
                watcher.write(write_summary(imported))
            watcher.write(build_summary(plan, report))
            check_space(plan)
            if not was_run:  # only now, so that a plan that is refused leaves no folder
                held.enter_context(lock_folder(folder))
                start = find_start(folder, resume, watcher=watcher) if is_run(folder) else start
            is_same = check_start(plan, start, watcher=watcher)
            opened.record.open(folder)
            previous = read_previous(folder)
            save_config(plan.resolved, folder / CONFIG_NAME)
            save_captions(plan.dataset.examples, folder)
            if imported is not None:
                (folder / PAGE_NAME).write_text(write_import(imported, plan), encoding="utf-8")
            publisher = held.enter_context(Publisher(plan.resolved.publish, folder=folder, write=watcher.write))
            publisher.start()
            training = _prepare(plan, start=start, previous=previous, opened=opened, stop=stop, world=world)
            training = replace(training, publisher=publisher)
            if not is_same:
                leave_branch(folder, start, watcher=watcher)
            swap = training.learner.swap
            with nullcontext() if swap is None else closing(swap):
                finished = run(training, watcher, stop=stop)
            publisher.finish(lambda: stop.asked, watcher.report)
            watcher.write(build_hint(plan, finished))
            return finished
    except torch.OutOfMemoryError as error:
        raise build_memory_error(error) from error


def build_memory_error(error: torch.OutOfMemoryError) -> TrainingError:
    """What to say where a device is full."""
    return TrainingError(
        "The device has no memory left; the checkpoints of the run are whole.",
        got=str(error).splitlines()[0],
        fix="lower train.batch_size (raise train.accumulation instead), lower data.0.resolution, or set memory.gradient_checkpointing",
    )


def _prepare(
    plan: Plan, *, start: Found, previous: RunConfig | None, opened: Opened, stop: Stop, world: World | None
) -> Training:
    """All that comes before the first step. A stop loses nothing of it but what is in memory."""
    watcher = opened.watcher
    watcher.write(choose_attention(plan.config, plan.workload).describe())  # before anything is encoded: it may be refused
    store = Store(plan.resolved.output.cache)
    messages = opened.messages
    try:
        if world is None:
            encode_cache(plan, store, watcher=watcher, stop=stop)
            return assemble(plan, store, start=start, previous=previous, watcher=watcher, stop=stop, messages=messages)
        with world.leading("plan", start=None if start.folder is None else str(start.folder)):
            world.agree()
        divided = Divided(world, plan.spread.divided)
        with world.leading("encode", divided=sorted(divided.parts)), world.together():
            encode_cache(plan, store, watcher=watcher, stop=stop, share=Share(0, world.size), divided=divided)
        store.refresh()
        return assemble(plan, store, start=start, previous=previous, watcher=watcher, stop=stop, messages=messages, world=world)
    except Stopped:
        watcher.write(f"Stopped before the first step; what was encoded is in {store.folder}. To go on:")
        watcher.write(f"  {build_command(plan)}")
        raise


def encode_cache(
    plan: Plan, store: Store, *, watcher: Watcher, stop: Stop | None = None, share: Share = WHOLE, divided: Divided | None = None
) -> Encoded:
    """Encode what the cache lacks, or a `share` of it: masks and pictures first, then texts, one encoder in memory at a time.

    A stop ends it after a batch (Stopped); what was encoded is kept. `divided`: encoders that several processes have between them.
    """
    size, progress = plan.config.memory.encode_batch_size, (stop or Stop()).guard(watcher.report)
    windows, views, files = plan.needs.windows.values(), plan.needs.list_missing_views(store), plan.dataset.files
    masks = encode_loss_masks(store, windows, family=plan.family, files=files, progress=progress)
    if masks:
        watcher.write(f"Read {describe_count(masks, 'mask')} for the loss into {store.folder}.")
    latents = encode_latents(store, views, encoders=plan.encoders, batch_size=size, files=files, share=share, progress=progress)
    kept = plan.needs.texts if plan.needs.num_kept else []
    encoders, pace = plan.encoders, keep_own_pace
    if divided is not None and divided.parts:
        encoders, pace = divided.build_encoders(plan.encoders, plan.config.memory), divided.keep_pace
    texts = encode_texts(store, kept, encoders=encoders, batch_size=size, share=share, pace=pace, progress=progress)
    store.catalog.keep_index()
    if latents or texts:
        watcher.write(f"Encoded {describe_count(latents, 'latent')} and {describe_count(texts, 'text')} into {store.folder}.")
    return Encoded(latents, texts)


def assemble(
    plan: Plan,
    store: Store,
    *,
    start: Found,
    watcher: Watcher,
    previous: RunConfig | None = None,
    stop: Stop | None = None,
    messages: Messages = SILENT,
    world: World | None = None,
) -> Training:
    """Load the network, put on it what learns, and go on from the checkpoint `start`, if it has one. `previous`: the settings until now."""
    live = LiveTexts(plan.encoders) if plan.resolved.output.text_cache == "live" else None
    progress = (stop or Stop()).guard(watcher.report)
    if world is None:
        learner, loader = build_learner(plan, store, start=start, live=live, watcher=watcher, progress=progress)
    else:
        with world.leading("assemble", is_sharded=plan.workload.is_sharded, group=plan.workload.num_near):
            learner, loader = build_learner(plan, store, start=start, live=live, watcher=watcher, progress=progress, world=world)
        write_answers(plan, learner, loader=loader, store=store, progress=progress)
        with world.leading("refresh"):
            pass
    reader = Reader(store, plan.encoders, live=live)
    painter = Painter(
        plan,
        learner.predictor,
        reader=reader,
        ema=learner.ema,
        swap=learner.swap,
        attention=choose_attention(plan.config, plan.workload).painting.name,
        previews=Previews(plan, reader=reader, messages=messages),
        learned=learner.parameters,
    )
    saver = Saver(plan, learner, start=start, previous=previous, watcher=watcher, messages=messages)
    return Training(plan, learner, loader, painter, saver, start, messages, build_scoring(plan, reader))


def build_learner(
    plan: Plan,
    store: Store,
    *,
    start: Found,
    live: LiveTexts | None,
    watcher: Watcher,
    progress: Progress,
    world: World | None = None,
) -> tuple[Learner, Loader]:
    """The network with what learns on it, as it was left or as it starts, and what reads its pictures. Of a `world` all processes call it
    at once."""
    config = plan.resolved
    watcher.write(f"Loading the model to {plan.device} in {str(plan.dtype).removeprefix('torch.')}.")
    for one in plan.frozen:
        watcher.write(f"The {one.name.replace('_', ' ')} {one.place} takes part with strength {one.strength:g}.")
    parameters: list[tuple[str, nn.Parameter]] = []
    base = plan.family.open_transformer()

    def put(transformer: nn.Module) -> None:
        away = {"swap_blocks": "all", "swap_to": "disk"} if is_sharded else {}  # no block is here whole
        settings = config.model_copy(update={"memory": config.memory.model_copy(update=away)})
        parameters.extend(plan.kind.build(transformer, settings, trained=plan.trained, base=base, start=plan.start))

    is_sharded, sharding = plan.workload.is_sharded, None
    if world is not None and is_sharded:
        sharding = Sharding(world, plan.workload.num_near, keeps=not config.parallel.reshard, offloads=config.parallel.offload)
    network = load_network(
        plan.family,
        config.memory,
        where=Where(plan.device, plan.dtype, config.output.cache, sharding),
        trained=plan.trained.shapes,
        put=build_text_put(build_put(put, plan.frozen), encoders=plan.encoders, learns=config.adapter.text_encoder),
        progress=progress,
    )
    predictor = network.predictor
    predictor.attention = choose_attention(plan.config, plan.workload).training.name
    predictor.transformer.train()
    predictor.routes = build_routes(config.objective.tread, num_blocks=len(plan.family.blocks(predictor)))
    rates = [plan.trained.rates.get(name, 1.0) for name, _ in parameters]
    optimizer = build_optimizer([parameter for _, parameter in parameters], config.optim, seed=config.train.seed, rates=rates)
    crew = None if world is None else build_crew(world, parameters, network=network)
    own = parameters if crew is None else crew.own
    ema = _build_mean(config.optim, own, plan.device)
    learner = Learner(
        config,
        plan.family,
        predictor,
        own,
        optimizer,
        plan.training_guidance,
        fused=FusedBackward(optimizer) if config.optim.fused_backward and isinstance(optimizer, Stepper) else None,
        ema=ema,
        swap=network.swap,
        text=find_text(plan.family, predictor.transformer),
        teacher=Teacher(predictor, plan.kind) if any(one.is_regularization for one in plan.dataset.examples) else None,
        health=None if is_sharded else build_health(plan.device, optimizer, ema=ema, swap=network.swap),
        compiling=_build_compiling(plan, predictor),
        crew=crew,
    )
    loader = Loader(plan, store, live=live, dealt=None if world is None else Dealt(plan, world.rank, world.size))
    if world is None:
        write_answers(plan, learner, loader=loader, store=store, progress=progress)
    if start.folder is not None:
        load_state(start.folder, learner, plan=plan)
    elif config.adapter.init in (*SHIFTED_STARTS, "eva"):
        write_start(learner, loader, base=base, num_steps=plan.num_steps, progress=progress)
    if crew is not None:
        check_equal(crew.world, [(name, parameter) for name, parameter in parameters if name not in crew.owners])
    return learner, loader


def _build_compiling(plan: Plan, predictor: Predictor) -> Compiling | None:
    is_dynamic = len(plan.workload.samples) > 1 or bool(plan.config.objective.tread)
    blocks = compile_blocks(plan.config.memory, predictor, family=plan.family, is_dynamic=is_dynamic)
    return None if blocks is None else Compiling(blocks, build_estimate(plan.config, plan.workload).kept_bytes)


def _build_mean(config: OptimConfig, parameters: Named, device: torch.device) -> Ema | None:
    if config.ema_decay is None:
        return None
    home = device if config.ema_on == "device" else torch.device("cpu")
    return Ema(parameters, decay=config.ema_decay, device=home, warmup=config.ema_warmup)
