"""Which text is attended to: the padding behind a prompt, which makes prompts equally long, may weigh less or be hidden.

Legend: B batch, T text tokens, N image tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from weber.families.family import Family

TEXT_READ = "text_read"
"""In a condition: (B, T) bool, true for the tokens of a prompt, false for its padding, which is not attended to.

As `--apply_t5_attn_mask` of kohya's sd-scripts has it in the blocks (`library/flux_models.py`); there T5 is told of padding too, here it
reads as the model was trained. Image tokens are always attended to, so that no token is left without any."""

TEXT_MASK = "text_mask"
"""In a condition: (B, T) float, which is added to the scores: with 1 for text and 0 for padding, padding weighs e times less.

That is how LibreFLUX was trained and is sampled: in its pipeline and in SimpleTuner the mask is a float one."""


def is_masked(family: Family) -> bool:
    """Whether a condition of this model has a mask."""
    return any(name in (TEXT_READ, TEXT_MASK) for part in family.text_parts for name in family.text_shapes(part))


def build_mask(condition: Mapping[str, Tensor], image_BND: Tensor) -> Tensor | None:
    """The mask (B, 1, 1, T + N) of what is attended to, as the library's blocks take it; None where the condition has none."""
    if TEXT_READ in condition:
        text_BT = condition[TEXT_READ].bool()
    elif TEXT_MASK in condition:
        text_BT = condition[TEXT_MASK].to(image_BND)
    else:
        return None
    return torch.cat([text_BT, text_BT.new_ones(image_BND.shape[:2])], dim=1)[:, None, None, :]
