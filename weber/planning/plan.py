"""Everything that can be known and checked before a byte of weights is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import torch
from torch import nn

from weber.adapters.files import AdapterFile
from weber.adapters.lycoris_files import load_lycoris_start
from weber.adapters.start import check_form, load_start
from weber.adapters.target import list_patterns
from weber.cache.encode import Encoders
from weber.cache.key import build_latent_key, build_text_key
from weber.cache.served import TextServer
from weber.cache.store import Store
from weber.cache.text_forms import TextForm, build_text_form
from weber.config.adapter import AdapterConfig
from weber.config.every import count_steps
from weber.config.expand import expand_set
from weber.config.output import SamplingConfig
from weber.config.run import RunConfig
from weber.config.train import DEFAULT_STEPS
from weber.data.batches import BatchPlan
from weber.data.build import build_dataset
from weber.data.dataset import Dataset
from weber.data.pictures import Pictures, pack_pictures
from weber.data.sets import PictureLimits
from weber.data.views import View
from weber.errors import ConfigError
from weber.families.complete import check_complete
from weber.families.family import Family
from weber.families.pattern import is_any
from weber.kinds.kind import Kind, Trained, list_linears
from weber.kinds.table import KINDS
from weber.memory.fit import Fit
from weber.memory.load import list_kept_keys
from weber.optim.table import check_optimizer
from weber.planning.assistant import Frozen
from weber.planning.attention import check_attention
from weber.planning.budget import Workload, build_workload, list_measured
from weber.planning.checks import check_assistant, check_objective, check_references, check_sampling, check_texts
from weber.planning.compiling import check_compile
from weber.planning.encoders import build_encoders, check_encoders, find_served
from weber.planning.evaluation import Measured, choose_measured
from weber.planning.fitting import build_fitted
from weber.planning.lessons import Lesson, Lessons, identify_factors
from weber.planning.library import list_prompts
from weber.planning.limits import check_frozen_memory, check_memory
from weber.planning.looking import check_looking
from weber.planning.machine import Machine, choose_machine
from weber.planning.model import Model, find_model
from weber.planning.needs import Needs
from weber.planning.precision import settle_precision
from weber.planning.prompts import Prompt, list_texts
from weber.planning.publishing import check_publish
from weber.planning.resolve import build_resolved
from weber.planning.sibling import find_sibling
from weber.planning.spread import Spread, choose_spread, count_processes
from weber.planning.turns import build_batches, check_uses
from weber.progress import Progress, ignore_progress
from weber.results.formats import MERGED_FILE, MERGED_FOLDER
from weber.results.runs import find_adapter
from weber.track.metrics import check_trackers

INDEX_NAME = "index.sqlite"
HUB_NAME = "hub"


@dataclass(frozen=True)
class Plan:
    """What a run will do. `trained` is what learns.

    `asked` is what somebody has set; `config` is that at sizes that fit the model; `resolved` says the same with absolute paths and with
    everything left out filled in. `start` is the adapter that training starts from, `frozen` are those that take part. `fit` says which
    settings were chosen so that the run fits into a memory. `sibling`: the model that paints, where it is another one. `spread`: how many
    devices train, and what each holds. `served`: the machine that encodes texts, where it is another one.
    """

    asked: RunConfig
    config: RunConfig
    resolved: RunConfig
    machine: Machine
    model: Model
    dataset: Dataset
    measured: Measured
    batches: BatchPlan
    num_steps: int
    trained: Trained
    prompts: tuple[Prompt, ...]
    start: AdapterFile | None
    frozen: tuple[Frozen, ...]
    workload: Workload
    sibling: Family | None
    spread: Spread
    fit: Fit | None
    served: TextServer | None

    @property
    def family(self) -> Family:
        """What the model's tensors mean."""
        return self.model.family

    @property
    def painted(self) -> Family:
        """The same of the model that paints."""
        return self.sibling or self.model.family

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.workload.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of what is frozen and of what is computed."""
        return self.workload.dtype

    @property
    def encoders(self) -> Encoders:
        """The encoders as they are run here."""
        memory, served = self.resolved.memory, self.served
        return build_encoders(self.family, memory, device=self.device, dtype=self.dtype, texts=self._texts, served=served)

    @cached_property
    def _texts(self) -> TextForm:
        return build_text_form(self.config.output.text_cache, self.family, dtype=self.dtype)

    @cached_property
    def needs(self) -> Needs:
        """What is read from the cache."""
        sampling = self.resolved.sampling
        texts = list_texts(self.prompts, negative=sampling.negative_prompt, cfg=sampling.cfg)
        views = [view for prompt in self.prompts for view in prompt.views]
        texts += [""] if self.measured.has_captions else []
        keeps = self.resolved.output.text_cache != "live"
        return Needs(self.encoded, self.encoders, views=views, texts=texts, keeps_texts=keeps)

    @cached_property
    def encoded(self) -> Pictures:
        """The pictures that are read from the cache: those that are learned, and of those that are held out the ones that are measured."""
        return Pictures([*self.dataset.examples.parts, *pack_pictures(self.measured.held_out).parts])

    @property
    def kind(self) -> Kind:
        """The row of `adapter.kind`."""
        return KINDS[self.config.adapter.kind]

    @property
    def modules(self) -> Mapping[str, tuple[int, int]]:
        """The linear layers that get an adapter, or whose weights are trained, with (inputs, outputs)."""
        return self.trained.modules

    def count_steps(self, every: int | str) -> int:
        """Steps of what is said in steps or in epochs."""
        return count_steps(every, steps_per_epoch=self.batches.steps_per_epoch)

    def is_painted(self, step: int) -> bool:
        """Whether pictures are painted after `step` finished steps."""
        return _is_painted(step, self.resolved.sampling, num_steps=self.num_steps, every=self.count_steps(self.resolved.sampling.every))

    @property
    def num_sheets(self) -> int:
        """How often pictures are painted."""
        sampling, every = self.resolved.sampling, self.count_steps(self.resolved.sampling.every)
        return sampling.at_start + (self.num_steps - 1) // every + sampling.at_end

    @property
    def num_parameters(self) -> int:
        """Numbers that learn."""
        return self.trained.num_parameters

    @property
    def training_guidance(self) -> float | None:
        """Guidance fed to the network while training; None for a model without that input."""
        return self.resolved.objective.guidance


def build_plan(
    config: RunConfig,
    progress: Progress = ignore_progress,
    *,
    is_run: bool = False,
    is_resumed: bool = False,
    card: str | None = None,
    num_processes: int | None = None,
    num_near: int | None = None,
) -> Plan:
    """Check a config against its model, data and machine; opens pictures, configuration files and adapters, no weights of the model.

    A run that `is_resumed` has left the adapter that it started from behind. With `card` the machine is one with that GPU. What `is_run`
    needs the machine and the model that it is planned for. `num_processes`: how many train; None: as many as there would be; `num_near`:
    how many of them each machine has; None: all.
    Raises ConfigError, ModelError, AdapterError or DataError in words.
    """
    machine = choose_machine(config.memory, card)
    if is_run:
        machine.check_here()
    model = find_model(config, is_run=is_run)
    family = model.family
    asked, config = config, fit_sizes(config, family)
    check_objective(config, family)
    sibling = find_sibling(config, family, is_run=is_run)
    painted = sibling or family
    check_sampling(config, painted)
    check_looking(config.sampling, family)
    check_assistant(config, family)
    check_encoders(config, family)
    kind = KINDS[config.adapter.kind]
    if isinstance(config.adapter.targets, str):
        list_patterns(config.adapter.targets, family.adapter_targets)
    check_trackers(config.output)
    skeleton = _load_skeleton(config, family)
    machine = settle_precision(machine, config, family=family, progress=progress)
    device, dtype = machine.device, machine.dtype
    served = find_served(config.model, family, dtype=dtype)
    trained = kind.choose(config, family, skeleton=skeleton, dtype=dtype)
    check_memory(config, family, device=device, dtype=dtype, modules=list(trained.modules))
    check_attention(config, family, machine=machine)
    check_compile(config, device=device)
    check_optimizer(config.optim, [trained.dtype], rates={trained.rates.get(name, 1.0) for name in trained.shapes})
    kind.check(config, family, trained=trained)
    check_publish(config, family, trained=trained)
    start = None if is_resumed else _load_start(config, family, trained=trained, skeleton=skeleton)
    frozen = model.load_frozen(config.model)
    check_frozen_memory(config.memory, family, frozen=frozen)
    changed = [name for one in frozen for name in one.modules]
    check_texts(config, family, modules=[*trained.modules, *(name.rpartition(".")[0] for name in trained.shapes)], frozen=changed)
    dataset = build_dataset(
        config.data,
        alignment_pixels=family.alignment_pixels,
        inputs=build_limits(model, is_here=config.model.text_encoder_url is None),
        index_path=config.output.cache / INDEX_NAME,
        hub_folder=config.output.cache / HUB_NAME,
        seed=config.train.seed,
        progress=progress,
        own=(config.output.folder, config.output.cache),
    )
    check_references(config, family, modules=_list_needed(config, family, trained), dataset=dataset)
    measured = choose_measured(config, dataset)
    batches = build_batches(config, dataset.examples)
    num_steps = _count_steps(config, batches.steps_per_epoch)
    check_uses(config, batches, num_steps=num_steps)
    prompts = list_prompts(config, painted, is_adapter=kind.is_adapter, pictures=dataset.examples)
    _check_sheets(config.sampling, num_steps=num_steps, every=count_steps(config.sampling.every, steps_per_epoch=batches.steps_per_epoch))
    workload = build_workload(
        config, family, machine=machine, trained=trained, pictures=dataset.examples, prompts=prompts, frozen=frozen
    )
    workload = replace(workload, measured=list_measured(measured))
    num_processes = num_processes or count_processes(config, machine)
    spread = choose_spread(config, workload, num_processes=num_processes, num_near=num_near)
    workload = replace(workload, num_processes=num_processes, is_sharded=spread.is_sharded, group=spread.group, divided=spread.divided)
    found = dtype if machine.bf16_gain is not None else None
    resolved = build_resolved(config, family, painted=painted, num_steps=num_steps, dtype=found)
    parts = machine, model, dataset, measured, batches, num_steps, trained, tuple(prompts), start, frozen, workload, sibling, spread
    return _fit(Plan(asked, config, resolved, *parts, fit=None, served=served))


def _is_painted(step: int, sampling: SamplingConfig, *, num_steps: int, every: int) -> bool:
    if step in (0, num_steps):
        return sampling.at_start if step == 0 else sampling.at_end
    return step % every == 0


def _check_sheets(sampling: SamplingConfig, *, num_steps: int, every: int) -> None:
    """Refuse pictures that are never painted."""
    if sampling.paints and not (sampling.at_start or sampling.at_end) and every >= num_steps:
        raise ConfigError(
            "No picture would ever be painted.",
            got=f"sampling.at_start = false, sampling.at_end = false, sampling.every = {sampling.every!r} of {num_steps} steps",
            fix="set one of them to true, lower sampling.every, or remove the section [sampling]",
        )


def list_views(plan: Plan) -> list[View]:
    """Every distinct picture that will be encoded, as the encoder will see it: of the sets, and of the prompts."""
    views = [view for example in plan.encoded for view in example.list_views()]
    return list(dict.fromkeys([*views, *(view for prompt in plan.prompts for view in prompt.views)]))


def build_lessons(plan: Plan) -> Lessons | None:
    """The fixed pairs that pictures for regularization are seen with; None where noise is drawn anew each time."""
    if plan.resolved.objective.teacher_draws is None:
        return None
    adapters = ", ".join(f"{identify_factors(one.modules)} {one.strength}" for one in plan.frozen)
    return Lessons(plan.resolved, plan.encoders, adapters=adapters)


def list_lacking(plan: Plan, store: Store) -> dict[str, Lesson]:
    """The lessons whose answers the cache does not have, by their keys."""
    lessons = build_lessons(plan)
    if lessons is None:
        return {}
    keyed = {lessons.build_key(one, dtype=plan.dtype): one for one in lessons.list_all(plan.dataset.examples)}
    return {key: one for key, one in keyed.items() if key not in store}


def list_keys(plan: Plan) -> set[str]:
    """Cache keys of everything that a run needs, here or on a machine that computes in another precision."""
    family, dtypes = plan.family, (torch.float32, torch.bfloat16)
    image_encoder = plan.encoders.identify(family.image_part)
    text_encoders = [plan.encoders.identify(part) for part in family.text_parts]
    latents = {build_latent_key(view, encoder=image_encoder, dtype=dtype) for view in list_views(plan) for dtype in dtypes}
    texts = {
        build_text_key(caption, encoder=encoder, dtype=dtype)
        for caption in (plan.needs.texts if plan.needs.num_kept else ())
        for encoder in text_encoders
        for dtype in dtypes
    }
    lessons = build_lessons(plan)
    answers = set() if lessons is None else {
        lessons.build_key(one, dtype=dtype) for one in lessons.list_all(plan.dataset.examples) for dtype in dtypes
    }
    return latents | texts | plan.needs.windows.keys() | answers


def list_models(plan: Plan) -> set[str]:
    """Keys of the quantized models that a run needs, likewise."""
    return list_kept_keys(plan.family, plan.resolved.memory, trained=plan.trained.shapes) if plan.family.is_local else set()


def _fit(plan: Plan) -> Plan:
    """With settings that fit into `memory.fit`; parts that have nothing left to encode need no room."""
    if plan.config.memory.fit is None:
        return plan
    workload, folder = plan.workload, plan.resolved.output.cache
    if plan.family.is_local and folder.is_dir():
        workload = replace(workload, cached=plan.needs.find_cached(Store(folder)))
    config, fit = build_fitted(plan.config, workload)
    resolved = build_resolved(config, plan.family, painted=plan.painted, num_steps=plan.num_steps)
    return replace(plan, config=config, resolved=resolved, workload=workload, fit=fit)


def fit_sizes(config: RunConfig, family: Family) -> RunConfig:
    """A set for each resolution; sizes that were left out become those that the model was made for."""
    data = [
        one.build_fitting(
            native_pixels=family.native_pixels, alignment_pixels=family.alignment_pixels, sizes=family.picture_inputs.sizes
        )
        for several in config.data
        for one in expand_set(several)
    ]
    return config.model_copy(update={"data": data})


def _load_start(config: RunConfig, family: Family, *, trained: Trained, skeleton: nn.Module) -> AdapterFile | None:
    """The adapter that training starts from, which must fit what is trained."""
    adapter = _find_start(config.adapter)
    check_form(adapter)
    if adapter.kind == "lycoris":
        return load_lycoris_start(adapter, trained.settings, shapes=trained.shapes)
    return load_start(adapter, trained.modules, linears=list_linears(skeleton))


def _find_start(adapter: AdapterConfig) -> AdapterConfig:
    """`start_from` may name a run folder or a checkpoint: its adapter is meant."""
    if adapter.start_from is None or not Path(adapter.start_from).expanduser().is_dir():
        return adapter
    return adapter.model_copy(update={"start_from": str(find_adapter(Path(adapter.start_from)))})


def build_limits(model: Model, *, is_here: bool) -> PictureLimits:
    """What pictures a model looks at. `is_here`: whether the files of text encoders can be asked which they are."""
    family = model.family
    inputs, open_tokenizer = family.picture_inputs, cache(family.text_limits[family.text_parts[-1]])

    def count_tokens(texts: Sequence[str]) -> list[int]:
        return open_tokenizer().count(texts)

    name = " ".join([family.variant, *([family.identify(family.text_parts[-1])] if family.is_local and is_here else [])])
    counted = count_tokens if model.lacking is None else None
    return PictureLimits(inputs.max_references, inputs.repaints, inputs.sizes, family.reference_size, counted, name)


def _count_steps(config: RunConfig, steps_per_epoch: int) -> int:
    epochs = config.train.epochs
    num_steps = epochs * steps_per_epoch if epochs is not None else config.train.steps or DEFAULT_STEPS
    if config.optim.warmup_steps >= num_steps:
        raise ConfigError(
            "The warm-up is as long as the whole run, so the learning rate would never be reached.",
            got=f"optim.warmup_steps = {config.optim.warmup_steps}, {num_steps} steps in all",
            expected="a warm-up shorter than the run",
            fix=f"set optim.warmup_steps to {num_steps // 10} or so, or train longer",
        )
    return num_steps


def _list_needed(config: RunConfig, family: Family, trained: Trained) -> list[str]:
    """The modules that have to take part. Of a model that is trained itself, some may be left as they are, but not all."""
    if KINDS[config.adapter.kind].is_adapter:
        return list(trained.modules)
    owners = list(dict.fromkeys(name.rpartition(".")[0] for name in trained.shapes))
    return owners if all(is_any(one, family.reference_modules) for one in owners) else []


def _load_skeleton(config: RunConfig, family: Family) -> nn.Module:
    """The transformer without weights; where its files are here, their names and shapes are those that it has."""
    skeleton = family.skeleton
    if family.is_local:
        is_written = not KINDS[config.adapter.kind].is_adapter or bool({MERGED_FILE, MERGED_FOLDER} & set(config.output.formats))
        check_complete(family.open_transformer(), skeleton, where=family.variant, exactly=is_written)
    return skeleton
