"""A library's model or tokenizer from its folder or from a single file: whole, or a message for a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from weber.errors import ModelError
from weber.families.places import Place
from weber.families.singles import build_stripped, describe_content, open_single, read_own_config
from weber.families.source import Source
from weber.families.tensors import Entry, Weights, open_weights

_FIX = "download the model again; if you made it yourself, save it with the library's save_pretrained"
_NUM_SHOWN = 3
Read = TypeVar("Read")
_NO_CHANGES: Mapping[str, object] = MappingProxyType({})
Fill = Callable[[nn.Module, Weights], None]
"""Puts weights into a module that has none, each read once; they are on the host and in the precision that the module is to have."""


def _accept(weights: Weights) -> bool:
    return True


@dataclass(frozen=True)
class Original:
    """How a part looks in a single file of its makers.

    `build_config` (the library's configuration, from names and shapes), `convert` (the tensors under the library's names, and the names
    that nobody knows) and `recognize` get the tensors without prefixes. `name`: what it is, in words. `kinds`: what a config.json of it
    says (`_class_name` or `model_type`); none: anything. `markers`: see `singles.py`. `extras`: patterns of names that may be there
    unread.
    """

    build_config: Callable[[Weights], dict[str, object]]
    convert: Callable[[Weights], tuple[Weights, list[str]]]
    name: str = "the part"
    kinds: tuple[str, ...] = ()
    markers: tuple[str, ...] = ()
    recognize: Callable[[Weights], bool] = _accept
    extras: tuple[str, ...] = ()


def load_part(
    kind: Any,
    place: Place,
    *,
    original: Original,
    dtype: torch.dtype,
    changes: Mapping[str, object] = _NO_CHANGES,
    fill: Fill | None = None,
) -> nn.Module:
    """A model of a diffusers or transformers class, from a folder or a single file; of a file, `changes` replace entries of its
    configuration.

    Of a single file, one tensor at a time is read and cast, so the peak is the model in its dtype, or what `fill` makes of it. With
    changes, tensors that the smaller model has no place for are not read. Raises ModelError.
    """
    from diffusers import ModelMixin

    if not place.is_single:
        assert not changes and fill is None, "a folder is read whole"
        return load_weights(kind, str(place.path), dtype=dtype)
    config = {**_read_single_config(place, original), **changes}
    weights = open_part(place, original)
    module = _build_empty(kind, config, place)
    names = _check_names(module, weights, place, may_be_more=bool(changes))
    (fill or _fill_plainly)(module, build_cast({name: weights[name] for name in names}, module, dtype=dtype))
    if not issubclass(kind, ModelMixin):
        module.tie_weights()
    assert isinstance(module, nn.Module)
    return module.eval()


def load_named_part(kind: Any, source: Source, *, part: str, original: Original, dtype: torch.dtype, fill: Fill | None) -> nn.Module:
    """A model of a class whose `from_pretrained` may know more names than we do: it reads folders, unless `fill` does, one tensor at a
    time. Raises ModelError."""
    place = source.find(part)
    if fill is None:
        return load_part(kind, place, original=original, dtype=dtype)
    changes = source.read_config(part) or {}
    return load_part(kind, replace(place, is_single=True), original=original, dtype=dtype, changes=changes, fill=fill)


def read_part_config(source: Source, part: str, *, original: Original) -> dict[str, object]:
    """The library's configuration of a part: its config.json, or built from the header of the single file. Raises ModelError."""
    config = source.read_config(part)
    if config is None:
        return _read_single_config(source.find(part), original)
    _check_kind(config, source, part, [original])
    return config


def check_content(source: Source, part: str, *, originals: Sequence[Original]) -> None:
    """Raise ModelError where a part is none of these, by the header of its single file or by its config.json."""
    config = source.read_config(part)
    if config is None:
        open_original(source.find(part), originals, what=source.name_part(part))
    else:
        _check_kind(config, source, part, originals)


def _read_kind(config: Mapping[str, object]) -> object:
    return config.get("_class_name", config.get("model_type"))


