"""`[adapter]`: which numbers learn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from weber.config.section import PathText, Section


class AdapterConfig(Section):
    """Which numbers learn."""

    kind: Literal["lora", "full"] = "lora"
    """What is trained. `lora`: low-rank adapters; their weights are fp32 whatever the base model's precision. `full`: the weights of the
    transformer themselves, all or those that `targets` names."""

    rank: Annotated[int, Field(ge=1)] = 16
    """Rank of the adapters."""

    alpha: Annotated[float, Field(gt=0)] | None = None
    """Scale of the adapters: their output is multiplied by alpha / rank. Left out: equal to `rank`, so a factor of 1."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that an input of an adapter is dropped while training."""

    targets: str | list[str] | None = None
    """Which linear layers get an adapter. The name of a set (`weber variants` lists them), or a list of patterns; a pattern is the
    end of a module's name (`attn.to_q`) or holds `*` for any text (`single_transformer_blocks.*.proj_out`). Left out: `blocks`, attention
    and feed-forward of every block, which every file layout can carry. With `kind = "full"`: the modules whose weights are trained, also
    whole blocks (`single_transformer_blocks.*`); left out: `all`."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of trained weights, for `kind = "full"`. `fp32`: with `memory.dtype = "bf16"` they are rounded for each use; `bf16`:
    half the memory, for optimizers that round stochastically; `auto`: as `memory.dtype`."""

    start_from: PathText | None = None
    """An adapter file to start from, in any layout that weber writes (diffusers, kohya, ComfyUI). Ranks may be lower than `rank`;
    layers that it lacks start at zero."""

    @model_validator(mode="after")
    def _refuse_what_cannot_act(self) -> AdapterConfig:
        if self.kind == "full":
            defaults = {"rank": 16, "alpha": None, "dropout": 0.0, "start_from": None}
            changed = [f"{name} = {getattr(self, name)}" for name, default in defaults.items() if getattr(self, name) != default]
            if changed:
                raise ValueError(f'{", ".join(changed)} has no effect with kind = "full", which trains the weights themselves; remove it')
        elif self.precision != "auto":
            raise ValueError(f'precision = "{self.precision}" is for kind = "full"; the weights of a LoRA are always fp32; remove it')
        return self

    @property
    def chosen_targets(self) -> str | list[str]:
        """`targets`, or what is meant where it is left out."""
        return self.targets if self.targets is not None else "blocks" if self.kind == "lora" else "all"
