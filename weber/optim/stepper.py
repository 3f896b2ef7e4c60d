"""An optimizer of our own: it can update one parameter alone, in little memory, with bits that do not depend on the order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from weber.config.optim import OptimConfig
from weber.data.seeds import build_seed
from weber.optim.methods import Method
from weber.optim.rules import Move

CHUNK_BYTES = 1 << 28
_ALIGNMENT = 64
_NO_BETAS = (0.0, 0.0)
_NUM_UNREAD = 2
_STEP_SPEC: tuple[tuple[int, ...], torch.dtype] = ((), torch.float32)


class Stepper(torch.optim.Optimizer):
    """Updates parameters in fp32 or bf16 by a method; bf16 ones are rounded stochastically.

    The random bits of an update derive from the seed, the parameter's number and its step alone: the order in which gradients arrive
    changes nothing, and a resumed run continues bit for bit. With `state_on = "host"` the state is brought to the parameter's device for
    each update, and back.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter] | list[dict[str, Any]], method: Method, *, config: OptimConfig, seed: int
    ) -> None:
        assert config.lr is not None, "the resolved config has a learning rate"
        betas, eps, weight_decay = config.decays or _NO_BETAS, config.chosen_eps or 0.0, config.chosen_weight_decay or 0.0
        super().__init__(parameters, {"lr": config.lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.method, self.seed = method, seed
        self._host = Host(is_pinned=torch.cuda.is_available()) if config.state_on == "host" else None
        self._groups = {parameter: group for group in self.param_groups for parameter in group["params"]}
        self._numbers = {parameter: number for number, parameter in enumerate(self._groups)}
        self._generators: dict[torch.device, torch.Generator] = {}
        self._unread: deque[list[tuple[dict[str, Any], Tensor]]] = deque(maxlen=_NUM_UNREAD)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None, "weber computes the loss before the step"
        self.step_where(None)

    @torch.no_grad()
    def step_where(self, is_finite: Tensor | None) -> None:
        """The same, where the flag (on the device) is true; see `step_parameter`."""
        self.begin()
        for parameter in self._numbers:
            if parameter.grad is not None:
                self.step_parameter(parameter, is_finite=is_finite)

    def begin(self) -> None:
        """A step begins: `take_back` reaches to the one before it."""
        self._unread.append([])

    def take_back(self) -> None:
        """Count no update of the last two steps whose flag was false. Waits for the device."""
        for state, is_finite in (one for updates in self._unread for one in updates):
            state["step"] -= int(not is_finite)
        self._unread.clear()

    @torch.no_grad()
    def step_parameter(self, parameter: nn.Parameter, *, is_finite: Tensor | None = None) -> None:
        """One update of one parameter from its gradient. Where the flag `is_finite` (on the device) is false, only its step counts, until
        `take_back` is called."""
        assert parameter.grad is not None
        state, device = self._load_state(parameter), parameter.device
        state["step"] += 1
        if is_finite is not None and self._unread:
            self._unread[-1].append((state, is_finite))
        step = int(state["step"])
        if device not in self._generators:
            self._generators[device] = torch.Generator(device)
        generator = self._generators[device].manual_seed(build_seed(self.seed, self._numbers[parameter], step, "rounding"))
        settings = {key: self._groups[parameter][key] for key in ("lr", "betas", "eps", "weight_decay")}
        move = Move(**settings, step=step, generator=generator, is_finite=is_finite)
        self.method.write(parameter.detach(), state, gradient=parameter.grad, move=move)

    def write_state(self, parameter: nn.Parameter, state: str, *, tensor: Tensor) -> bool:
        """Put one tensor of a parameter's state where it belongs; false where it cannot be one."""
        specs = {"step": _STEP_SPEC} | self.method.list_state(parameter.shape)
        if specs.get(state) != (tuple(tensor.shape), tensor.dtype):
            return False
        self.state[parameter][state] = tensor.clone() if state == "step" else self._place(tensor, parameter)
        return True

    def wait(self) -> None:
        """Until the state on the host is what the device made of it; only then may the host read it."""
        if self._host is not None and torch.cuda.is_available():
            torch.cuda.synchronize()

    def _load_state(self, parameter: nn.Parameter) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            for name, (shape, dtype) in self.method.list_state(parameter.shape).items():
                device = parameter.device if self._host is None else "cpu"
                state[name] = self._place(torch.zeros(shape, dtype=dtype, device=device), parameter)
        if self._host is None:  # the parameter may have moved since
            state |= {name: tensor.to(parameter.device) for name, tensor in state.items() if name != "step"}
        return state

    def _place(self, tensor: Tensor, parameter: nn.Parameter) -> Tensor:
        return tensor.to(parameter.device) if self._host is None else self._host.keep(tensor)


class Host:
    """Memory of the host in large chunks, of which tensors are cut: torch rounds each pinned allocation up to a power of two."""

    def __init__(self, *, is_pinned: bool) -> None:
        self.is_pinned = is_pinned
        self._free = torch.empty(0, dtype=torch.uint8)

    def keep(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor there."""
        num_bytes = prod(tensor.shape) * tensor.element_size()
        if num_bytes > len(self._free):
            num_new = max(CHUNK_BYTES, 1 << (num_bytes - 1).bit_length())
            self._free = torch.empty(num_new, dtype=torch.uint8, pin_memory=self.is_pinned)
        mine, self._free = self._free[:num_bytes], self._free[-(-num_bytes // _ALIGNMENT) * _ALIGNMENT :]
        return mine.view(tensor.dtype).view(tensor.shape).copy_(tensor)
