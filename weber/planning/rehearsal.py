"""A run's network and encoders on the meta device: real code without numbers, which says what the run will hold and compute.

The network is rehearsed with few blocks of each kind, as many as differ.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from weber.adapters.lora import add_frozen
from weber.blocks.own import DEVICES
from weber.cache.text_forms import build_text_form
from weber.config.memory import MemoryConfig
from weber.config.objective import ObjectiveConfig
from weber.config.run import RunConfig
from weber.families.family import REFERENCE, Family, Predictor
from weber.families.pattern import is_any
from weber.families.route import ROUTE_SCORES, build_routes
from weber.families.tensors import Weights, build_entry
from weber.families.tokens import TEXT
from weber.families.weights import build_cast
from weber.kinds.kind import Trained
from weber.kinds.table import KINDS
from weber.kinds.text import TextLearner, add_encoder, choose_own, find_text
from weber.memory.checkpointing import Mode, build_checkpointing
from weber.memory.formats import FORMATS
from weber.memory.joined import join_layers
from weber.memory.load import choose_formats, list_blocks, list_layers
from weber.memory.meta import FlashOnMeta
from weber.memory.packed import build_packed
from weber.memory.simulate import Cut, Stretch, Trace, Work, cut_blocks, simulate_call, simulate_pass
from weber.objective.flow import build_noisy, build_target
from weber.objective.losses import build_losses
from weber.optim.methods import PIECE
from weber.planning.assistant import Frozen
from weber.planning.encoders import TILE_PIXELS
from weber.pocket.published import TEXT_WIDTH, build_encoders

META = torch.device("meta")
_NUM_PUBLISHED = 8  # models whose encoders are kept
_UPDATE_TENSORS = 6  # of PIECE numbers in fp32 each: what an update takes


@dataclass(frozen=True)
class Sample:
    """What the network sees at once: `batch` pictures of one size, in pixels, with their references, or with one to be repainted.

    With `is_whole` no token skips a block: which ones a mask for the loss keeps is not known before, and it may be all.
    """

    width: int
    height: int
    references: tuple[tuple[int, int], ...] = ()
    is_masked: bool = False
    batch: int = 1
    is_whole: bool = False

    def describe(self) -> str:
        """In a few words."""
        references = f" with {len(self.references)} references" if self.references else ""
        return f"{self.width} x {self.height}{references}" + (f", batch {self.batch}" if self.batch > 1 else "")


def count_tokens(family: Family, sample: Sample) -> int:
    """Tokens that the network sees, texts included; of all pictures of the batch."""
    pictures = [(sample.width, sample.height), *sample.references]
    tokens = sum(family.num_tokens(*family.latent_shape(height, width)[1:]) for width, height in pictures)
    shapes = [shape for part in family.text_parts for shape in family.text_shapes(part).values()]
    return sample.batch * (tokens + max((shape[0] for shape in shapes if len(shape) > 1), default=0))


@dataclass(frozen=True)
class Sizes:
    """Bytes of a network's weights: of each block without its modulation, of that, and of all else.

    `read_bytes`: of packed layers, as they are and as they are read, in one pass over them all; `largest`: of the layers, before packing;
    `text`: of the text encoder, where it learns too.
    """

    blocks: tuple[int, ...]
    modulation: tuple[int, ...]
    others: int
    read_bytes: int
    num_packed: int
    largest: int
    text: int = 0


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """The network of a run, in the precision that it has there, with what learns on it."""

    config: RunConfig
    family: Family
    device: torch.device
    dtype: torch.dtype
    trained: Trained
    frozen: Sequence[Frozen] = ()
    _traces: dict[object, Trace] = field(default_factory=dict)
    _models: dict[object, tuple[nn.Module, list[nn.Parameter]]] = field(default_factory=dict)

    @cached_property
    def skeleton(self) -> nn.Module:
        """All of it; never changed."""
        return self.family.skeleton

    @cached_property
    def names(self) -> list[str]:
        """Of the blocks, in the order in which they run."""
        return list_blocks(self.family, self.skeleton)

    @property
    def places(self) -> tuple[int, ...]:
        """For each block, which of the rehearsed ones stands for it."""
        return self._cut[1].places

    def count_tokens(self, sample: Sample) -> int:
        """See the function."""
        return count_tokens(self.family, sample)

    def build_inputs(self, sample: Sample) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Latents (B, C, H, W), noise levels (B,) and condition, on the meta device."""
        family, batch = self.family, sample.batch
        build = partial(torch.empty, device=META)
        latents = build(batch, *family.latent_shape(sample.height, sample.width))
        condition = {name: build(batch, *shape, dtype=self.dtype) for name, shape in _list_told(self.config, family, self.dtype).items()}
        for number, (width, height) in enumerate(sample.references):
            condition[f"{REFERENCE}{number}"] = build(batch, *family.latent_shape(height, width), dtype=self.dtype)
        if sample.is_masked:
            condition["masked"] = torch.empty_like(latents, dtype=self.dtype)
            condition["mask"] = build(batch, family.picture_inputs.mask_channels, *latents.shape[2:], dtype=self.dtype)
        if family.sample_defaults.training_guidance is not None:
            condition["guidance"] = build(batch)
        if sample.references and self.config.objective.reference_timestep == "zero":
            condition["reference_t"] = build(batch)
        if self.config.objective.tread and not sample.is_whole:
            condition[ROUTE_SCORES] = build(family.num_tokens(*latents.shape[2:]))
        return latents, build(batch), condition

    def count_input_bytes(self, sample: Sample) -> int:
        """Of a batch."""
        latents, _, condition = self.build_inputs(sample)
        return latents.nbytes + sum(tensor.nbytes for tensor in condition.values())

    def simulate(self, mode: Mode, sample: Sample, *, is_packed: bool, multiplies_packed: bool = False, learns: bool = True) -> Trace:
        """A step with a sample, or a look at one if nothing `learns`. Where a step has several micro-batches, it is the second.

        Each is done once.
        """
        key = mode, sample, is_packed, multiplies_packed, learns
        if key not in self._traces:
            self._traces[key] = self._simulate(mode, sample, is_packed=is_packed, multiplies_packed=multiplies_packed, learns=learns)
        return self._traces[key]

    def _simulate(self, mode: Mode, sample: Sample, *, is_packed: bool, multiplies_packed: bool, learns: bool) -> Trace:
        model, parameters = self._load_model(is_packed=is_packed, multiplies_packed=multiplies_packed)
        predictor, is_gpu = self.family.build_predictor(model), self.device.type == "cuda"
        predictor.is_fused = self.config.memory.runs_own_blocks and self.device.type in DEVICES
        blocks = self.family.blocks(predictor)
        latents, t, condition = self.build_inputs(sample)
        if not learns:
            model.eval()
            with torch.no_grad():
                return simulate_pass(predictor, blocks, forward=lambda: predictor(latents, t, condition), is_gpu=is_gpu)
        model.train()
        text = find_text(self.family, model)
        predictor.run = build_checkpointing(mode, blocks=blocks, lean_layers=self.family.lean_layers)
        routes = build_routes(self.config.objective.tread, num_blocks=len(self.names))
        predictor.routes = [replace(one, first=self.places[one.first], last=self.places[one.last]) for one in routes]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter) if self.config.train.accumulation > 1 else None
        return simulate_pass(
            predictor,
            blocks,
            forward=lambda: _predict_loss(predictor, latents, t=t, condition=condition, text=text, config=self.config.objective),
            parameters=parameters,
            is_gpu=is_gpu,
        )

    def measure(self, memory: MemoryConfig) -> Sizes:
        """The weights as they are stored with these settings."""
        formats = choose_formats(self.family, self.skeleton, memory=memory, trained=self.trained.shapes)
        blocks, modulation, others, read_bytes, largest = [0] * len(self.names), [0] * len(self.names), 0, 0, 0
        numbers = {name: number for number, name in enumerate(self.names)}
        for name, entry in self._cast(self.skeleton).items():
            layer, _, leaf = name.rpartition(".")
            plain_bytes = num_bytes = entry.num_bytes
            if name in self.trained.shapes:
                num_bytes = prod(entry.shape) * max(entry.dtype.itemsize, self.trained.dtype.itemsize)
            elif leaf == "weight" and layer in formats:
                num_bytes = FORMATS[formats[layer]].num_bytes(entry.shape[0], entry.shape[1])
                read_bytes += plain_bytes + num_bytes
            largest = max(largest, plain_bytes)
            number = next((numbers[parent] for parent in _list_parents(layer) if parent in numbers), None)
            if number is None:
                others += num_bytes
            elif is_any(layer, self.family.modulation_modules):
                modulation[number] += num_bytes
            else:
                blocks[number] += num_bytes
        text = _load_text(self)
        text_bytes = 0 if text is None else _measure_encoder(text, memory.quantize_text_encoder)
        return Sizes(tuple(blocks), tuple(modulation), others, read_bytes, len(formats), largest, text_bytes)

    @cached_property
    def _cut(self) -> tuple[nn.Module, Cut]:
        """The model with few blocks, in the precision that it has."""
        model = self.family.load_skeleton()
        routes = build_routes(self.config.objective.tread, num_blocks=len(self.names))
        routed = {name: route for route in routes for name in self.names[route.first : route.last + 1]}
        cut = cut_blocks(model, self.names, sort=lambda block: (self._touched[block], routed.get(block)))
        for name, entry in self._cast(model).items():
            layer, _, leaf = name.rpartition(".")
            owner = model.get_submodule(layer)
            if leaf in owner._parameters:
                owner.register_parameter(leaf, nn.Parameter(entry.read(), requires_grad=False))
            else:
                owner.register_buffer(leaf, entry.read())
        return model.eval(), cut

    def _load_model(self, *, is_packed: bool, multiplies_packed: bool) -> tuple[nn.Module, list[nn.Parameter]]:
        """The same with what learns on it; each is made once."""
        key = is_packed, multiplies_packed
        if key not in self._models:
            model = copy.deepcopy(self._cut[0])
            self._pack(model, is_packed=is_packed, multiplies_packed=multiplies_packed)
            kept = {new for name in self.names if (new := self._cut[1].renamed.get(name)) is not None}
            join_layers((model.get_submodule(name) for name in sorted(kept)), self.family.joined_layers)
            text = _load_text(self)
            if text is not None:
                add_encoder(model, text)
            self._models[key] = model, [parameter for _, parameter in self._add_learning(model)]
        return self._models[key]

    def _pack(self, model: nn.Module, *, is_packed: bool, multiplies_packed: bool) -> None:
        trained = {new for name in self.trained.shapes if (new := self._cut[1].rename(name)) is not None}
        memory = MemoryConfig(quantize="int8" if is_packed else "none", int8_matmul=multiplies_packed)
        for name, form in choose_formats(self.family, model, memory=memory, trained=trained).items():
            linear = model.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            packed = build_packed(linear.weight, linear.bias, format=FORMATS[form], dtype=self.dtype, multiplies_packed=multiplies_packed)
            model.set_submodule(name, packed)

    def _add_learning(self, model: nn.Module) -> list[tuple[str, nn.Parameter]]:
        cut, config = self._cut[1], self.config
        modules = {new: one for name, one in self.trained.modules.items() if (new := cut.rename(name)) is not None}
        shapes = {new: one for name, one in self.trained.shapes.items() if (new := cut.rename(name)) is not None}
        base = {name: build_entry(one) for name, one in model.named_parameters()}
        settings = {new: one for name, one in self.trained.settings.items() if (new := cut.rename(name)) is not None}
        trained = replace(self.trained, modules=modules, shapes=shapes, settings=settings)
        parameters = KINDS[config.adapter.kind].build(model, config, trained=trained, base=base, start=None)
        for frozen in self.frozen:
            factors = {new: one for name, one in frozen.modules.items() if (new := cut.rename(name)) is not None}
            add_frozen(model, factors, name=frozen.name, strength=frozen.strength)
        for _, parameter in parameters:
            parameter.requires_grad_(True)  # PEFT freezes all that is no adapter
            if config.optim.fused_backward:
                parameter.register_post_accumulate_grad_hook(_drop)  # type: ignore[no-untyped-call]
        return parameters

    def _cast(self, model: nn.Module) -> Weights:
        return build_cast({name: build_entry(one) for name, one in model.state_dict().items()}, model, dtype=self.dtype)

    @cached_property
    def _touched(self) -> dict[str, tuple[object, ...]]:
        """What learns or is added in each block: blocks with the same are alike."""
        added = [(name, one.rank) for frozen in self.frozen for name, one in frozen.modules.items()]
        touched: defaultdict[str, list[object]] = defaultdict(list)
        blocks = set(self.names)
        for name, size in [*self.trained.modules.items(), *self.trained.shapes.items(), *added]:
            for parent in _list_parents(name):
                if parent in blocks:
                    touched[parent].append((name.removeprefix(parent), size))
        return {name: tuple(touched[name]) for name in self.names}


