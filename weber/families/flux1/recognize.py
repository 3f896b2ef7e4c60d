"""Which of the FLUX.1 models some files are, and whether they are the one that was named."""

from __future__ import annotations

from weber.errors import ModelError
from weber.families.flux1 import original
from weber.families.flux1.variants import VARIANTS, Variant
from weber.families.source import Source
from weber.families.weights import read_part_config


def recognize_variant(source: Source) -> Variant:
    """Of the rows with these inputs the one whose home this is; else the one of this pipeline's class, or of this width of the text.

    Raises ModelError where no row has these inputs.
    """
    config = read_part_config(source, "transformer", original=original.TRANSFORMER)
    pipeline = (source.read_config("", "model_index.json") or {}).get("_class_name", "FluxPipeline")
    text_width = config.get("joint_attention_dim", 4096)

    def rate(row: Variant) -> tuple[bool, ...]:
        is_home = row.home.casefold() == source.path.casefold()
        return is_home, not row.is_twin, row.pipeline == pipeline, row.text_width == text_width

    fitting = [row for row in VARIANTS if _read_inputs(config) == (row.in_channels, row.has_guidance)]
    if not fitting:
        raise _refuse_inputs(config)
    return max(fitting, key=rate)


def check_pipeline(source: Source, variant: Variant) -> None:
    """Raise ModelError where the model's own index says that it is painted with another variant's pipeline."""
    pipeline = (source.read_config("", "model_index.json") or {}).get("_class_name", variant.pipeline)
    others = [row.name for row in VARIANTS if row.pipeline == pipeline]
    if pipeline not in (variant.pipeline, Variant.pipeline) and others:
        raise ModelError(
            f"The model is not what model.variant = {variant.name!r} says.",
            got=f"_class_name = {pipeline!r} in its model_index.json",
            expected=f"{variant.pipeline} for {variant.name}",
            fix=f"set model.variant to {' or '.join(others)}, or leave it out",
        )


def check_transformer(config: dict[str, object], variant: Variant) -> None:
    """Raise ModelError where the transformer's inputs are not those of the variant."""
    channels, has_guidance = _read_inputs(config)
    if (channels, has_guidance) == (variant.in_channels, variant.has_guidance):
        return
    fitting = ", ".join(row.name for row in VARIANTS if (channels, has_guidance) == (row.in_channels, row.has_guidance))
    if not fitting:
        raise _refuse_inputs(config)
    raise ModelError(
        f"The model is not what model.variant = {variant.name!r} says.",
        got=f"guidance_embeds = {has_guidance}, in_channels = {channels} in the transformer",
        expected=f"guidance_embeds = {variant.has_guidance}, in_channels = {variant.in_channels} for {variant.name}",
        fix=f"set model.variant to one of {fitting}, or leave it out",
    )


def _read_inputs(config: dict[str, object]) -> tuple[object, bool]:
    """Input channels, and whether there is a guidance input; what the file leaves out is the library's default."""
    return config.get("in_channels", 64), bool(config.get("guidance_embeds", False))


def _refuse_inputs(config: dict[str, object]) -> ModelError:
    channels, has_guidance = _read_inputs(config)
    known: dict[tuple[int, bool], list[str]] = {}
    for row in VARIANTS:
        known.setdefault((row.in_channels, row.has_guidance), []).append(row.name)
    return ModelError(
        "This FLUX.1 model takes other inputs than those that weber trains.",
        got=f"in_channels = {channels}, guidance_embeds = {has_guidance} in the transformer",
        expected="; ".join(f"{number}, {embeds} ({', '.join(names)})" for (number, embeds), names in known.items()),
        fix="choose such a model as model.path",
    )
