"""A model of the same shapes as the one that is trained on, which paints in its place: `sampling.model`."""

from __future__ import annotations

from weber.config.adapter import SHIFTED_STARTS
from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.families.family import Family
from weber.kinds.table import KINDS
from weber.planning.model import find_model
from weber.results.bases import read_base, speaking_of

_KEY = "sampling.model"


def find_sibling(config: RunConfig, family: Family, *, is_run: bool) -> Family | None:
    """The model that paints; None where it is the one that is trained on. Raises ConfigError or ModelError."""
    place = config.sampling.model
    if place is None:
        return None
    _check(config)
    with speaking_of(_KEY):
        sibling = find_model(config.model_copy(update={"model": read_base(place)}), is_run=is_run).family
    mine, its = _list_shapes(family), _list_shapes(sibling)
    other = next((name for name in sorted(mine.keys() | its.keys()) if mine.get(name) != its.get(name)), None)
    if other is not None:
        raise ConfigError(
            f"The adapter does not fit {_KEY}, which has other layers than the model that is trained on.",
            got=f"{_KEY} = {place!r} ({sibling.variant}): {other} is {its.get(other, 'not there')}, here {mine.get(other, 'not there')}",
            expected="a model that was made from the same one, such as the distilled one of a base",
            fix=f"name such a model, or remove {_KEY}",
        )
    return sibling


def _check(config: RunConfig) -> None:
    """Refuse it where what is trained depends on the model's own numbers."""
    adapter = config.adapter
    why, fix = "", ""
    if not KINDS[adapter.kind].is_adapter:
        why, fix = "the model itself is trained, so no other one can show it", 'set adapter.kind = "lora"'
    elif adapter.text_encoder:
        why, fix = "CLIP is trained too", "remove adapter.text_encoder"
    elif adapter.init in SHIFTED_STARTS:
        why, fix = "the adapter starts from the weights of the model that is trained on", "remove adapter.init"
    elif config.output.text_cache == "projected":
        why, fix = "texts are kept behind a layer of the model that is trained on", 'set output.text_cache = "full"'
    if why:
        got = f"{_KEY} = {config.sampling.model!r}"
        raise ConfigError(f"No other model can paint here: {why}.", got=got, fix=f"{fix}, or remove {_KEY}")


def _list_shapes(family: Family) -> dict[str, tuple[int, ...]]:
    return {name: tuple(one.shape) for name, one in family.load_skeleton().state_dict().items()}
