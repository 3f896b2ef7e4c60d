"""Which machine a run is planned for: this one, or one with a card that is not here."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from weber.config.memory import MemoryConfig
from weber.errors import ConfigError
from weber.memory.cards import Wish, find_driver_card, read_wish
from weber.memory.device import build_device, build_dtype
from weber.memory.rates import Rates, build_rates, read_device_bytes, read_host_bytes

_NO_GPU = ("cpu", "mps")


@dataclass(frozen=True)
class Machine:
    """A device with what is known of it. `rates`: left out of one that is here; `device_bytes`: memory of a GPU; None: it has none of its
    own; `host_bytes`: memory of the host; None: it is not known. `wish`: the card that is not here. `bf16_gain`: how many times as fast
    as fp32 bf16 was, where that was tried."""

    device: torch.device
    dtype: torch.dtype
    device_bytes: int | None
    host_bytes: int | None
    rates: Rates | None = None
    wish: Wish | None = None
    key: str = ""
    bf16_gain: float | None = None

    def check_here(self) -> None:
        """Refuse to run on a machine that is not this one."""
        if self.wish is None:
            return
        has_gpu = torch.cuda.is_available()
        here = torch.cuda.get_device_name() if has_gpu else "no GPU"
        raise ConfigError(
            f"This machine has {here}, and the run is planned for {self.wish.title}.",
            got=f"{self.key}, and a command that runs",
            expected="a card that is here",
            fix='set memory.fit = "auto"' if has_gpu else 'set memory.device = "cpu" to run on the processor; `weber plan` needs no card',
        )


def choose_machine(memory: MemoryConfig, card: str | None = None) -> Machine:
    """This machine; or one with `card`, or with the card or the amount that `memory.fit` names, where that is not here.

    Raises ConfigError where there is no such card, or no such device.
    """
    if card is not None:
        return _build_elsewhere(memory, read_wish(card, key="--card"), f"--card {card!r}")
    wish = None if memory.fit in (None, "auto") else read_wish(str(memory.fit), key="memory.fit")
    if wish is None or _is_here(wish, memory):
        device = build_device(memory)
        device_bytes = read_device_bytes(device) if device.type == "cuda" else None
        return Machine(device, build_dtype(memory, device), device_bytes, read_host_bytes())
    return _build_elsewhere(memory, wish, f"memory.fit = {memory.fit!r}")


def _is_here(wish: Wish, memory: MemoryConfig) -> bool:
    """An amount may be of any GPU that is here, or of a processor that was asked for; a card is itself."""
    if wish.is_named:
        return torch.cuda.is_available() and find_driver_card(torch.cuda.get_device_name()) is wish.card
    return memory.device in _NO_GPU or torch.cuda.is_available() or torch.backends.mps.is_available()


def _build_elsewhere(memory: MemoryConfig, wish: Wish, key: str) -> Machine:
    if memory.device in _NO_GPU:
        raise ConfigError(
            "A card is a GPU, and the settings say that the model runs on something else.",
            got=f'memory.device = "{memory.device}", {key}',
            fix="remove memory.device, or name no card",
        )
    wanted = memory.dtype if memory.dtype != "auto" else "bf16" if wish.card.has_bf16 else "fp32"
    dtype = torch.bfloat16 if wanted == "bf16" else torch.float32
    return Machine(torch.device("cuda"), dtype, wish.num_bytes, None, build_rates(wish.card.name), wish, key)
