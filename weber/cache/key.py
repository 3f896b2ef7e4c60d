"""Names of encoded tensors: a hash of everything that their bytes depend on, so that nothing stale can be read."""

from __future__ import annotations

import json
from hashlib import blake2b

import torch

from weber.data.loss_masks import LossWindow
from weber.data.views import View

KEY_VERSION = 1
"""Raised when our own code changes what an encoder is fed or what is stored, so that old samples are no longer found."""


def build_key(*, content: str, preparation: str, encoder: str, dtype: str) -> str:
    """32 hex digits: blake2b-128 of canonical JSON.

    `content` stands for the file or caption, `preparation` for everything done to it before the encoder, `encoder` for the
    weights, configuration and tokenizer, `dtype` for what is computed and stored.
    """
    facts = {"content": content, "dtype": dtype, "encoder": encoder, "preparation": preparation, "version": KEY_VERSION}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=16).hexdigest()


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


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
