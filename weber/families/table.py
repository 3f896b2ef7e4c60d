"""The families and their variants. A new family is a folder and a row here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from weber.config.model import ModelConfig
from weber.config.near import find_near
from weber.errors import ConfigError, ModelError
from weber.families.complete import check_complete
from weber.families.family import Family
from weber.families.flux1 import components as flux1
from weber.families.flux1 import original as flux1_original
from weber.families.flux1.keys import ADAPTER_TARGETS as FLUX1_TARGETS
from weber.families.flux1.keys import PAIRINGS as FLUX1_PAIRINGS
from weber.families.flux1.variants import VARIANTS as FLUX1_VARIANTS
from weber.families.flux2 import components as flux2
from weber.families.flux2 import original as flux2_original
from weber.families.flux2.keys import ADAPTER_TARGETS as FLUX2_TARGETS
from weber.families.flux2.keys import PAIRINGS as FLUX2_PAIRINGS
from weber.families.flux2.variants import VARIANTS as FLUX2_VARIANTS
from weber.families.flux3 import components as flux3
from weber.families.flux3 import original as flux3_original
from weber.families.flux3.keys import ADAPTER_TARGETS as FLUX3_TARGETS
from weber.families.flux3.keys import PAIRINGS as FLUX3_PAIRINGS
from weber.families.flux3.variants import VARIANTS as FLUX3_VARIANTS
from weber.families.license import License
from weber.families.pairing import Pairing
from weber.families.source import Source, StandIn, has_weights
from weber.families.tensors import Weights
from weber.families.weights import Original, build_skeleton, check_content, open_original, open_part, read_part_config

_NUM_NEAR = 3


class Build(Protocol):
    """Builds the family of a model from its parts; with `hides_padding`, it does not look at the padding behind its prompts, and with
    `text_tokens` it sees only so many tokens of a text.

    Raises ConfigError where that cannot act, ModelError for files that cannot be used.
    """

    def __call__(
        self, source: Source, variant: str | None, *, hides_padding: bool = False, text_tokens: int | None = None
    ) -> Family:
        """The model at `source`; a variant left out is recognized from its files."""
        ...


@dataclass(frozen=True)
class FamilyRow:
    """How a family is recognized and built.

    `variants` maps names to (hub id or folder, summary), `licenses` to what each may be used under, `targets` names to patterns of
    modules. `pairings` are the names of the makers' files. `recognize` gets a single file's tensors without prefixes. `originals` has all
    parts of the family's models, each with what it may be in a single file; where that is nothing, the part is read from folders only.
    """

    transformer_class: str
    variants: dict[str, tuple[str, str]]
    licenses: Mapping[str, License]
    targets: Mapping[str, Sequence[str]]
    build: Build
    pairings: Sequence[Pairing]
    recognize: Callable[[Weights], bool]
    originals: Mapping[str, tuple[Original, ...]]


FAMILIES = (
    FamilyRow(
        transformer_class=flux1.TRANSFORMER_CLASS,
        variants={row.name: (row.home, row.summary) for row in FLUX1_VARIANTS},
        licenses={row.name: row.license for row in FLUX1_VARIANTS},
        targets=FLUX1_TARGETS,
        build=flux1.build_flux1,
        pairings=FLUX1_PAIRINGS,
        recognize=flux1_original.is_flux1,
        originals={
            "transformer": (flux1_original.TRANSFORMER,),
            "vae": (flux1_original.VAE,),
            "text_encoder": (flux1_original.CLIP,),
            "text_encoder_2": (flux1_original.T5,),
            "tokenizer": (),
            "tokenizer_2": (),
        },
    ),
    FamilyRow(
        transformer_class=flux2.TRANSFORMER_CLASS,
        variants={row.name: (row.home, row.summary) for row in FLUX2_VARIANTS},
        licenses={row.name: row.license for row in FLUX2_VARIANTS},
        targets=FLUX2_TARGETS,
        build=flux2.build_flux2,
        pairings=FLUX2_PAIRINGS,
        recognize=flux2_original.is_flux2,
        originals={
            "transformer": (flux2_original.TRANSFORMER,),
            "vae": (flux2_original.VAE,),
            "text_encoder": (flux2_original.MISTRAL, flux2_original.QWEN),
            "tokenizer": (),
        },
    ),
    FamilyRow(
        transformer_class=flux3.TRANSFORMER_CLASS,
        variants={row.name: (row.home, row.summary) for row in FLUX3_VARIANTS},
        licenses={row.name: row.license for row in FLUX3_VARIANTS},
        targets=FLUX3_TARGETS,
        build=flux3.build_flux3,
        pairings=FLUX3_PAIRINGS,
        recognize=flux3_original.is_flux3,
        originals={"transformer": (flux3_original.TRANSFORMER,), "vae": (), "text_encoder": (), "tokenizer": ()},
    ),
)


@dataclass(frozen=True)
class Transformer:
    """The transformer of a model alone, as files; `config` is the library's."""

    row: FamilyRow
    config: dict[str, object]
    weights: Weights