@dataclass(frozen=True)
class Encoding:
    """Bytes of an encoder's weights and of the activations of a batch, and the work of one picture or caption. `layers`: of a text encoder
    bytes of what it has many of."""

    weight_bytes: int
    activation_bytes: int
    work: Work
    layers: tuple[int, ...] = ()

    def count_divided(self, num_processes: int, *, num_slots: int) -> int:
        """Bytes of its weights where each process has a part of every layer, and room for so many whole ones."""
        inside = sum(self.layers)
        return self.weight_bytes - inside + inside // num_processes + min(num_slots, len(self.layers)) * max(self.layers, default=0)


@dataclass(frozen=True)
class _Published:
    """The encoders of a published model on the meta device, by the names of their parts, and what was found of them."""

    modules: Mapping[str, Any]
    weights: dict[tuple[str, str], int] = field(default_factory=dict)
    layers: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    calls: dict[tuple[object, ...], Stretch] = field(default_factory=dict)


@lru_cache(maxsize=_NUM_PUBLISHED)
def _load_published(variant: str, width: object, dtype: torch.dtype) -> _Published:
    modules = build_encoders(variant, {} if width is None else {TEXT_WIDTH: width})
    for module in modules.values():
        for parameter in module.parameters():
            parameter.data = parameter.data.to(dtype)
    return _Published(modules)