def _check_kind(config: Mapping[str, object], source: Source, part: str, originals: Sequence[Original]) -> None:
    if isinstance(quantized := config.get("quantization_config"), dict):
        raise ModelError(
            f"The model's part {part} is quantized in a way that cannot be trained on.",
            got=f"{source.name_part(part)}, whose config.json says quant_method = {quantized.get('quant_method')!r}",
            expected="bf16, fp16 or fp32",
            fix="use the same model in bf16",
        )
    kind = _read_kind(config)
    kinds = [name for original in originals for name in original.kinds]
    if kind is not None and kinds and kind not in kinds:
        names = " or ".join(original.name for original in originals)
        raise ModelError(
            f"The model's part {part} is of another kind.",
            got=f"{source.name_part(part)}, whose config.json says {kind!r}",
            expected=f"{names}: {' or '.join(kinds)}",
            fix=f"set model.{part} to {names}",
        )


def open_part(place: Place, original: Original) -> Weights:
    """The tensors of a part under the library's names; only headers are read. Raises ModelError."""
    if not place.is_single:
        return open_weights(place.files)
    weights, unknown = _read_shapes(original.convert, open_original(place, [original]), place)
    unknown = [name for name in unknown if not any(fnmatchcase(name, pattern) for pattern in original.extras)]
    if unknown:
        raise ModelError(
            f"{place.path} holds tensors that are not of {original.name}.",
            got=_name_some(unknown),
            expected=f"the names that {original.name} has in the makers' files",
            fix="use a file of the model itself, or a folder in diffusers layout",
        )
    return weights


def open_original(place: Place, originals: Sequence[Original], *, what: str = "") -> Weights:
    """The tensors of a single file as its makers name them, without prefixes, where it is one of these.

    `what`: the setting that names it. Raises ModelError in words where it is none of them.
    """
    opened = open_single(place.files)
    for original in originals:
        weights = build_stripped(opened, original.markers)
        if original.recognize(weights):
            return weights
    raise ModelError(
        f"{place.path} is not what is needed there.",
        got=f"{what or place.path}, which holds {describe_content(opened)}",
        expected=" or ".join(original.name for original in originals) or "a folder in diffusers layout or a hub id",
        fix="give another file, or name this one with the setting that it belongs to",
    )


def load_weights(kind: Any, folder: str, *, dtype: torch.dtype) -> nn.Module:
    """A model of a diffusers or transformers class. Raises ModelError where its files are damaged, do not fit its configuration or
    lack weights, which the libraries would draw at random."""
    _hide_bars()
    try:
        module, report = kind.from_pretrained(folder, dtype=dtype, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"The weights in {folder} cannot be read.", got=str(error).strip().partition("\n")[0], fix=_FIX) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"The weights in {folder} are not complete.",
            got=f"{len(missing)} tensors are missing: {_name_some(missing)}",
            expected=f"all weights of a {kind.__name__} with the settings of its config.json",
            fix=_FIX,
        )
    assert isinstance(module, nn.Module)
    return module


def build_skeleton(kind: Any, config: Mapping[str, object]) -> nn.Module:
    """A model of a diffusers class on the meta device: names and shapes without weights."""
    from diffusers.models.modeling_utils import no_init_weights

    with torch.device("meta"), no_init_weights():  # drawing numbers that nobody reads takes most of the time
        skeleton: nn.Module = kind.from_config(config)
    return skeleton


def load_chat_tokenizer(folder: str) -> Any:
    """The tokenizer of a language model. Raises ModelError where it is damaged, or cannot chat or pad."""
    from transformers import AutoTokenizer

    tokenizer = load_tokenizer(AutoTokenizer, folder)
    if tokenizer.chat_template is None or tokenizer.pad_token is None:
        raise ModelError(
            f"The tokenizer in {folder} cannot be used.",
            got="no chat template" if tokenizer.chat_template is None else "no padding token",
            expected="a tokenizer with both, as the published models have",
            fix="download the model's tokenizer again, with chat_template.jinja and tokenizer_config.json",
        )
    return tokenizer


def load_tokenizer(kind: Any, folder: str) -> Any:
    """A tokenizer of a transformers class. Raises ModelError where its files are damaged."""
    try:
        return kind.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"The tokenizer in {folder} cannot be read.", got=str(error).strip().partition("\n")[0], fix=_FIX) from error


