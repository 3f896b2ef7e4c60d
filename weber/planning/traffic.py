"""What processes send each other in a step, counted from what `parallel/sums.py` and `parallel/shards.py` do."""

from __future__ import annotations

from dataclasses import dataclass

from weber.config.run import RunConfig
from weber.memory.rates import load_rates
from weber.planning.budget import Budget, Workload

MESSAGES = 3
"""Words that go around in a step: what is next, who has what, and which gradients nobody has."""
MACHINE_SIZE = 8
"""GPUs of a machine, as most that are sold for training have."""


@dataclass(frozen=True)
class Links:
    """Bytes in a second: `between` GPUs of a machine, over the `network` for each GPU, from the `disk` that all machines see. `message`:
    seconds for a word from one process to the next."""

    between: float
    network: float = 12.5e9
    disk: float = 2e9
    message: float = 5e-5

    def find_rate(self, num: int) -> float:
        """Among so many processes, of which those beyond a machine's are reached over the network."""
        away = max(0, num - MACHINE_SIZE) / num
        return 1 / (away / self.network + (1 - away) / self.between)


@dataclass(frozen=True)
class Demand:
    """What a step needs beside its computing: bytes that each process sends, or all of them read or write, and seconds if nothing else
    were done meanwhile. `is_beside`: it is, so that it only counts where it takes longer than the step."""

    name: str
    num_bytes: float
    seconds: float
    is_beside: bool = False


def count_gradient_bytes(num_bytes: float, num_processes: int, *, rounds: int = 1) -> float:
    """Gradients of so many bytes that all processes have whole: in each round their parts to those who own them, and once the sums back."""
    return (rounds + 1) * num_bytes * (num_processes - 1) / num_processes


def count_weight_bytes(num_bytes: float, num_processes: int, *, passes: int = 2) -> float:
    """Blocks of so many bytes that are put together before each pass: forward, and again where they are computed again."""
    return passes * num_bytes * (num_processes - 1) / num_processes


def build_links(workload: Workload) -> Links:
    """Of the machine at hand, as far as it is known: GPUs are joined at least by their bus."""
    return Links((workload.rates or load_rates(workload.device, workload.dtype)).link)


def list_demands(config: RunConfig, workload: Workload, *, links: Links, save_bytes: float, save_every: int) -> list[Demand]:
    """Of a run with its settings as they are. `save_bytes`: of a checkpoint, which is written after every so many steps."""
    num, near, rounds, budget = workload.num_processes, workload.num_near, workload.count_rounds(config), Budget(config, workload)
    inside, trained = workload.count_sharded_share() if workload.is_sharded else 0.0, workload.trained.num_bytes
    sharded = rounds * (num - 1) / num + (num // near - 1) / num  # to whoever adds a part up, and the parts to each that moves the whole
    gradients = count_gradient_bytes((1 - inside) * trained, num, rounds=rounds) + sharded * inside * trained
    passes = 2 * rounds if config.parallel.reshard else 1
    blocks = sum(budget.list_blocks(config.memory)[0]) if workload.is_sharded else 0
    weights = count_weight_bytes(blocks, near, passes=passes)
    read = config.train.batch_size * config.train.accumulation * budget.count_sample_bytes()
    saved = save_bytes / save_every
    return [
        Demand("gradients between devices", gradients, gradients / links.find_rate(num)),
        Demand("weights of blocks between devices", weights, weights / links.find_rate(near), is_beside=True),
        Demand("words between processes", 0, MESSAGES * links.message * num if num > 1 else 0.0),
        Demand("the cache, by all devices", read, read / links.disk, is_beside=True),
        Demand("checkpoints, by one process", saved, saved / links.disk),
    ]
