"""Where a training stands: a line of text now and then, and a file from which it goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn


def report(name: str, step: int, *, steps: int, **numbers: float) -> None:
    """One line: which training, which step, and numbers."""
    words = "  ".join(f"{key} {value:.4g}" for key, value in numbers.items())
    print(f"{name}  {step}/{steps}  {words}", flush=True)


class Checkpoint:
    """Weights and optimizer state in one file, which is replaced whole. All randomness comes from seed and step, no more is kept."""

    def __init__(
        self, path: Path, modules: Mapping[str, nn.Module], *, optimizer: torch.optim.Optimizer, made_of: Mapping[str, object]
    ) -> None:
        """`made_of`: the settings and data that the weights depend on; a file made of others is not taken up."""
        self.path, self.modules, self.optimizer, self.made_of = path, modules, optimizer, json.loads(json.dumps(made_of))

    def save(self, step: int, **numbers: float) -> None:
        """Write the state after `step` steps, with numbers that say how good it is."""
        state = {name: module.state_dict() for name, module in self.modules.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        saved = {"step": step, "numbers": numbers, "made_of": self.made_of, "modules": state, "optimizer": self.optimizer.state_dict()}
        torch.save(saved, partial)
        os.replace(partial, self.path)

    def load(self) -> int:
        """Take up the saved state, if there is one; returns the number of steps done."""
        if not self.path.is_file():
            return 0
        saved = torch.load(self.path, weights_only=True)
        differing = {key: (saved["made_of"].get(key), value) for key, value in self.made_of.items() if saved["made_of"].get(key) != value}
        assert not differing, f"{self.path} was made otherwise (then, now): {differing}; delete it to start again"
        for name, module in self.modules.items():
            module.load_state_dict(saved["modules"][name])
        self.optimizer.load_state_dict(saved["optimizer"])
        return int(saved["step"])


def load_numbers(path: Path) -> dict[str, float]:
    """What was saved with a checkpoint: the number of steps and the numbers that say how good it is."""
    saved = torch.load(path, weights_only=True)
    return {"steps": saved["step"], **saved["numbers"]}
