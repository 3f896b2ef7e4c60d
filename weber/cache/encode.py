"""What filling the cache with pictures and with captions has in common: one encoder in memory, batch after batch, then freed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from weber.cache.served import TextServer
from weber.cache.store import Store
from weber.cache.text_forms import FULL, TextForm
from weber.cache.writer import Writer
from weber.errors import ModelError, WeberError
from weber.families.family import Family
from weber.families.tokens import TEXT
from weber.progress import Progress

Inputs = TypeVar("Inputs")


@dataclass(frozen=True)
class Encoders:
    """The encoders of a model as they are run here. `load(part)` reads one to `device`; it computes in `dtype`, which is what is stored.

    `served`: the machine that encodes texts in the place of this one; then `load` gives nothing of them.
    `identify(part)` is part of the key of all that it makes: the identity of its files, and what else changes its results.
    """

    family: Family
    device: torch.device
    dtype: torch.dtype
    identify: Callable[[str], str]
    load: Callable[[str], nn.Module]
    texts: TextForm = FULL
    served: TextServer | None = None

    def encode_prompts(self, part: str, encoder: nn.Module, texts: Sequence[str]) -> Mapping[str, Tensor]:
        """What a text part makes of texts (B, ...): its encoder here, or another machine."""
        if self.served is None:
            return self.family.encode_prompts(part, encoder, texts)
        return {name: tensor.to(self.device) for name, tensor in self.served.encode(part, texts).items()}

    def find_form(self, part: str) -> TextForm:
        """How what a text part makes is kept."""
        return self.texts if TEXT in self.family.text_shapes(part) else FULL


class Task(NamedTuple):
    """What is being done, of how many, and who is told."""

    what: str
    total: int
    progress: Progress

    def report(self, done: int) -> None:
        """So many are done."""
        self.progress(self.what, done, self.total)


def encode_batches(
    store: Store,
    batches: Iterable[tuple[Sequence[str], Inputs]],
    *,
    load: Callable[[], nn.Module],
    encode: Callable[[nn.Module, Inputs], Mapping[str, Tensor]],
    dtype: torch.dtype,
    task: Task,
    form: TextForm = FULL,
    is_shared: bool = False,
) -> None:
    """Load the encoder, store what `encode` makes of every (keys, inputs), free the encoder.

    The first dimension of what `encode` returns is that of the keys; floating-point tensors are stored as `dtype`, texts in their `form`.
    A batch is stored as a whole, so that a run that was killed goes on with the batches it would have had, and so with the same bits.
    `is_shared`: other processes have parts of the encoder, and it runs for all batches, whatever is wrong with one, as theirs do.
    """
    done = 0
    task.report(done)
    encoder = load()
    with Writer(store) as writer, torch.no_grad():
        following = iter(batches)
        for keys, inputs in following:
            found = encode(encoder, inputs)
            if not keys:
                continue
            try:
                _keep(writer, keys, found, encoder=encoder, dtype=dtype, task=task, form=form)
            except WeberError:
                for _, others in following if is_shared else ():
                    encode(encoder, others)
                raise
            done += len(keys)
            task.report(done)
    form.release()
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # what is fetched ahead still goes where the encoder is
    del encoder
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _keep(
    writer: Writer,
    keys: Sequence[str],
    found: Mapping[str, Tensor],
    *,
    encoder: nn.Module,
    dtype: torch.dtype,
    task: Task,
    form: TextForm,
) -> None:
    tensors: Mapping[str, Tensor] = {name: _prepare(tensor, dtype) for name, tensor in form.prepare(found).items()}
    _check_finite(encoder, tensors, what=task.what)
    tensors = form.pack(tensors)
    writer.add_batch({key: {name: tensor[row] for name, tensor in tensors.items()} for row, key in enumerate(keys)})


def _check_finite(encoder: nn.Module, tensors: Mapping[str, Tensor], *, what: str) -> None:
    """Nothing is kept that no step could learn from."""
    if all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        return
    here = {name: tensor for name, tensor in encoder.state_dict().items() if tensor.untyped_storage().nbytes() >= tensor.nbytes}
    numbers = ((name, tensor) for name, tensor in here.items() if tensor.is_floating_point() and tensor.dtype.itemsize > 1)
    broken = next((name for name, tensor in numbers if not bool(tensor.isfinite().all())), None)
    raise ModelError(
        f"While {what}: what the encoder makes is not finite.",
        got="all of the encoder's own numbers are finite" if broken is None else f"{type(encoder).__name__} with {broken} not finite",
        fix='set memory.dtype = "fp32"' if broken is None else "take another copy of the encoder's files: a download has failed",
    )


def _prepare(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to("cpu", dtype) if tensor.is_floating_point() else tensor.cpu()
