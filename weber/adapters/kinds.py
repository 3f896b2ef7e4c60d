"""What a file of tensors is, by their names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of file: one of its names matches `pattern`, or with `by_all` all of them. `is_adapter`: it changes a model that it does
    not hold."""

    name: str
    pattern: str
    is_adapter: bool = False
    by_all: bool = False

    def matches(self, names: Iterable[str]) -> bool:
        """Whether a file with these tensors is of the kind."""
        return (all if self.by_all else any)(re.search(self.pattern, name) is not None for name in names)


LORA = Kind("LoRA", "", is_adapter=True)
TRANSFORMER = Kind("transformer", r"(^|\.)(double_blocks|single_blocks|transformer_blocks|single_transformer_blocks|mode_blocks)\.")
UNKNOWN = Kind("file of a kind that weber does not know", "")

LYCORIS = (
    Kind("LoKr", r"\.lokr_w[12]", is_adapter=True),
    Kind("LoHa", r"\.hada_(w|t)[12]", is_adapter=True),
    Kind("OFT or BOFT", r"\.b?oft_", is_adapter=True),
    Kind("GLoRA", r"\.[ab][12]\.weight$", is_adapter=True),
    Kind("whole changes of weights", r"\.(diff|diff_b|alpha)$", is_adapter=True, by_all=True),
    Kind("DoRA with dora_scale", r"\.dora_scale$", is_adapter=True),
)
"""Forms of LyCORIS, with the names of any program."""
_ADAPTERS = (
    *LYCORIS,
    Kind("LoRA in XLabs layout", r"\.processor\.", is_adapter=True),
    Kind(
        "LoRA that also changes a text encoder other than CLIP-L",
        r"^(lora_te[23]_|text_encoder_[23]\.|text_encoders\.(?!clip_l\.))",
        is_adapter=True,
    ),
    Kind("LoRA that also changes biases or norms", r"\.bias$|\.diff(_b)?$|_norm\.scale$", is_adapter=True),
    Kind("LoRA for layers that are not linear", r"\.lora_mid\.|\.lora_embedding_", is_adapter=True),
    LORA,
)
"""In the order in which they are looked for; those between the forms of LyCORIS and the last are not read."""

_PARTS = (
    Kind("checkpoint with all parts of a model in one file", r"^(cond_stage_model|conditioner|text_encoders)\."),
    Kind("ControlNet", r"(^|\.)controlnet_"),
    TRANSFORMER,
    Kind("text encoder (T5)", r"(^|\.)encoder\.block\.\d+\.layer\."),
    Kind("text encoder (CLIP)", r"(^|\.)text_model\.encoder\.layers\."),
    Kind("text encoder (a language model)", r"(^|\.)layers\.\d+\.self_attn\.q_proj\."),
    Kind("autoencoder", r"(^|\.)(encoder|decoder)\.(conv_in|mid|mid_block|up|up_blocks|down|down_blocks)\."),
    UNKNOWN,
)
"""In the order in which they are looked for."""

_MARKS = re.compile(r"lora|\.lokr_|\.hada_|\.b?oft_|\.diff(_b)?$|\.dora_scale$|\.[ab][12]\.weight$")


def find_kind(names: Iterable[str]) -> Kind:
    """The kind of a file with these tensors."""
    listed = list(names)
    kinds = _ADAPTERS if any(_MARKS.search(name) for name in listed) else _PARTS
    return next(kind for kind in kinds if kind.matches(listed) or kind in (LORA, UNKNOWN))
