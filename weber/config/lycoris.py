"""`[adapter.lycoris]`: the names of LyCORIS itself, so that a `lycoris_config.json` is read as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from weber.config.section import Section
from weber.errors import ConfigError

_NUM_SHOWN = 60
_SUMS = ("lora", "locon", "loha", "lokr")
_TURNS = ("diag-oft", "boft")

ACTS: Mapping[str, tuple[str, ...]] = {
    "dim": (*_SUMS, *_TURNS, "glora"),
    "alpha": (*_SUMS, "glora"),
    "factor": ("lokr",),
    "full_matrix": ("lokr",),
    "decompose_both": ("lokr",),
    "unbalanced_factorization": ("lokr",),
    "bypass_mode": ("lora", "locon", "lokr"),
    "weight_decompose": _SUMS,
    "wd_on_out": _SUMS,
    "constraint": _TURNS,
    "rescaled": _TURNS,
    "dropout": (*_SUMS, "full"),
    "rank_dropout": (*_SUMS, "full"),
}
"""Setting of a layer -> the forms in which it acts."""

_NAMES = {"linear_dim": "dim", "linear_alpha": "alpha", "dora_wd": "weight_decompose", "wd_on_output": "wd_on_out"}
"""What LyCORIS calls the same setting at the top and in a map."""

_TOP_NAMES = {"rank": "linear_dim"} | {inner: outer for outer, inner in _NAMES.items()}
"""What may be written for the name at the top by mistake."""

_REFUSED = {
    "ia3": "no program reads its files, LyCORIS itself included",
    "dylora": "it draws a rank in each pass, which checkpointing would draw anew, and its files mean another scale than it trained with",
    "tlora": "its files hold half of the change; the rest is a decomposition of the model that must come out the same where they are read",
}
"""Forms of LyCORIS 4.1 that are not trained -> why."""

_IDLE = {
    "block_size": "is for dylora, which is not trained",
    "conv_dim": "is for convolutions, which the model does not have",
    "conv_alpha": "is for convolutions, which the model does not have",
    "tlora_min_rank": "is for tlora, which is not trained",
    "tlora_alpha": "is for tlora, which is not trained",
}
"""Keys of LyCORIS that cannot act here -> why."""


class LycorisLayer(Section):
    """What becomes of one layer: an entry of a map with everything filled in, by the names that LyCORIS has there."""

    algo: Literal["lora", "locon", "loha", "lokr", "full", "diag-oft", "boft", "glora"] = "lokr"
    """The form of the change."""

    dim: Annotated[int, Field(ge=1)] = 16
    """Rank, or the largest size of a block."""

    alpha: Annotated[float, Field(ge=0)] = 1.0
    """Scale."""

    factor: Annotated[int, Field(ge=-1)] = -1
    """Size of the first factor."""

    full_matrix: bool = False
    """Both factors whole."""

    decompose_both: bool = False
    """The first factor of low rank too."""

    unbalanced_factorization: bool = False
    """The larger part of the outputs in the first factor."""

    bypass_mode: bool | None = None
    """Whether the change is applied to the input without being built."""

    weight_decompose: bool = False
    """DoRA."""

    wd_on_out: bool = True
    """A length for each output, or for each input."""

    constraint: Annotated[float, Field(ge=0)] = 0.0
    """Largest turn."""

    rescaled: bool = False
    """A factor for each output."""

    @field_validator("algo", mode="before")
    @classmethod
    def _refuse_algo(cls, value: object) -> object:
        return _read_algo(value)

    @model_validator(mode="after")
    def _refuse_what_cannot_act(self) -> LycorisLayer:
        for name in self.model_fields_set & ACTS.keys():
            is_sizes = name == "dim" and self.algo == "full"  # which files of other trainers have all the same
            if self.algo not in ACTS[name] and getattr(self, name) != LycorisLayer.model_fields[name].default and not is_sizes:
                raise ValueError(f'{name} has no effect with algo = "{self.algo}"; remove it')
        if self.full_matrix and self.decompose_both:
            raise ValueError("decompose_both has no effect with full_matrix; remove one of them")
        if self.weight_decompose and self.bypass_mode:
            raise ValueError("bypass_mode cannot act with weight decomposition (DoRA), which needs the changed weight; remove bypass_mode")
        if not self.wd_on_out and not self.weight_decompose:
            raise ValueError("wd_on_out has no effect without weight decomposition (DoRA); remove it")
        return self


class LycorisPreset(Section):
    """Which layers LyCORIS changes, and how."""

    target_module: list[str] | None = None
    """Classes of modules: all linear layers in them. A name that no class has means those that end in it: `Attention`, `FeedForward`.
    Left out: all linear layers; empty: only those named by `target_name` and the maps."""

    target_name: list[str] = []
    """Names of layers: a regular expression for the start of a name."""

    module_algo_map: dict[str, dict[str, Any]] = {}
    """Class of modules -> settings of its own, such as `{factor = 8}`: algo, dim, alpha, factor, full_matrix, decompose_both, ..."""

    name_algo_map: dict[str, dict[str, Any]] = {}
    """Name of layers, as in `target_name` -> settings of its own."""

    use_fnmatch: bool = False
    """Names are patterns with `*` for the whole name instead of regular expressions for its start."""

    exclude_name: list[str] = []
    """Names of layers or modules that stay as they are."""

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """The settings of both maps, by the key at which they stand."""
        maps = {"module_algo_map": self.module_algo_map, "name_algo_map": self.name_algo_map}
        return {f"{name}.{key}": entry for name, one in maps.items() for key, entry in one.items()}

    @model_validator(mode="after")
    def _refuse_nothing(self) -> LycorisPreset:
        if self.target_module == [] and not (self.target_name or self.entries):
            raise ValueError("apply_preset names no layers; set target_module or target_name, or remove it")
        if self.target_module is None and self.target_name:
            raise ValueError(
                "target_name without target_module changes all linear layers in LyCORIS, whatever the names; set target_module = []"
                " for these names only"
            )
        for pattern in () if self.use_fnmatch else (*self.target_name, *self.name_algo_map, *self.exclude_name):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression ({error}); correct it, or set use_fnmatch = true") from error
        return self


class LycorisConfig(Section):
    """What LyCORIS is to do."""

    algo: Literal["lora", "locon", "loha", "lokr", "full", "diag-oft", "boft", "glora"] = "lokr"
    """The form of the change. `lokr`: a Kronecker product; `loha`: a Hadamard product; `lora` or `locon`: as a LoRA; `full`: whole
    matrices; `diag-oft`, `boft`: turns of the outputs; `glora`: a LoRA of the weight and of its inputs."""

    multiplier: float = 1.0
    """Strength while training; only 1, since a file does not say it: scale with `linear_alpha`."""

    linear_dim: Annotated[int, Field(ge=1)] = 16
    """Rank; for `lokr` a large one (10000) keeps the second factor whole; for `diag-oft` and `boft` the largest size of a block. No effect
    with `full` or `full_matrix`, where files of other trainers have it all the same."""

    linear_alpha: Annotated[float, Field(ge=0)] = 1.0
    """Scale: the change is multiplied by alpha / rank; 0: by 1. No effect on a `lokr` whose factors are both whole."""

    factor: Annotated[int, Field(ge=-1)] = -1
    """For `lokr`: the size of the first factor; -1: as near to a square as can be."""

    full_matrix: bool = False
    """For `lokr`: both factors are whole, whatever `linear_dim` is."""

    decompose_both: bool = False
    """For `lokr`: the first factor is of low rank too, where that is smaller."""

    unbalanced_factorization: bool = False
    """For `lokr`: the larger part of the outputs goes to the first factor. LyCORIS itself does not read such files; ComfyUI does."""

    bypass_mode: bool | None = None
    """For `lora` and `lokr`: apply the factors to the input and never build the change, which is cheaper. Left out: yes, unless `dora_wd`.
    `false`: build it in fp32 for each pass."""

    dora_wd: bool = False
    """Learn the lengths of the weight's rows too (DoRA). Builds the changed weight in fp32 for each pass: slow. ComfyUI understands such
    files differently."""

    wd_on_output: bool = True
    """With `dora_wd`: a length for each output; `false`: for each input, which ComfyUI reads right and LyCORIS itself not."""

    constraint: Annotated[float, Field(ge=0)] = 0.0
    """For `diag-oft`, `boft`: the largest turn, times the number of outputs; 0: none. ComfyUI understands it differently."""

    rescaled: bool = False
    """For `diag-oft`, `boft`: a factor for each output. ComfyUI reads it with `boft` only."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a number of what the change adds to an output is dropped while training."""

    rank_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a rank (`lora` that is not built) or a row of the change (others) is dropped while training."""

    module_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a layer is left as it was while training."""

    use_tucker: bool = False
    """Only false: it is for convolutions."""

    use_scalar: bool = False
    """Only false: a file holds factors already multiplied with it, so that no run could go on exactly."""

    train_norm: bool = False
    """Only false: LyCORIS cannot change the norms of these models."""

    apply_preset: LycorisPreset | None = None
    """Which layers, and settings of some of them, by the names of LyCORIS. Left out: those of `adapter.targets`."""

    @field_validator("algo", mode="before")
    @classmethod
    def _refuse_algo(cls, value: object) -> object:
        return _read_algo(value)

    @model_validator(mode="before")
    @classmethod
    def _refuse_idle(cls, value: object) -> object:
        for name in value if isinstance(value, Mapping) else ():
            if name in _IDLE:
                raise ValueError(f"{name} {_IDLE[name]}; remove it")
            if name in _TOP_NAMES:
                raise ValueError(f"{name} is called {_TOP_NAMES[name]} here; rename it")
        return value

    @model_validator(mode="after")
    def _refuse_what_cannot_act(self) -> LycorisConfig:
        if self.multiplier != 1:
            raise ValueError(f"multiplier = {self.multiplier} is not in the file, which would act differently; set linear_alpha instead")
        if self.use_tucker:
            raise ValueError("use_tucker is for convolutions, which the model does not have; remove it")
        if self.use_scalar:
            raise ValueError("use_scalar is not in the file, which holds factors multiplied with it: no run could go on from it; remove it")
        if self.train_norm:
            raise ValueError("train_norm cannot act: the norms of the model are of a kind that LyCORIS does not change; remove it")
        _check(self.list_own(), "")
        for key, entry in ({} if self.apply_preset is None else self.apply_preset.entries).items():
            _check(self.list_inherited(entry) | entry, f"apply_preset.{key}: ")
        forms = {self.algo, *(one.algo for one in self.build_layers().values())}
        for name in ("dropout", "rank_dropout"):
            if getattr(self, name) > 0 and not forms & set(ACTS[name]):
                raise ValueError(f'{name} has no effect with algo = "{self.algo}"; remove it')
            if getattr(self, name) > 0 and any(one.weight_decompose for one in self.build_layers().values()):
                raise ValueError(f"{name} cannot act with DoRA, whose change is no sum; set module_dropout instead, or remove it")
        return self

    @property
    def has_dropout(self) -> bool:
        """Whether anything is drawn while training."""
        return max(self.dropout, self.rank_dropout, self.module_dropout) > 0

    def build_layers(self) -> dict[str, LycorisLayer]:
        """What becomes of layers: under the key of the entry of a map that means them, others under an empty key."""
        entries = {} if self.apply_preset is None else self.apply_preset.entries
        layers = {key: LycorisLayer.model_validate(self.list_inherited(entry) | entry) for key, entry in entries.items()}
        return {"": LycorisLayer.model_validate(self.list_own()), **layers}

    def list_own(self) -> dict[str, Any]:
        """The settings of a layer without an entry of its own, as far as they were set."""
        set_here = {_NAMES.get(name, name): getattr(self, name) for name in self.model_fields_set}
        return {name: value for name, value in set_here.items() if name in LycorisLayer.model_fields}

    def list_inherited(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """The same for a layer with an entry; what has no effect in its form stays behind."""
        algo = entry.get("algo", self.algo)
        return {name: value for name, value in self.list_own().items() if algo in ACTS.get(name, (algo,))}


def read_lycoris_file(path: Path) -> dict[str, object]:
    """The table that a `lycoris_config.json` holds, unchecked; what is null there is left out. Raises ConfigError."""
    key = f"adapter.lycoris = {str(path)!r}"
    if not path.is_file():
        raise ConfigError(
            "There is no such file of LyCORIS settings.",
            got=key,
            expected="a table [adapter.lycoris], or the path of a lycoris_config.json",
            fix="check the path; it is relative to the folder you are in",
        )
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ConfigError(
            "The file of LyCORIS settings is not JSON.",
            got=f"{key}: {error}",
            expected='{"algo": "lokr", ...} in UTF-8',
            fix="correct it, or save it as UTF-8",
        ) from error
    if not isinstance(table, dict):
        raise ConfigError(
            "The file of LyCORIS settings holds no settings.",
            got=f"{key} with {json.dumps(table)[:_NUM_SHOWN]}",
            expected='{"algo": "lokr", ...}',
            fix="write the settings in braces, by their names",
        )
    return {name: value for name, value in table.items() if value is not None}


def _read_algo(value: object) -> object:
    if isinstance(value, str) and value in _REFUSED:
        raise ValueError(f'algo = "{value}" is not trained: {_REFUSED[value]}; use lokr, loha, locon, full, diag-oft, boft or glora')
    return value


def _check(settings: Mapping[str, Any], where: str) -> None:
    """Raise ValueError where the settings of a layer cannot be, by the names that were written; those at the top have no `where`."""
    try:
        LycorisLayer.model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "value_error":
            message = str(first["ctx"]["error"])
        elif name in _NAMES:
            message = f"{name} is called {_NAMES[name]} here; rename it"
        elif first["type"] == "extra_forbidden":
            message = f"{name} is not a setting of a layer, as {', '.join(LycorisLayer.model_fields)} are; remove it"
        else:
            message = f"{name} = {first['input']!r} is refused: {first['msg']}; correct or remove it"
        word, _, rest = message.partition(" ")
        raise ValueError(where + (f"{_TOP_NAMES[word]} {rest}" if not where and word in _TOP_NAMES else message)) from error
