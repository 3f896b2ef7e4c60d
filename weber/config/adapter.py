"""`[adapter]`: which numbers learn."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from weber.config.lycoris import LycorisConfig
from weber.config.optim import Rate
from weber.config.section import PathText, Section

SHIFTED_STARTS = ("pissa", "olora", "loftq")
"""Starts at which the adapter is not zero: what it starts with is taken away again beside it, and from the saved file."""


_SEPARATORS = re.compile(r"[,;\s]+(?![^\[]*\])")
"""What is in no name of a layer, but within brackets, where it is one of several characters."""


class RuleConfig(Section):
    """Layers with a rank, alpha or learning rate of their own."""

    match: str
    """Which of the targets: a pattern as in `targets`."""

    rank: Annotated[int, Field(ge=1)] | None = None
    """Their rank."""

    alpha: Annotated[float, Field(gt=0)] | None = None
    """Their alpha. Left out: as `adapter.alpha`, or equal to their rank where that is left out too."""

    lr: Rate | None = None
    """Their learning rate after warm-up, in place of `optim.lr`; it follows the same schedule."""

    @model_validator(mode="after")
    def _refuse_what_cannot_act(self) -> RuleConfig:
        if _SEPARATORS.search(self.match):
            raise ValueError(f'match = "{self.match}" holds several names; write a rule for each, under its own [[adapter.rules]]')
        if self.rank is None and self.alpha is None and self.lr is None:
            raise ValueError(f'the rule for match = "{self.match}" says nothing; set rank, alpha or lr in it, or remove it')
        return self


class AdapterConfig(Section):
    """Which numbers learn."""

    kind: Literal["lora", "lycoris", "full"] = "lora"
    """What is trained. `lora`: low-rank adapters; their weights are fp32 whatever the base model's precision. `lycoris`: LoKr, LoHa
    and other forms, by `[adapter.lycoris]`. `full`: the weights of the transformer themselves, all or those that `targets` names."""

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

    exclude: list[str] = []
    """Patterns of layers that `targets` means and that get no adapter all the same."""

    blocks: list[str] = []
    """Only layers in these blocks get an adapter: names with numbers or ranges, such as `transformer_blocks.0-9` or
    `single_transformer_blocks.7,20`; a name without numbers is all blocks of that kind. Empty: all."""

    rules: list[RuleConfig] = []
    """Rank, alpha and learning rate of single layers, each under its own `[[adapter.rules]]`; of several rules that match, the last
    one that sets a value counts. `weber plan` shows the outcome."""

    init: Literal["default", "gaussian", "orthogonal", "pissa", "olora", "loftq", "eva"] = "default"
    """How adapters start. `default`: A is drawn from a Kaiming uniform distribution, B is zero; `gaussian`: A from a normal one;
    `orthogonal`: both orthogonal, their product zero; `pissa`, `olora`: the main directions of the layer itself; `loftq`: those of what
    quantization has taken away; `eva`: those of the layer's inputs, seen on the first pictures. Where the start is not zero it is taken
    away beside the adapter and in the saved file, whose rank is twice as high; so it always fits the original model. `loftq` is trained
    on the quantized model with that start, so its file fits the original one but for what quantization took beyond the rank."""

    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank, for high ranks (Kalajdzievski 2023)."""

    dora: bool = False
    """Learn a length for each output too (DoRA, Liu et al. 2024). More memory and time; only the `diffusers` layout carries it."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of trained weights, for `kind = "full"`. `fp32`: with `memory.dtype = "bf16"` they are rounded for each use; `bf16`:
    half the memory, for optimizers that round stochastically; `auto`: as `memory.dtype`."""

    compute: Literal["auto", "fp32"] = "auto"
    """Precision in which adapters compute; their weights are fp32 all the same, and so are their gradients. `auto`: the model's, in
    blocks that weber runs itself, but fp32 where they do not start at zero; `fp32`: everywhere, as PEFT does it: more memory and time."""

    start_from: PathText | None = None
    """An adapter file to start from, in any layout that weber writes (diffusers, kohya, ComfyUI). Ranks may be lower than `rank`;
    layers that it lacks start at zero."""

    resize_start: bool = False
    """Cut an adapter of a higher rank to `rank`: the largest directions stay. Otherwise it is refused."""

    text_encoder: bool = False
    """Train adapters on CLIP too, of models that have it, with the rate `optim.text_encoder_lr`."""

    text_encoder_rank: Annotated[int, Field(ge=1)] | None = None
    """Rank of the adapters on CLIP. Left out: as `rank`."""

    lycoris: LycorisConfig | None = None
    """What LyCORIS is to do, for `kind = "lycoris"`: a table `[adapter.lycoris]`, or the path of a `lycoris_config.json`."""

    @field_validator("targets", "exclude")
    @classmethod
    def _refuse_joined(cls, value: str | list[str] | None) -> str | list[str] | None:
        names = [value] if isinstance(value, str) else value or []
        parts = [part for name in names for part in _SEPARATORS.split(name.strip("[] ")) if part]
        if any(_SEPARATORS.search(name) for name in names):
            listed = ", ".join(f'"{part}"' for part in parts)
            raise ValueError(f"several names stand in one text; write each as a text of its own: [{listed}]")
        return value

    @field_validator("kind", mode="before")
    @classmethod
    def _refuse_forms(cls, value: object) -> object:
        if isinstance(value, str) and value.lower() in (*get_args(LycorisConfig.model_fields["algo"].annotation), "dora"):
            form = value.lower()
            if form == "dora":
                raise ValueError('"dora" is a LoRA that also learns lengths; write kind = "lora" and dora = true')
            if form not in ("lora", "full"):
                raise ValueError(f'"{value}" is a form of LyCORIS; write kind = "lycoris", and algo = "{form}" under [adapter.lycoris]')
        return value

    @model_validator(mode="after")
    def _refuse_what_cannot_act(self) -> AdapterConfig:
        if self.kind == "full":
            self._refuse_changed(_ADAPTER_ONLY, 'kind = "full", which trains the weights themselves')
        elif self.precision != "auto":
            raise ValueError(f'precision = "{self.precision}" is for kind = "full"; the weights of adapters are always fp32; remove it')
        if self.kind == "lycoris":
            self._refuse_changed(_LORA_ONLY, 'kind = "lycoris", whose sizes stand in [adapter.lycoris]')
            if self.lycoris is None:
                raise ValueError('kind = "lycoris" needs lycoris; write a table [adapter.lycoris] with algo = "lokr"')
            if self.lycoris.apply_preset is not None:
                self._refuse_changed(_CHOICES, "lycoris.apply_preset, which says which layers change")
        elif self.lycoris is not None:
            raise ValueError(f'lycoris has no effect with kind = "{self.kind}"; set kind = "lycoris" or remove it')
        if self.resize_start and self.start_from is None:
            raise ValueError("resize_start has no effect without start_from; remove it")
        if self.init != "default" and self.start_from is not None:
            raise ValueError(f'init = "{self.init}" cannot act with start_from, which is where the adapter starts; remove one of them')
        if self.init in SHIFTED_STARTS and self.dora:
            raise ValueError(f'init = "{self.init}" cannot act with dora, whose lengths are those of the model itself; remove one')
        if self.text_encoder and self.dora:
            raise ValueError("dora cannot act with text_encoder, because readers of both parts do not agree on it; remove one of them")
        if self.text_encoder and self.init not in _TEXT_STARTS:
            raise ValueError(
                f'init = "{self.init}" is known for the transformer alone; with text_encoder set init to one of {", ".join(_TEXT_STARTS)}'
            )
        if self.text_encoder_rank is not None and not self.text_encoder:
            raise ValueError("text_encoder_rank has no effect without text_encoder; set text_encoder = true or remove it")
        return self

    def _refuse_changed(self, names: tuple[str, ...], why: str) -> None:
        defaults = {name: AdapterConfig.model_fields[name].default for name in names}
        changed = [name for name in names if getattr(self, name) != defaults[name]]
        if changed:
            raise ValueError(f"{', '.join(changed)} cannot act with {why}; remove {'it' if len(changed) == 1 else 'them'}")

    @property
    def chosen_targets(self) -> str | list[str]:
        """`targets`, or what is meant where it is left out."""
        return self.targets if self.targets is not None else "all" if self.kind == "full" else "blocks"

    @property
    def has_dropout(self) -> bool:
        """Whether anything is drawn in a forward pass while training."""
        return self.dropout > 0 or (self.lycoris is not None and self.lycoris.has_dropout)

    @property
    def form(self) -> str:
        """What is trained, by the name that people know: `lora`, `full`, or the algorithm of LyCORIS."""
        return self.lycoris.algo if self.lycoris is not None else self.kind


_TEXT_STARTS = ("default", "gaussian", "orthogonal")
"""Starts that need to know nothing of a layer."""
_LORA_ONLY = ("rank", "alpha", "dropout", "rules", "init", "rslora", "dora", "compute", "resize_start", "text_encoder", "text_encoder_rank")
_CHOICES = ("targets", "exclude", "blocks")
_ADAPTER_ONLY = (*_LORA_ONLY, "exclude", "blocks", "start_from")
