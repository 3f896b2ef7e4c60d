"""What SimpleTuner really does with some settings, without a word: a row each, where a file asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from weber.config.importers.draft import Keys
from weber.config.importers.simpletuner.captions import find_captions, read_kind
from weber.config.importers.simpletuner.data import Entry
from weber.config.importers.simpletuner.facts import has_pictures, is_flux2, is_lycoris, is_quantized, is_standard, read_precision
from weber.config.importers.simpletuner.objective import find_law
from weber.config.importers.simpletuner.optim import count_wave, find_rate
from weber.config.importers.simpletuner.sets import find_shape, find_unit, is_cropped
from weber.config.importers.values import simplify

Row = tuple[Callable[[Keys], bool], str | Callable[[Keys], str]]


def _has_scale(keys: Keys) -> bool:
    rank, alpha = keys.read_float("lora_rank"), keys.read_float("lora_alpha")
    return is_standard(keys) and alpha is not None and rank is not None and alpha != rank


def _describe_scale(keys: Keys) -> str:
    rank, alpha = keys.read_float("lora_rank") or 1.0, keys.read_float("lora_alpha") or 1.0
    return (
        f"the output of the adapter was multiplied by alpha / rank = {simplify(alpha)} / {simplify(rank)} = {alpha / rank:g}, on top of the"
        f" learning rate {find_rate(keys):g}"
    )


def _clips_values(keys: Keys) -> bool:
    is_norm = (keys.read_text("grad_clip_method") or "value").lower() == "norm"
    return not is_norm and "max_grad_norm" in keys and (keys.read_float("max_grad_norm") or 0) > 0


def _describe_clip(keys: Keys) -> str:
    return (
        f"max_grad_norm = {keys.read_float('max_grad_norm'):g} bounds each single number of the gradient, not its norm (grad_clip_method is"
        " value by default); numbers that large do not occur, so that nothing is clipped"
    )


def _describe_wave(keys: Keys) -> str:
    wave = count_wave(keys)
    return (
        f"its cosine is a wave: the rate falls from {find_rate(keys):g} to lr_end in {wave} steps (lr_warmup_steps, or 1000), rises again"
        " in as many, and so on; there is no warm-up"
    )


_SHIFTED = (
    "flow_schedule_shift is 3.0 where it is left out, though its guide says that there is no shift: half of the noise levels lie above"
    " 0.75"
)


def _rounds_weights(keys: Keys) -> bool:
    name = (keys.read_text("optimizer") or "adamw_bf16").lower()
    mixed = (keys.read_text("mixed_precision") or "bf16").lower()
    return mixed == "bf16" and name.startswith(("torch-", "bnb-"))


ROWS: Sequence[Row] = (
    (_has_scale, _describe_scale),
    (
        lambda keys: "learning_rate" not in keys,
        "learning_rate is 4e-7 where it is left out, so that an adapter learns next to nothing",
    ),
    (
        lambda keys: "model_type" not in keys,
        "model_type is full where it is left out (its guide says lora), so that the whole model is trained",
    ),
    (_clips_values, _describe_clip),
    (lambda keys: (keys.read_text("lr_scheduler") or "").lower() in ("cosine", "cosine_with_warmup"), _describe_wave),
    (
        lambda keys: (keys.read_text("lr_scheduler") or "").lower() == "cosine_with_restarts",
        "its cosine_with_restarts counts steps by the remainder of -1, which is 0: the rate stays at learning_rate",
    ),
    (lambda keys: "flow_schedule_shift" not in keys and find_law(keys) in ("sigmoid", "uniform", "beta", "cubic"), _SHIFTED),
    (
        lambda keys: keys.read_bool("flow_schedule_auto_shift") and is_flux2(keys),
        "flow_schedule_auto_shift counts the patches of FLUX.2's latents once more, so four times too few tokens: at 1024 px it shifts by"
        " 1.88 instead of 3.16",
    ),
    (
        lambda keys: keys.read_bool("flow_schedule_auto_shift") and "flow_schedule_shift" in keys,
        "with flow_schedule_auto_shift and flow_schedule_shift both set, the number has no effect",
    ),
    (
        lambda keys: is_flux2(keys) and ("flux_guidance_value" in keys or "flux_guidance_mode" in keys),
        "for FLUX.2 the guidance of training is 1.0, whatever flux_guidance_mode and flux_guidance_value say",
    ),
    (
        lambda keys: is_flux2(keys) and is_standard(keys) and "flux_lora_target" in keys,
        "for FLUX.2 flux_lora_target is not read: attention of the double blocks' picture side and the single blocks' input get adapters,"
        " feed-forward and text side do not",
    ),
    (
        lambda keys: is_standard(keys) and (keys.read_text("flux_lora_target") or "") in ("mmdit", "all+ffs+embedder+controlnet"),
        "flux_lora_target = mmdit is offered, but has no list of layers: to_q, to_k, to_v and to_out.0 get adapters, the text side not",
    ),
    (
        lambda keys: is_standard(keys) and "lora_dropout" not in keys,
        "lora_dropout is 0.1 where it is left out",
    ),
    (
        lambda keys: is_lycoris(keys) and any(name in keys for name in ("lora_rank", "lora_alpha", "flux_lora_target")),
        "with lora_type = lycoris the keys lora_rank, lora_alpha and flux_lora_target are not read: lycoris_config says all of it",
    ),
    (
        lambda keys: is_standard(keys) and is_quantized(keys) and (keys.read_text("lora_init_type") or "").lower() == "loftq",
        "LoftQ is dropped for a model that is quantized, with a line in the log; since 2025 the run stops with an AttributeError instead",
    ),
    (
        lambda keys: keys.read_bool("use_dora") and "quanto" in read_precision(keys) and is_standard(keys),
        "DoRA is turned off on a model that quanto packed",
    ),
    (
        lambda keys: (keys.read_int("musubi_blocks_to_swap") or 0) > 0,
        "musubi_blocks_to_swap moves blocks while pictures are painted; while it trains they stay where they are",
    ),
    (
        _rounds_weights,
        "the adapter's weights are bf16 with this optimizer: a step below 1/256 of a weight is rounded away (here they are fp32)",
    ),
    (
        lambda keys: has_pictures(keys) and "validation_guidance" not in keys,
        "validation_guidance is 7.5 where it is left out, far above what these models are painted with (3.5 or so)",
    ),
    (
        lambda keys: has_pictures(keys) and "validation_resolution" not in keys,
        "validation_resolution is 256 where it is left out, so that pictures on the way are painted at 256 px",
    ),
    (
        lambda keys: "caption_dropout_probability" not in keys,
        "caption_dropout_probability is 0.1 where it is left out: every tenth picture is learned without its caption",
    ),
)


def list_faults(keys: Keys) -> list[str]:
    """What the options of a run did."""
    return [line if isinstance(line, str) else line(keys) for holds, line in ROWS if holds(keys)]


# ---- of sets

_CUT: Mapping[int, Mapping[int, str]] = {
    64: {512: "5.3 % on average, 28.9 % at most", 768: "3.4 % on average, 15.8 % at most", 1024: "2.8 % on average, 9.5 % at most"},
    16: {512: "1.4 % on average, 9.2 % at most", 768: "0.9 % on average, 6.7 % at most", 1024: "0.8 % on average, 4.7 % at most"},
}
"""Alignment -> edge -> share of the picture that is cut off with crop = false, measured over 300 sizes."""


def _describe_cut(keys: Keys, alignment: int) -> str:
    edge = keys.read_float("resolution") or 0
    measured = _CUT[alignment].get(int(edge)) if find_unit(keys) == "area" else None
    share = f": {measured} (measured over 300 sizes)" if measured else ""
    return f"crop = false cuts all the same, to sides that are multiples of {alignment}{share}"


def _is_downsampled(keys: Keys) -> bool:
    to, limit = keys.read_float("target_downsample_size") or 0, keys.read_float("maximum_image_size") or 0
    return is_cropped(keys) and limit > 0 and to > (keys.read_float("resolution") or 0)


DATA_ROWS: Sequence[Row] = (
    (
        _is_downsampled,
        "maximum_image_size resizes every picture to target_downsample_size that has not the size of training already, smaller ones too,"
        " before the window is cut: of a 512 px picture at 1024 with target 1280, 36 % are cut off",
    ),
    (lambda keys: "max_upscale_threshold" in keys, "max_upscale_threshold is never read: small pictures are enlarged"),
    (
        lambda keys: find_unit(keys) == "megapixels" and find_shape(keys) == "square",
        "with resolution_type = area a square's window reaches beyond the resized picture at 0.5 megapixels (704 of 768 px), and for FLUX.2"
        " at 1.0 (992 of 1024 px)",
    ),
    (
        lambda keys: str(keys["crop_style"] or "").lower() == "random" and find_shape(keys) != "random"
        and not keys.read_bool("vae_cache_clear_each_epoch"),
        "random windows are drawn once, when latents are cached, though its guide says anew each epoch; the place that is stored is not the"
        " place that was cut",
    ),
    (
        lambda keys: ("minimum_aspect_ratio" in keys or "maximum_aspect_ratio" in keys) and find_shape(keys) == "square",
        "minimum_aspect_ratio and maximum_aspect_ratio are compared with the square that is cut out, so that they set nothing aside",
    ),
    (
        lambda keys: read_kind(keys) == "huggingface" and "caption_column" in keys,
        "caption_column outside of the block huggingface is not read, though its guide prints it there",
    ),
    (
        lambda keys: read_kind(keys) == "csv",
        "pictures of a csv are kept by their stems alone: of equal names the last one is all of them",
    ),
    (
        lambda keys: bool(keys.read_text("skip_file_discovery")),
        "skip_file_discovery leaves out the search for new files, sizes or captions: what was changed since is not learned, or stale",
    ),
    (
        lambda keys: keys.read_bool("only_instance_prompt") and find_captions(keys) == "instance" and "caption_strategy" in keys
        and str(keys["caption_strategy"]).lower() not in ("instanceprompt", "instance_prompt"),
        "with only_instance_prompt caption_strategy has no effect: each picture has the same caption",
    ),
    (
        lambda keys: str(keys["caption_strategy"] or "").lower() == "instance_prompt",
        "caption_strategy = instance_prompt is offered, but the code knows instanceprompt alone, and stops",
    ),
)


def list_data_faults(entries: Sequence[Entry], sets: Sequence[Keys], *, config: Keys) -> list[str]:
    """What the keys of sets did; several sets with the same line stand in one."""
    found: dict[str, list[str]] = {}
    alignment = 16 if is_flux2(config) else 64
    for keys in sets:
        name = keys.read_text("id") or ""
        if not is_cropped(keys):
            found.setdefault(_describe_cut(keys, alignment), []).append(name)
        for holds, line in DATA_ROWS:
            if holds(keys):
                found.setdefault(line if isinstance(line, str) else line(keys), []).append(name)
    lines = [f"{', '.join(names)}: {line}" for line, names in found.items()]
    return [*lines, *_list_entry_faults(entries, config)]


def _list_entry_faults(entries: Sequence[Entry], config: Keys) -> list[str]:
    lines: list[str] = []
    filters = [one for entry in entries for one in _list_lines(entry.find("caption_filter_list"))]
    if any(one.startswith("s/") and one.count("/") == 3 for one in filters):
        lines.append("caption filters of the form s/a/b/, which its guide shows, do nothing: only s/a/b is read")
    references = [one for one in entries if len(one.read_list("conditioning_data")) > 1]
    if references and (config.read_text("conditioning_multidataset_sampling") or "random").lower() == "random":
        names = ", ".join(one.id for one in references)
        lines.append(
            f"{names}: of several sets of references one is drawn by Python's hash(), which differs between processes and starts; here each"
            " picture shows all of its own"
        )
    return lines


def _list_lines(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []
