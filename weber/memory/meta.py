"""Attention on the meta device: as a GPU computes it, so that what is saved and how much is computed can be counted without one.

By itself the meta device decomposes attention into matrix products, and saves scores of tokens x tokens, which no GPU does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.variable import Variable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_ATTENTION = functional.scaled_dot_product_attention
"""Taken now: while a block runs something else may have its name."""


class FlashOnMeta(TorchFunctionMode):
    """While it is on, attention over meta tensors is one operation: flash attention, or the memory-efficient one if there is a mask.

    Both save queries, keys, values, the output and one fp32 per head and query. It must be on for `loss.backward()`
    too, which runs checkpointed blocks again.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See `TorchFunctionMode`."""
        kwargs = kwargs or {}
        if func is Tensor.backward:  # it asks every mode, with the mode off, and would run blocks again without this one
            with self:
                return _run_backward(args[0], kwargs["gradient"])
        if func is _ATTENTION and any(isinstance(one, Tensor) and one.is_meta for one in (*args, *kwargs.values())):
            return _attend(*args, **kwargs)
        return func(*args, **kwargs)


def _run_backward(tensor: Tensor, gradient: Tensor | None) -> None:
    """`Tensor.backward` without its question to the modes."""
    start = torch.ones_like(tensor) if gradient is None else gradient
    Variable._execution_engine.run_backward((tensor,), (start,), False, False, (), allow_unreachable=True, accumulate_grad=True)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **settings: Any,
) -> Tensor:
    scale = settings.get("scale")
    if attn_mask is None:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False, scale=scale)[0]  # type: ignore[no-any-return]
    mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, mask, True, dropout_p, is_causal, scale=scale)[0]  # type: ignore[no-any-return]
