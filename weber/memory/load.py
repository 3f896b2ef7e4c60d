"""Networks read tensor by tensor: each is cast or packed, put where it belongs, and let go of on the host.

So the host never holds more than what stays there and a few tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from weber.config.memory import MemoryConfig
from weber.families.complete import check_complete
from weber.families.family import Family, Predictor
from weber.families.pattern import is_any
from weber.families.tensors import Entry, Weights
from weber.families.weights import Fill, build_cast
from weber.memory.formats import FORMATS
from weber.memory.joined import join_layers
from weber.memory.kept import (
    DamagedKeptError,
    build_disk_error,
    build_kept_key,
    build_packed_weights,
    find_kept,
    load_kept,
    set_aside,
)
from weber.memory.packed import PackedLinear
from weber.memory.products import PRODUCTS, check_product
from weber.memory.swap import choose_swapped
from weber.progress import Progress, ignore_progress

Swap = Callable[[Predictor], Callable[[nn.Module], None]]
"""Gets a network whose swapped blocks are on the meta device; what it returns is called with each of them when its weights are there."""

Divide = Callable[[list[nn.Module]], Callable[[nn.Module], None]]
"""Gets the layers of an encoder, on the meta device; what it returns is called with each of them when its weights are there."""

_PLAIN = MemoryConfig()
_HOST = torch.device("cpu")
_LOADING = "loading the model"


def load_predictor(
    family: Family,
    *,
    device: torch.device,
    dtype: torch.dtype,
    memory: MemoryConfig = _PLAIN,
    trained: Container[str] = (),
    swap: Swap | None = None,
    folder: Path | None = None,
    progress: Progress = ignore_progress,
) -> Predictor:
    """The network, frozen, in eval mode, on its device.

    Blocks that `memory` swaps stay on the host; with `swap` they are read last, each when the one before was taken over. `trained`: names
    of parameters, whose layers are never packed. `folder`: the cache folder, where a quantized model is kept if `memory` says so. Raises
    ModelError where weights are missing, and CacheError where the quantized model cannot be kept.
    """
    skeleton, opened = family.skeleton, family.open_transformer()
    check_complete(opened, skeleton, where=family.variant, exactly=False)
    state = skeleton.state_dict()
    weights = build_cast({name: entry for name, entry in opened.items() if name in state}, skeleton, dtype=dtype)
    formats = choose_formats(family, skeleton, memory=memory, trained=trained)
    packed = build_packed_weights(weights, formats, device=_choose_device(memory, device))
    file = None
    if formats and memory.keep_quantized and folder is not None:
        file = find_kept(folder, build_kept_key(family.identify("transformer"), formats, dtype=dtype))

    def load(progress: Progress) -> Predictor:
        read = packed if file is None else load_kept(file, packed, progress=progress)
        return _load(family, weights, read, formats=formats, device=device, memory=memory, swap=swap, progress=progress)

    try:
        return load(progress)
    except DamagedKeptError as error:
        set_aside(error)
        note = str(error)
    try:
        return load(lambda what, done, total: progress(f"{what} again ({note})", done, total))
    except DamagedKeptError as error:
        raise build_disk_error(error) from error


def _load(
    family: Family,
    weights: Weights,
    packed: Weights,
    *,
    formats: Mapping[str, str],
    device: torch.device,
    memory: MemoryConfig,
    swap: Swap | None,
    progress: Progress,
) -> Predictor:
    transformer = family.load_skeleton().eval()
    blocks, apart = list_blocks(family, transformer), memory.modulation == "host"
    swapped = [blocks[number] for number in choose_swapped(len(blocks), memory.swap_blocks)]
    hosted = {name for name in weights if apart and is_any(name.rpartition(".")[0], family.modulation_modules)}
    inside = {block: [name for name in weights if name.startswith(f"{block}.") and name not in hosted] for block in swapped}
    later = {name for names in inside.values() for name in names}
    put = _Putter(transformer, weights, packed, formats, memory.multiplies_packed, progress)
    progress(_LOADING, 0, len(weights))
    for name in weights:
        if name not in later or swap is None:
            put(name, _HOST if name in hosted or name in later else device)
    modules = {block: transformer.get_submodule(block) for block in swapped}
    tensors = (*transformer.parameters(), *transformer.buffers())
    assert swap is not None or device.type == "meta" or not any(tensor.is_meta for tensor in tensors)
    join_layers((transformer.get_submodule(block) for block in blocks if swap is None or block not in swapped), family.joined_layers)
    predictor = family.build_predictor(transformer, is_modulation_apart=apart)
    predictor.is_fused = memory.runs_own_blocks
    if swap is not None and swapped:
        take = swap(predictor)
        for block, names in inside.items():
            for name in names:
                put(name, _HOST)
            join_layers([modules[block]], family.joined_layers)
            take(modules[block])
    return predictor


def choose_formats(family: Family, skeleton: nn.Module, *, memory: MemoryConfig, trained: Container[str] = ()) -> dict[str, str]:
    """The format of each layer that is packed: linear layers in the blocks, but those with `trained` parameters. Reads no weights."""
    inside = {module for block in family.blocks(family.build_predictor(skeleton)) for module in block.modules()}
    formats = {}
    for name, module in skeleton.named_modules():
        if isinstance(module, nn.Linear) and module in inside and not any(f"{name}.{leaf}" in trained for leaf in ("weight", "bias")):
            is_special = memory.modulation != "model" and is_any(name, family.modulation_modules)
            formats[name] = {"int8": "int8", "host": "none"}[memory.modulation] if is_special else memory.quantize
            if memory.multiplies_packed and formats[name] in PRODUCTS:
                check_product(formats[name], in_features=module.in_features, out_features=module.out_features)
    return {name: form for name, form in formats.items() if form != "none"}


def list_blocks(family: Family, skeleton: nn.Module) -> list[str]:
    """The names of the blocks, in the order in which they run."""
    names = {module: name for name, module in skeleton.named_modules()}
    return [names[block] for block in family.blocks(family.build_predictor(skeleton))]


def list_kept_keys(family: Family, memory: MemoryConfig, *, trained: Container[str] = ()) -> set[str]:
    """Keys of the quantized models that a run needs, here or on a machine that computes in another precision."""
    formats = choose_formats(family, family.skeleton, memory=memory, trained=trained)
    if not formats or not memory.keep_quantized:
        return set()
    identity = family.identify("transformer")
    return {build_kept_key(identity, formats, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}


def build_encoder_fill(memory: MemoryConfig, form: str, *, device: torch.device, divide: Divide | None = None) -> Fill:
    """What fills a text encoder: linear layers of what it has many of are packed; embeddings, norms and heads stay as they are. With
    `divide` each of its layers is taken over when its weights are on the host."""

    def fill(module: nn.Module, weights: Weights) -> None:
        repeated = _list_repeated(module) if form != "none" else []
        formats = {name: form for name in repeated if f"{name}.weight" in weights}
        packed = build_packed_weights(weights, formats, device=_choose_device(memory, device))
        put, layers = _Putter(module, weights, packed, formats), {} if divide is None else list_layers(module)
        inside = {name: [one for one in weights if one.startswith(f"{name}.")] for name in layers}
        later = {one for names in inside.values() for one in names}
        for name in weights:
            if name not in later:
                put(name, device)
        if divide is None:
            return
        take = divide(list(layers.values()))
        for name, layer in layers.items():
            for one in inside[name]:
                put(one, _HOST)
            take(layer)

    return fill


def list_layers(encoder: nn.Module) -> dict[str, nn.Module]:
    """What an encoder has many of: its largest list of modules."""
    lists = {name: one for name, one in encoder.named_modules() if isinstance(one, nn.ModuleList)}
    sizes = {name: sum(parameter.numel() for parameter in one.parameters()) for name, one in lists.items()}
    largest = max(sizes, key=lambda name: sizes[name])
    return {f"{largest}.{number}": layer for number, layer in enumerate(lists[largest])}


@dataclass
class _Putter:
    """Puts weights into a module that is on the meta device; layers in `formats` become packed ones, made of `packed`."""

    module: nn.Module
    weights: Weights
    packed: Weights
    formats: Mapping[str, str]
    multiplies_packed: bool = False
    progress: Progress = ignore_progress
    done: int = 0

    def __call__(self, name: str, device: torch.device) -> None:
        """Read one of the weights to a device."""
        path, _, leaf = name.rpartition(".")
        owner, entry = self.module.get_submodule(path), self.weights[name]
        if leaf == "weight" and path in self.formats:
            assert isinstance(owner, nn.Linear)
            self.module.set_submodule(path, self._build_packed(path, owner.bias, entry, device))
        elif leaf in owner._parameters:
            owner.register_parameter(leaf, nn.Parameter(entry.read().to(device), requires_grad=False))
        else:
            owner.register_buffer(leaf, entry.read().to(device))
        self.done += 1
        self.progress(_LOADING, self.done, len(self.weights))

    def _build_packed(self, path: str, bias: Tensor | None, entry: Entry, device: torch.device) -> PackedLinear:
        """A layer whose bias may come later."""
        form, (num_out, num_in) = FORMATS[self.formats[path]], entry.shape
        tensors = {part: self.packed[f"{path}.{part}"].read().to(device) for part in form.packed_shapes(num_out, num_in)}
        multiplies = self.multiplies_packed and form.name in PRODUCTS
        return PackedLinear(tensors, bias, shape=(num_out, num_in), format=form, dtype=entry.dtype, multiplies_packed=multiplies)


def _list_repeated(module: nn.Module) -> list[str]:
    """Linear layers in lists of modules."""
    lists = [name for name, one in module.named_modules() if isinstance(one, nn.ModuleList)]
    linears = [name for name, one in module.named_modules() if isinstance(one, nn.Linear)]
    return [name for name in linears if any(name.startswith(f"{one}.") for one in lists)]


def _choose_device(memory: MemoryConfig, device: torch.device) -> torch.device:
    """Where layers are packed."""
    is_device = memory.quantize_on == "device" or (memory.quantize_on == "auto" and device.type == "cuda")
    return device if is_device else _HOST
