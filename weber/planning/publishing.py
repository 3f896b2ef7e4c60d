"""What cannot be sent is refused before anything is trained."""

from __future__ import annotations

from weber.config.run import RunConfig
from weber.errors import WeberError
from weber.families.family import Family
from weber.kinds.kind import Trained
from weber.kinds.table import KINDS
from weber.sharing.store import check_store


def check_publish(config: RunConfig, family: Family, *, trained: Trained) -> None:
    """Refuse formats that the result cannot have, and storages that are not known or whose package is missing; asks nobody."""
    publish = config.publish
    if publish.to is None:
        return
    try:
        output = config.output.model_copy(update={"formats": publish.formats})
        KINDS[config.adapter.kind].check(config.model_copy(update={"output": output}), family, trained=trained)
    except WeberError as error:
        error.rewrite(lambda text: text.replace("output.formats", "publish.formats"))
        raise
    if not publish.is_to_hub:
        check_store(publish.to)