class RehearsedEncoders:
    """The encoders of a published model, whose sizes are known before anything is there.

    Each method gives None for the encoders of a model of another size. What was found is kept while the process lasts.
    """

    def __init__(self, family: Family, dtype: torch.dtype) -> None:
        self.family, self._dtype = family, dtype

    def encode(self, width: int, height: int, *, batch: int, is_tiled: bool) -> Encoding | None:
        """Pictures of that size to latents."""
        found = self._run_autoencoder(self._encode, width, height, is_tiled=is_tiled)
        return None if found is None else replace(found, activation_bytes=batch * found.activation_bytes)

    def decode(self, width: int, height: int, *, is_tiled: bool) -> Encoding | None:
        """Latents to one picture of that size."""
        return self._run_autoencoder(self._decode, width, height, is_tiled=is_tiled)

    def read(self, part: str, precision: str, *, batch: int) -> Encoding | None:
        """Captions, by one of the text encoders."""
        found, encoder = self._found, self._found.modules.get(part)
        if encoder is None:
            return None
        batch = min(batch, self.family.prompts_per_batch or batch)
        shapes = self.family.text_shapes(part).values()
        tokens = max((shape[0] for shape in shapes if len(shape) > 1), default=0) or encoder.config.max_position_embeddings
        # Where several states are read, the text is wider than one.
        has_states = any(shape[-1] > encoder.config.hidden_size for shape in shapes)
        key = part, batch, tokens, has_states
        if key not in found.calls:
            numbers = torch.zeros(batch, tokens, dtype=torch.long, device=META)
            found.calls[key] = simulate_call(lambda: encoder(numbers, output_hidden_states=has_states))
        if (part, precision) not in found.weights:
            found.weights[part, precision] = _measure_encoder(encoder, precision)
            found.layers[part, precision] = tuple(_measure_encoder(encoder, precision, within=one) for one in list_layers(encoder))
        call = found.calls[key]
        layers = found.layers[part, precision]
        return Encoding(found.weights[part, precision], call.peak_bytes, call.work.divide(batch), layers)

    def _run_autoencoder(
        self, run: Callable[[Any, int, int], object], width: int, height: int, *, is_tiled: bool
    ) -> Encoding | None:
        found, part = self._found, self.family.image_part
        autoencoder = found.modules.get(part)
        if autoencoder is None:
            return None
        size = (min(width, TILE_PIXELS), min(height, TILE_PIXELS)) if is_tiled else (width, height)
        if (run.__name__, *size) not in found.calls:
            found.calls[run.__name__, *size] = simulate_call(partial(run, autoencoder, *size))
        if (part, "none") not in found.weights:
            found.weights[part, "none"] = _measure_encoder(autoencoder, "none")
        whole = 2 * 4 * 3 * width * height if is_tiled else 0  # all tiles, and the picture that they are put together to
        call, num_tiles = found.calls[run.__name__, *size], max(1, round(width * height / (size[0] * size[1])))
        return Encoding(found.weights[part, "none"], call.peak_bytes + whole, num_tiles * call.work)

    def _encode(self, autoencoder: nn.Module, width: int, height: int) -> object:
        return self.family.encode_images(autoencoder, torch.empty(1, 3, height, width, device=META))

    def _decode(self, autoencoder: nn.Module, width: int, height: int) -> object:
        return self.family.decode_latents(autoencoder, torch.empty(1, *self.family.latent_shape(height, width), device=META))

    @property
    def _found(self) -> _Published:
        return _load_published(self.family.variant, self.family.transformer_config.get(TEXT_WIDTH), self._dtype)


