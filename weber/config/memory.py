"""`[memory]`: where bytes live and how many bits they have."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from weber.config.section import Section

Precision = Literal["none", "int8", "fp8", "nf4", "int4", "int2"]


def _read_amount(value: object) -> object:
    """A number is one of GB; what no amount and no card can be is refused."""
    text = f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else value
    if isinstance(text, str) and (text.startswith("-") or not re.search(r"[1-9]", text)) and text != "auto" and text.strip():
        raise ValueError(f'"{text}" is no amount of memory and no card; write "auto", "10GB", "11.5GiB" or "RTX 4090"')
    return text


Amount = Annotated[str, BeforeValidator(_read_amount), WithJsonSchema({"type": ["string", "number"]})]


class MemoryConfig(Section):
    """Where bytes live and how many bits they have."""

    device: str = "auto"
    """Where the model runs. `auto` (the first GPU, else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`."""

    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """Precision of the frozen base model. `auto`: bf16 on GPUs that have it. On CPUs fp32, but bf16 for adapters where the processor has
    units for it (AVX-512 BF16, AMX) and a short trial at the run's sizes is faster; it is tried once and kept in `output.cache`. (On
    CPUs without such units bf16 convolutions are 15-20 times slower.)"""

    fit: Amount | None = None
    """Memory that the run may take: a number of GB, or with a unit (`"11.5GiB"`, `"24000MB"`); a card (`"RTX 4090"`); or `"auto"` for the
    GPU that is there. The settings of this section that were left out are chosen so that it fits, the fastest first; `weber plan` says
    which and why. Without a GPU here, `plan` plans for one that has so much, and `train` needs `device = "cpu"`."""

    quantize: Precision = "none"
    """Bits of the frozen weights in the transformer's blocks; norms, embeddings and the last layer stay in `dtype`. `int8` and `fp8`
    have a scale per row (8 bits), `nf4` is bitsandbytes' (4.1 bits), `int4` and `int2` have a scale and a minimum per group (4.5 and
    2.5 bits or so; with 2 bits quality suffers)."""

    quantize_text_encoder: Precision = "none"
    """The same for the first text encoder, while captions are encoded. It changes what the model is told, so it has its own cache."""

    quantize_text_encoder_2: Precision = "none"
    """The same for the second text encoder, where the model has two."""

    quantize_on: Literal["auto", "cpu", "device"] = "auto"
    """Where weights are quantized, one layer at a time. `auto`: on the GPU if there is one."""

    keep_quantized: bool = True
    """Keep the quantized model in `output.cache`, so that the next start reads it instead of quantizing again."""

    int8_matmul: bool = False
    """Compute in 8 bits too where `quantize = "int8"`: activations and their gradients are rounded to 8 bits per token. Faster on
    consumer GPUs, slower on data center ones, and less exact."""

    fp8_matmul: bool = False
    """The same where `quantize = "fp8"`, on tensor cores of GPUs of compute capability 8.9 or more (RTX 40, H100 and later)."""

    fused_blocks: bool = True
    """Run blocks of the network by weber's own operations where they hold nothing but linear layers and LoRA, on CPUs and NVIDIA and AMD
    GPUs: equal to the last bits, with less memory and time. `false`: always the library's."""

    attention: Literal["auto", "flash", "flash3", "cudnn", "efficient"] = "auto"
    """What computes attention on GPUs; the processor has one way. `flash`: FlashAttention 2 as PyTorch has it; `flash3`: FlashAttention 3,
    for compute capability 9.0, where its package is installed; `cudnn`: NVIDIA's; `efficient`: for any GPU, precision and mask. `auto`: the
    first of those that are usually fastest on the GPU whose outputs and gradients are right at the run's sizes, which is tried when the run
    starts. What is named is tried too, and refused where it is wrong."""

    compile: bool = False
    """Compile the library's blocks with PyTorch's compiler instead of running weber's own operations: minutes at the start for less time
    per step. Needs Triton on a GPU, a C++ compiler on a CPU. Goes with neither `nf4`, `lean`, `swap_blocks` nor `offload_activations`;
    with `int8_matmul` and `fp8_matmul` only where all blocks are checkpointed."""

    gradient_checkpointing: Literal["all", "none", "lean"] | Annotated[int, Field(ge=2)] = "all"
    """What the backward pass computes again instead of keeping it. `all`: every block, the least memory, about a third more time; a
    number n: every n-th block; `lean`: everything cheap, but no matrix product or attention that is not needed; `none`: nothing."""

    offload_activations: bool = False
    """Keep what gradient checkpointing does keep (the input of each block) in the memory of the host."""

    swap_blocks: Annotated[int, Field(ge=0)] | Literal["all"] = 0
    """How many of the transformer's blocks lie outside of the GPU; each is copied there before it is needed. `all`: every one."""

    swap_to: Literal["host", "disk"] = "host"
    """Where swapped blocks lie: in the memory of the host, or in a file in `output.cache` for machines that have little of it."""

    modulation: Literal["model", "int8", "host"] = "model"
    """Where the layers are that only turn the noise level into scales and shifts (a quarter of some models). `model`: as the other
    weights; `int8`: in 8 bits; `host`: in the memory of the host, computed there. Refused where an adapter trains them."""

    vae_tiling: bool = False
    """Encode and decode pictures in overlapping tiles: less memory for large pictures, slightly other results."""

    encode_batch_size: Annotated[int, Field(ge=1)] = 4
    """Pictures or captions per batch while the cache is filled."""

    @property
    def multiplies_packed(self) -> bool:
        """Whether products are computed in 8 bits."""
        return self.int8_matmul or self.fp8_matmul

    @property
    def runs_own_blocks(self) -> bool:
        """Whether blocks are run by weber's own operations, where they can be: compilers see into the library's alone."""
        return self.fused_blocks and not self.compile

    @property
    def against_compile(self) -> str | None:
        """Why blocks cannot be compiled with the other settings of this section; None where they can."""
        if self.quantize == "nf4":
            return (
                'compile cannot see into the kernels of quantize = "nf4", which are those of bitsandbytes; set quantize = "int8" or remove'
                " compile"
            )
        if self.gradient_checkpointing == "lean":
            return (
                'compile computes again by itself what is cheap, with gradient_checkpointing = "none" too; set gradient_checkpointing ='
                ' "none" or remove compile'
            )
        if self.multiplies_packed and self.gradient_checkpointing != "all":
            return (
                "compile computes the products of int8_matmul and fp8_matmul again, whatever gradient_checkpointing says; set"
                ' gradient_checkpointing = "all" or remove them'
            )
        if self.swap_blocks != 0 or self.offload_activations:
            return (
                "compile has checkpointing inside of what is compiled, where swap_blocks and offload_activations can move nothing; remove"
                " them or remove compile"
            )
        return None

    @model_validator(mode="after")
    def _refuse_what_cannot_act(self) -> MemoryConfig:
        if self.int8_matmul and self.quantize not in ("int8",) and self.fit is None:
            raise ValueError(f'int8_matmul has no effect with quantize = "{self.quantize}"; set quantize = "int8" or remove it')
        if self.fp8_matmul and self.quantize != "fp8":
            raise ValueError(f'fp8_matmul has no effect with quantize = "{self.quantize}"; set quantize = "fp8" or remove it')
        if self.compile and self.against_compile is not None:
            raise ValueError(self.against_compile)
        if self.swap_to == "disk" and self.swap_blocks == 0 and self.fit is None:
            raise ValueError('swap_to = "disk" has no effect with swap_blocks = 0; set swap_blocks or remove swap_to')
        if self.offload_activations and self.gradient_checkpointing != "all":
            raise ValueError(
                'offload_activations needs gradient_checkpointing = "all", where little is kept (with anything else more would be'
                ' copied than computing it again costs); set gradient_checkpointing = "all" or remove offload_activations'
            )
        if self.swap_blocks != 0 and self.gradient_checkpointing != "all":
            raise ValueError(
                'swap_blocks needs gradient_checkpointing = "all", because whatever else is kept for the backward pass keeps weights of'
                ' the block where it computes; set gradient_checkpointing = "all" or remove swap_blocks'
            )
        return self
