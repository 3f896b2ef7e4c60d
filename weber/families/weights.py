"""A library's model or tokenizer from its folder: whole, or a message for a person."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from torch import nn
from transformers.utils import logging as transformers_logging

from weber.errors import ModelError

# The libraries' bars would be drawn into ours.
transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
diffusers_logging.disable_progress_bar()

_FIX = "download the model again; if you made it yourself, save it with the library's save_pretrained"
_NUM_SHOWN = 3


def load_weights(kind: Any, folder: str, *, dtype: torch.dtype) -> nn.Module:
    """A model of a diffusers or transformers class. Raises ModelError where its files are damaged, do not fit its configuration or
    lack weights, which the libraries would draw at random."""
    try:
        module, report = kind.from_pretrained(folder, dtype=dtype, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"The weights in {folder} cannot be read.", got=str(error).strip().partition("\n")[0], fix=_FIX) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"The weights in {folder} are not complete.",
            got=f"{len(missing)} tensors are missing: {', '.join(missing[:_NUM_SHOWN])}" + (", ..." if missing[_NUM_SHOWN:] else ""),
            expected=f"all weights of a {kind.__name__} with the settings of its config.json",
            fix=_FIX,
        )
    assert isinstance(module, nn.Module)
    return module


def load_tokenizer(kind: Any, folder: str) -> Any:
    """A tokenizer of a transformers class. Raises ModelError where its files are damaged."""
    try:
        return kind.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"The tokenizer in {folder} cannot be read.", got=str(error).strip().partition("\n")[0], fix=_FIX) from error
