"""Names of encoded tensors: a hash of everything that their bytes depend on, so that nothing stale can be read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from json.encoder import encode_basestring_ascii as _quote

import numpy as np
import torch
from numpy.typing import NDArray

from weber.data.loss_masks import LossWindow
from weber.data.views import View

KEY_VERSION = 1
"""Raised when our own code changes what an encoder is fed or what is stored, so that old samples are no longer found."""

KEY_BYTES = 16
Keys = NDArray[np.uint8]
"""Many keys, (N, 16): their hexadecimal digits as bytes."""


def build_key(*, content: str, preparation: str, encoder: str, dtype: str) -> str:
    """32 hex digits: blake2b-128 of canonical JSON.

    `content` stands for the file or caption, `preparation` for everything done to it before the encoder, `encoder` for the
    weights, configuration and tokenizer, `dtype` for what is computed and stored.
    """
    text = f'{{"content":{_quote(content)},{_write_middle(dtype, encoder)}"preparation":{_quote(preparation)},"version":{KEY_VERSION}}}'
    return blake2b(text.encode(), digest_size=KEY_BYTES).hexdigest()


def build_latent_key(view: View, *, encoder: str, dtype: torch.dtype) -> str:
    """Key of one view of one picture; `encoder` is the identity of the image encoder."""
    return build_key(content=view.content, preparation=view.describe(), encoder=encoder, dtype=_name(dtype))


def build_text_key(caption: str, *, encoder: str, dtype: torch.dtype) -> str:
    """Key of one caption as one text part reads it; `encoder` is the identity of that part."""
    return build_key(content=caption, preparation="caption", encoder=encoder, dtype=_name(dtype))


def build_mask_key(window: LossWindow, *, shape: tuple[int, int]) -> str:
    """Key of what is learned of a picture, as (H, W) numbers; no network takes part."""
    preparation = f"{window.describe()} to {shape[1]}x{shape[0]}"
    return build_key(content=window.mask.content, preparation=preparation, encoder="", dtype=_name(torch.float32))


def pack_keys(keys: Sequence[str]) -> Keys:
    """Keys as bytes."""
    return np.frombuffer(bytes.fromhex("".join(keys)), np.uint8).reshape(-1, KEY_BYTES)


@lru_cache(maxsize=256)
def _write_middle(dtype: str, encoder: str) -> str:
    return f'"dtype":{_quote(dtype)},"encoder":{_quote(encoder)},'


@lru_cache
def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
