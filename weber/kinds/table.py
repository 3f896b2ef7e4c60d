"""The kinds of training as rows."""

from __future__ import annotations

from collections.abc import Mapping

from weber.kinds.full import Full
from weber.kinds.kind import Kind
from weber.kinds.lora import Lora
from weber.kinds.lycoris import Lycoris

KINDS: Mapping[str, Kind] = {"lora": Lora(), "lycoris": Lycoris(), "full": Full()}
"""By `adapter.kind`."""
