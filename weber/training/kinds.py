"""The kinds of training as rows."""

from __future__ import annotations

from collections.abc import Mapping

from weber.training.kind import Kind
from weber.training.kind_full import Full
from weber.training.kind_lora import Lora
from weber.training.kind_lycoris import Lycoris

KINDS: Mapping[str, Kind] = {"lora": Lora(), "lycoris": Lycoris(), "full": Full()}
"""By `adapter.kind`."""
