"""`RunConfig`: everything a person may ask of a run, one typed tree."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from weber.config.adapter import AdapterConfig
from weber.config.data import DataConfig
from weber.config.evaluation import EvaluationConfig
from weber.config.memory import MemoryConfig
from weber.config.model import ModelConfig
from weber.config.objective import ObjectiveConfig
from weber.config.optim import OptimConfig
from weber.config.output import OutputConfig, SamplingConfig
from weber.config.parallel import ParallelConfig
from weber.config.publish import PublishConfig
from weber.config.section import Section
from weber.config.train import DEFAULT_STEPS, TrainConfig


class RunConfig(Section):
    """Everything a person may ask of a run. The shortest one names a folder of pictures; the defaults do the rest."""

    model: ModelConfig = ModelConfig()
    """Which base model is trained."""

    data: Annotated[list[DataConfig], Field(min_length=1)]
    """Sets of pictures; at least one."""

    adapter: AdapterConfig = AdapterConfig()
    """Which numbers learn."""

    memory: MemoryConfig = MemoryConfig()
    """Where bytes live and how many bits they have."""

    parallel: ParallelConfig = ParallelConfig()
    """How many devices train one run, and what each of them holds."""

    objective: ObjectiveConfig = ObjectiveConfig()
    """What is asked of the network."""

    optim: OptimConfig = OptimConfig()
    """How gradients move numbers."""

    train: TrainConfig = TrainConfig()
    """How long, how many at once."""

    sampling: SamplingConfig = SamplingConfig()
    """Pictures painted on the way."""

    evaluation: EvaluationConfig = EvaluationConfig()
    """What pictures that are not learned say of the run."""

    output: OutputConfig = OutputConfig()
    """What a run leaves behind, and where."""

    publish: PublishConfig = PublishConfig()
    """Where the finished result is shown to others."""

    @property
    def learned_sets(self) -> list[DataConfig]:
        """The sets of which pictures are learned: all but those that are held out as a whole."""
        return [one for one in self.data if one.evaluation < 1]

    @model_validator(mode="after")
    def _name_sets_apart(self) -> RunConfig:
        names = [data.set_name for data in self.data]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f'data: two sets are named {", ".join(twice)}; give each its own name, such as name = "{twice[0]}-2"')
        return self

    @model_validator(mode="after")
    def _refuse_what_cannot_act(self) -> RunConfig:
        if self.optim.fused_backward and self.train.accumulation > 1:
            raise ValueError(
                f"train.accumulation = {self.train.accumulation} cannot act with optim.fused_backward, which uses each gradient as it"
                " arrives; raise train.batch_size instead, or remove optim.fused_backward"
            )
        lr = self.optim.choose_lr(self.adapter.form)
        if self.optim.end_lr > lr:
            raise ValueError(f"optim.end_lr = {self.optim.end_lr} is above optim.lr = {lr:g}; lower end_lr, since schedules only go down")
        if self.optim.text_encoder_lr is not None and not self.adapter.text_encoder:
            raise ValueError("optim.text_encoder_lr has no effect without adapter.text_encoder = true; set that or remove it")
        if self.objective.stratified and self.train.batch_size * self.train.accumulation == 1:
            raise ValueError(
                "objective.stratified has no effect on steps of one picture; raise train.batch_size or train.accumulation, or remove it"
            )
        rollout, num_steps = self.objective.rollout, None if self.train.epochs is not None else self.train.steps or DEFAULT_STEPS
        if rollout is not None and num_steps is not None and rollout.start_step >= num_steps:
            raise ValueError(
                f"objective.rollout.start_step = {rollout.start_step} is never reached in {num_steps} steps; lower it, or train longer"
            )
        if self.output.precision != "fp32" and self.adapter.kind == "full":
            raise ValueError(
                f'output.precision = "{self.output.precision}" has no effect with adapter.kind = "full", whose files are in the precision'
                " of the base's; remove it"
            )
        if self.publish.when == "checkpoints" and self.adapter.kind == "full":
            raise ValueError(
                'publish.when = "checkpoints" would write and send a whole model each time, since adapter.kind = "full"; leave it at "end"'
            )
        self._check_parallel()
        self._check_masks()
        self._check_regularization()
        self._check_evaluation()
        learned = self.learned_sets
        if self.train.balance == "sets" and len(learned) == 1 and not isinstance(learned[0].resolution, list):
            raise ValueError('train.balance = "sets" has no effect with one set; remove it, or add another [[data]]')
        if self.sampling.weights == "ema" and self.optim.ema_decay is None:
            raise ValueError('sampling.weights = "ema" needs a running mean of the weights; set optim.ema_decay = 0.999')
        return self

    def _check_parallel(self) -> None:
        num, group = self.parallel.num_devices, self.train.batch_size * self.train.accumulation
        if num is not None and num > group:
            raise ValueError(
                f"parallel.devices asks for {num} devices, and a step has {group} pictures; raise train.accumulation to"
                f" {-(-num // self.train.batch_size)}, which makes a step larger, or name fewer devices"
            )
        if num not in (None, 1) and self.memory.device not in ("auto", "cpu", "cuda"):
            raise ValueError(
                f'memory.device = "{self.memory.device}" is one device, and parallel.devices asks for {num}; remove memory.device, and'
                " name the devices in parallel.devices"
            )
        if isinstance(self.parallel.devices, list) and self.memory.device == "cpu":
            raise ValueError('parallel.devices numbers GPUs, and memory.device = "cpu"; write how many processes, such as devices = 2')
        if num not in (None, 1) and self.optim.fused_backward:
            raise ValueError(
                "optim.fused_backward cannot act on several devices, whose gradients are added up first; remove it, or set"
                " parallel.devices = 1"
            )

    def _check_masks(self) -> None:
        objective = self.objective
        changed = [name for name in ("mask_mean", "mask_minimum") if getattr(objective, name) != type(objective).model_fields[name].default]
        if changed and not any(one.loss_masks is not None or one.alpha_mask for one in self.data):
            raise ValueError(f"objective.{changed[0]} has no effect without masks; set data.0.loss_masks or remove it")

    def _check_regularization(self) -> None:
        sets = [one.set_name for one in self.data if one.regularization]
        if self.objective.teacher_draws is not None and not sets:
            raise ValueError("objective.teacher_draws has no effect without a set with regularization = true; remove it")
        if sets and len(sets) == len(self.learned_sets):
            raise ValueError("all sets have regularization = true, so nothing is learned; remove it from the set to be learned")
        if sets and self.adapter.kind == "full":
            raise ValueError(
                f'regularization = true of the set "{sets[0]}" needs an adapter that can be turned off, and adapter.kind = "full" trains'
                ' the weights themselves; remove it, or set adapter.kind = "lora"'
            )

    def _check_evaluation(self) -> None:
        if not self.learned_sets:
            raise ValueError(
                "all sets have evaluation = 1, so nothing is learned; remove it from the set to be learned, or set 0.05 to hold out a part"
            )
        evaluation = self.evaluation
        idle = [key for key in sorted(evaluation.model_dump(exclude_defaults=True)) if key != "every"]
        if idle and not any(one.evaluation for one in self.data):
            raise ValueError(
                f"evaluation.{idle[0]} cannot take effect while no picture is held out; set data.0.evaluation = 0.05 or so, or remove it"
            )
        if evaluation.weights == "ema" and self.optim.ema_decay is None:
            raise ValueError('evaluation.weights = "ema" needs a running mean of the weights; set optim.ema_decay = 0.999')