def _list_told(config: RunConfig, family: Family, dtype: torch.dtype) -> dict[str, tuple[int, ...]]:
    """What the network is told of a text."""
    form, told = build_text_form(config.output.text_cache, family, dtype=dtype), dict[str, tuple[int, ...]]()
    for part in family.text_parts:
        shapes = family.text_shapes(part)
        told |= form.list_told(shapes) if TEXT in shapes else shapes
    return told


def _load_text(rehearsal: Rehearsal) -> nn.Module | None:
    """The text encoder that stays with the network, because it learns; it is the first."""
    part = rehearsal.family.adapted_text
    if part is None or not choose_own(rehearsal.trained).modules:
        return None
    return rehearsal.family.load_skeleton(part).to(rehearsal.dtype)


def _predict_loss(
    predictor: Predictor, latents: Tensor, *, t: Tensor, condition: dict[str, Tensor], text: TextLearner | None, config: ObjectiveConfig
) -> Tensor:
    """What a step does of its forward pass."""
    if text is not None:
        with FlashOnMeta():
            condition = condition | text.encode([""] * len(latents))
    noise = torch.empty_like(latents)
    velocity = predictor(build_noisy(latents, noise, t), t, condition)
    return build_losses(velocity, build_target(latents, noise), t, config=config).sum()