def _hide_bars() -> None:
    """The libraries' bars would be drawn into ours."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    diffusers_logging.disable_progress_bar()


def _read_single_config(place: Place, original: Original) -> dict[str, object]:
    """What the header says of this part; a file of several parts may say it of another one."""
    config = read_own_config(place.files)
    kind = None if config is None else _read_kind(config)
    if config is not None and (kind is None or kind in original.kinds):
        return config
    return _read_shapes(original.build_config, open_original(place, [original]), place)


def _read_shapes(read: Callable[[Weights], Read], weights: Weights, place: Place) -> Read:
    try:
        return read(weights)
    except (KeyError, IndexError, ValueError, StopIteration, ZeroDivisionError, AssertionError) as error:
        raise ModelError(
            f"The weights in {place.path} are not complete.",
            got=f"{error} is missing, or has another shape than it should",
            fix="download the file again, or use a folder in diffusers layout",
        ) from error


def _build_empty(kind: Any, config: Mapping[str, object], place: Place) -> Any:
    """The model without weights; buffers that no file holds are real."""
    from accelerate import init_empty_weights  # type: ignore[import-untyped]
    from diffusers import ModelMixin

    try:
        with init_empty_weights(include_buffers=False):
            if issubclass(kind, ModelMixin):
                return kind.from_config(config)
            module = kind(kind.config_class.from_dict(dict(config)))
        module.tie_weights()
        return module
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise ModelError(
            f"The shapes in {place.path} make no {kind.__name__}.",
            got=str(error).partition("\n")[0],
            fix="use a folder in diffusers layout, whose config.json says what shapes do not",
        ) from error


def _check_names(module: nn.Module, weights: Weights, place: Place, *, may_be_more: bool) -> list[str]:
    """The tensors to be read, after a look at all names and shapes."""
    state = module.state_dict()
    buffers = {name for name, _ in module.named_buffers()} & set(state)
    # A counter of training steps is a buffer that some writers leave out, and nothing reads it.
    needed = {name for name, _ in module.named_parameters()} | {name for name in buffers if not name.endswith("num_batches_tracked")}
    missing, surplus = sorted(needed - set(weights)), sorted(set(weights) - set(state))
    if missing or (surplus and not may_be_more):
        raise ModelError(
            f"The weights in {place.path} are not complete." if missing else f"{place.path} holds tensors that the model has no place for.",
            got=f"{len(missing)} tensors are missing: {_name_some(missing)}" if missing else _name_some(surplus),
            expected=f"all weights of a {type(module).__name__}",
            fix="download the file again, or use a folder in diffusers layout",
        )
    found = [name for name in weights if name in state]
    for name in found:
        if tuple(state[name].shape) != weights[name].shape:
            raise ModelError(
                f"The weights in {place.path} do not fit together.",
                got=f"{name} has the shape {list(weights[name].shape)}",
                expected=f"{list(state[name].shape)}, as the other tensors say",
                fix="download the file again, or use a folder in diffusers layout",
            )
    return found


def _fill_plainly(module: nn.Module, weights: Weights) -> None:
    module.load_state_dict({name: entry.read() for name, entry in weights.items()}, strict=False, assign=True)


def build_cast(weights: Weights, module: Any, *, dtype: torch.dtype) -> Weights:
    """The same, in the precision that `from_pretrained` of the module's class would have: some of its modules stay in fp32, those of
    transformers only where the model is in fp16."""
    from diffusers import ModelMixin

    kept = set((module._keep_in_fp32_modules if dtype == torch.float16 or isinstance(module, ModelMixin) else None) or ())
    return {name: _build_cast_entry(entry, torch.float32 if set(name.split(".")) & kept else dtype) for name, entry in weights.items()}


def _build_cast_entry(entry: Entry, dtype: torch.dtype) -> Entry:
    return replace(entry, dtype=dtype if entry.dtype.is_floating_point else entry.dtype, read=partial(_read_cast, entry, dtype))


def _read_cast(entry: Entry, dtype: torch.dtype) -> Tensor:
    tensor = entry.read()
    if tensor.is_floating_point():
        tensor = tensor.to(dtype)
    # A piece of a larger tensor would keep all of it in memory.
    is_whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.itemsize
    return tensor if is_whole else tensor.clone(memory_format=torch.contiguous_format)


def _name_some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NUM_SHOWN]) + (", ..." if names[_NUM_SHOWN:] else "")