def open_transformer(config: ModelConfig) -> Transformer:
    """The transformer of a model, for work on files: other parts need not be there, and no weights are read. Raises as `build_family`."""
    import diffusers

    source, _ = _build_source(config)
    row = _recognize(source)
    [original] = row.originals["transformer"]
    facts = read_part_config(source, "transformer", original=original) | {"_class_name": row.transformer_class}
    weights = open_part(source.find("transformer"), original)
    skeleton = build_skeleton(getattr(diffusers, row.transformer_class), facts)
    check_complete(weights, skeleton, where=source.name_part("transformer"), exactly=True)
    return Transformer(row, facts, weights)


def build_family(config: ModelConfig, *, hides_padding: bool = False, stand_in: StandIn | None = None) -> Family:
    """The family of a model, from configuration files and headers only. Raises ConfigError or ModelError in words.

    With `hides_padding` it does not look at the padding behind its prompts (`objective.text_mask`).
    The transformer says which family it is, and its files or `variant` which variant; parts that were not given come from its home, or
    from what `stand_in` gives in its place.
    """
    source, variant = _build_source(config, stand_in)
    row = _recognize(source)
    if variant is not None and variant not in row.variants:
        raise ConfigError(
            f"The model is not what model.variant = {variant!r} says.",
            got=f"{source.name_part('transformer')}, which is a {row.transformer_class}",
            expected=", ".join(row.variants),
            fix="set model.variant to one of these, or leave it out",
        )
    source = source.with_parts(tuple(row.originals))
    for part in source.list_given():
        source.check_part(part)
        if not part.startswith("tokenizer") and has_weights(source, part):
            check_content(source, part, originals=row.originals[part])
    return row.build(source, variant, hides_padding=hides_padding, text_tokens=config.text_tokens)


def _build_source(config: ModelConfig, stand_in: StandIn | None = None) -> tuple[Source, str | None]:
    """Where a model's parts are, and the variant that was asked for: where no place is given, the table's first."""
    homes = {name: home for row in FAMILIES for name, (home, _) in row.variants.items()}
    _check_variant(config.variant, homes)
    own = {
        "transformer": config.transformer,
        "vae": config.vae,
        "text_encoder": config.text_encoder,
        "text_encoder_2": config.text_encoder_2,
        "tokenizer_path": config.tokenizer_path,
    }
    given, has_texts = {name: text for name, text in own.items() if text is not None}, config.text_encoder_url is None
    source = Source(config.path, config.revision, own=given, stand_in=stand_in, has_texts=has_texts)
    variant = config.variant
    if config.path is None and config.transformer is None:
        variant = variant or next(iter(homes))
        source = source.with_home(homes[variant])
    return source, variant


def _check_variant(name: str | None, homes: Mapping[str, str]) -> None:
    if name is not None and name not in homes:
        near = list_near_variants(name)
        is_place = "/" in name or name.endswith(".safetensors")
        other = f"write model.path = {name!r}" if is_place else "run `weber variants`, which says what each is"
        raise ConfigError(
            "There is no such model variant.",
            got=f"model.variant = {name!r}",
            expected=", ".join(homes),
            fix=f"did you mean {' or '.join(map(repr, near))}?" if near else other,
        )


def list_near_variants(text: str) -> list[str]:
    """The variants that another name for a model may mean: those that have all of its words and the fewest others; else a misspelled one.

    None where many have: the name of a family is no model.
    """
    known = {name: (name, home.rpartition("/")[2]) for row in FAMILIES for name, (home, _) in row.variants.items()}
    words = _split_words(text.rpartition("/")[2])
    surplus: dict[str, int] = {}
    for name, titles in known.items():
        sizes = [len(_split_words(title)) - len(words) for title in titles if words and words <= _split_words(title)]
        surplus |= {name: min(sizes)} if sizes else {}
    meant = [name for name, size in surplus.items() if size == min(surplus.values())]
    near = find_near(text, known)
    return meant if 0 < len(meant) <= _NUM_NEAR else [near] if near is not None and not meant else []


def _split_words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\d+b|[a-z]+|\d+", text.lower()))


def _recognize(source: Source) -> FamilyRow:
    source.check_part("transformer")
    if source.is_single("transformer"):
        originals = {original: row for row in FAMILIES for original in row.originals["transformer"]}
        weights = open_original(source.find("transformer"), list(originals), what=source.name_part("transformer"))
        return next(row for row in FAMILIES if row.recognize(weights))
    class_name = (source.read_config("transformer") or {}).get("_class_name")
    for row in FAMILIES:
        if row.transformer_class == class_name:
            return row
    raise ModelError(
        "The model is of a family that weber does not train.",
        got=f"_class_name = {class_name!r} in the config.json of {source.name_part('transformer')}",
        expected=", ".join(row.transformer_class for row in FAMILIES),
        fix=f"choose another {source.name_part('transformer').partition(' ')[0]}",
    )
