"""An adapter whose change is multiplied by a number, in its own file: in each layer the tensor that the change follows.

It is the tensor, not an alpha, because not all programs read alphas, and none of them a negative one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from weber.adapters.factors import build_scaled
from weber.errors import AdapterError
from weber.families.finite import is_finite
from weber.families.tensors import Entry

_CARRIERS = (
    *("lora_B.weight", "lora_B.default.weight", "lora_up.weight", "lora.up.weight"),
    *("hada_w1_a", "lokr_w1", "lokr_w1_a", "diff", "diff_b", "a1.weight", "b1.weight"),
)
"""The change is a product with one of these, or it is a sum of such products: that of the model's weight and a1 a2, and b1 b2."""
_OTHERS = (
    *("lora_A.weight", "lora_A.default.weight", "lora_down.weight", "lora.down.weight", "alpha", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    *("lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "a2.weight", "b2.weight"),
)
_LENGTHS = ("lora_magnitude_vector", "lora_magnitude_vector.weight", "lora_magnitude_vector.default.weight", "dora_scale")
_TURNS = ("oft_blocks", "rescale")
_NAME = re.compile(rf"(?P<stem>.+?)\.(?P<part>{'|'.join(map(re.escape, (*_CARRIERS, *_OTHERS, *_LENGTHS, *_TURNS)))})")


def build_scaled_tensors(weights: Mapping[str, Entry], factor: float) -> dict[str, Tensor]:
    """The tensors that are others when the change is multiplied by `factor`, by their names: in their precision where nothing is lost by
    it, else in fp32. Raises AdapterError where the file holds changes that have no such tensor."""
    found = {name: match for name in weights if (match := _NAME.fullmatch(name)) is not None}
    strange = next((name for name, match in found.items() if match["part"] in (*_LENGTHS, *_TURNS)), None)
    if strange is not None:
        what = "A DoRA" if found[strange]["part"] in _LENGTHS else "An adapter that turns layers"
        raise AdapterError(
            f"{what} cannot be scaled in its file, because its change does not follow one tensor.",
            got=strange,
            expected="a LoRA, LoHa, LoKr, GLoRA or whole changes",
            fix="merge it into its model with a weight (`weber merge FILE:0.5 --base MODEL`), or paint with --strength",
        )
    carriers = [name for name, match in found.items() if match["part"] in _CARRIERS]
    bare = {match["stem"] for match in found.values()} - {found[name]["stem"] for name in carriers}
    if bare or not carriers:
        got = next(iter(bare), "no layer")
        raise AdapterError("The file is no adapter that could be scaled.", got=got, fix="check what wrote the file")
    scaled = {name: build_scaled(weights[name].read(), factor) for name in carriers}
    lost = next((name for name, tensor in scaled.items() if not is_finite(tensor)), None)
    if lost is not None:
        raise AdapterError("The scaled adapter would hold numbers that are not finite.", got=lost, fix="choose a smaller factor")
    return scaled
