"""References of a set's pictures: which settings have an effect beside which others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def list_reference_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """What cannot act, as sentences that say what to change; `values` are the settings of a set."""
    found = bool(values["conditioning"] or values["conditioning_columns"])
    is_any = found or values["reference_own"] is not None
    needed = {
        "conditioning_type": values["conditioning_type"] is not None,
        "reference_optional": values["reference_optional"],
        "reference_sizes": bool(values["reference_sizes"]),
        "reference_dropout": values["reference_dropout"] > 0,
        "reference_order": values["reference_order"] != "given",
    }
    for name, is_set in needed.items():
        if is_set and not (is_any if name in ("reference_dropout",) else found):
            yield f"{name} has no effect without references; set conditioning or remove {name}"
    sizes, number = values["reference_sizes"], len(values["conditioning"]) or None
    if sizes and values["conditioning_type"] != "reference_loose":
        yield 'reference_sizes has no effect unless conditioning_type = "reference_loose"; set that, or remove it'
    elif sizes and number is not None and len(sizes) > number:
        yield f"reference_sizes has {len(sizes)} numbers for {number} folders of references; give at most one for each, in order"
    if values["reference_order"] != "given" and len(values["conditioning"]) == 1:
        yield 'reference_order = "shuffled" has no effect with one reference; remove it'
    changed = next((name for name in ("reference_dropout", "reference_order") if needed[name]), None)
    if changed is not None and values["regularization"]:
        yield f"{changed} cannot act with regularization = true, where answers are kept for all references; remove it"
    if values["reference_own"] == "crop" and values["crop"] == "off":
        yield 'reference_own = "crop" has no effect with crop = "off", which cuts no windows; set crop = "center"'
