"""LoRA on the linear layers of a frozen model, by PEFT, with fp32 weights whatever the model's precision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from weber.config.adapter import AdapterConfig
from weber.errors import AdapterError

ADAPTER_NAME = "default"


def build_lora(model: nn.Module, config: AdapterConfig, *, modules: Sequence[str], seed: int) -> list[tuple[str, nn.Parameter]]:
    """Put adapters on `modules` of `model`, in place; returns the named parameters that learn, all fp32.

    A is drawn from a Kaiming uniform distribution (PEFT's default) with `seed`; B is zero, so the model starts as it was.
    bf16 weights would not learn at usual rates (ecosystem.md 0.3), and PEFT does not upcast by itself.
    """
    alpha = config.rank if config.alpha is None else config.alpha
    lora = LoraConfig(r=config.rank, lora_alpha=alpha, lora_dropout=config.dropout, target_modules=list(modules))  # type: ignore[arg-type]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(lora, model, adapter_name=ADAPTER_NAME)
    parameters = list_parameters(model)
    for _, parameter in parameters:
        parameter.data = parameter.data.float()
    return parameters


def list_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that learn, in the model's order."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def list_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The adapter's weights by module: `<module>.lora_A.weight`, `<module>.lora_B.weight`."""
    tensors: dict[str, Tensor] = get_peft_model_state_dict(model, adapter_name=ADAPTER_NAME)
    return {name: tensor.detach() for name, tensor in tensors.items()}


def load_tensors(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Write weights into adapters that `build_lora` made. Raises AdapterError where names or shapes differ."""
    have = {name: tuple(tensor.shape) for name, tensor in list_tensors(model).items()}
    come = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    different = sorted(set(have.items()) ^ set(come.items()))
    if different:
        raise AdapterError(
            "The adapter's weights do not fit the adapter settings.",
            got=f"{len(come)} tensors, of which {different[0][0]} with shape {come.get(different[0][0], 'missing')}",
            expected=f"{len(have)} tensors, {different[0][0]} with shape {have.get(different[0][0], 'missing')}",
            fix="use the rank and targets that the adapter was made with",
        )
    set_peft_model_state_dict(model, tensors, adapter_name=ADAPTER_NAME)


def write_strength(model: nn.Module, strength: float) -> None:
    """Scale what the adapters add: 0 is the base model, 1 is as trained."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.set_scale(ADAPTER_NAME, strength)