def _measure_encoder(encoder: nn.Module, precision: str, *, within: str = "") -> int:
    """Bytes of its weights, or of those of one of its modules; linear layers in lists of modules are those that are packed."""
    lists = [f"{name}." for name, one in encoder.named_modules() if isinstance(one, nn.ModuleList)]
    num_bytes = sum(one.nbytes for one in encoder.get_submodule(within).parameters())
    if precision != "none":
        for name, one in encoder.named_modules():
            is_within = not within or name.startswith(f"{within}.")
            if is_within and isinstance(one, nn.Linear) and any(name.startswith(start) for start in lists):
                num_bytes += FORMATS[precision].num_bytes(one.out_features, one.in_features) - one.weight.nbytes
    return num_bytes


def _list_parents(name: str) -> list[str]:
    """`a.b.c` is in `a.b`, which is in `a`."""
    words = name.split(".")
    return [".".join(words[:number]) for number in range(len(words), 0, -1)]


def count_update_bytes(num: int) -> int:
    """What the update of so many numbers takes beside them, their gradients and their state."""
    return _UPDATE_TENSORS * 4 * min(PIECE, num)


def _drop(parameter: Tensor) -> None:
    """What a fused update does to memory."""
    torch.empty(count_update_bytes(parameter.numel()), dtype=torch.uint8, device=META)
    parameter.grad = None
