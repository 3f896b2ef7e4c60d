"""What processes send each other in a step, counted from what `parallel/sums.py` and `parallel/shards.py` do."""

from __future__ import annotations

from dataclasses import dataclass

from weber.config.run import RunConfig
from weber.memory.rates import load_rates
from weber.planning.budget import Budget, Workload


@dataclass(frozen=True)
class Traffic:
    """Bytes that each process sends in a step, of gradients and of weights of blocks; `link`: bytes in a second."""

    gradient_bytes: float
    weight_bytes: float
    link: float

    @property
    def seconds(self) -> float:
        """If nothing were done meanwhile."""
        return (self.gradient_bytes + self.weight_bytes) / self.link


def count_gradient_bytes(num_bytes: float, num_processes: int, *, rounds: int = 1) -> float:
    """Gradients of so many bytes that all processes have whole: in each round their parts to those who own them, and once the sums back."""
    return (rounds + 1) * num_bytes * (num_processes - 1) / num_processes


def count_weight_bytes(num_bytes: float, num_processes: int, *, passes: int = 2) -> float:
    """Blocks of so many bytes that are put together before each pass: forward, and again where they are computed again."""
    return passes * num_bytes * (num_processes - 1) / num_processes


def build_traffic(config: RunConfig, workload: Workload) -> Traffic:
    """Of a run with its settings as they are."""
    num, rounds = workload.num_processes, -(-config.train.accumulation // workload.num_processes)
    budget = Budget(config, workload)
    inside = workload.count_sharded_share() if workload.is_sharded else 0.0
    trained = workload.trained.num_bytes
    gradients = count_gradient_bytes((1 - inside) * trained, num, rounds=rounds) + rounds * inside * trained * (num - 1) / num
    weights = rounds * count_weight_bytes(sum(budget.list_block_bytes(config.memory)), num) if workload.is_sharded else 0.0
    rates = workload.rates or load_rates(workload.device, workload.dtype)
    return Traffic(gradients, weights, rates.link)
