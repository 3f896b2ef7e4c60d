"""What OneTrainer really does with some settings, without a word: a row each, where a file asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from weber.config.importers.draft import Keys
from weber.config.importers.onetrainer.concepts import IS_CACHED, build_steps, find_source
from weber.config.importers.onetrainer.read import find_form, is_flux2, is_full
from weber.config.importers.onetrainer.train import find_rate
from weber.config.importers.values import simplify

Row = tuple[Callable[[Keys], bool], str | Callable[[Keys], str]]


def _has_scale(keys: Keys) -> bool:
    rank, alpha = keys.read_float("lora_rank") or 16.0, keys.read_float("lora_alpha") or 1.0
    return find_form(keys) in ("lora", "loha") and rank != alpha


def _describe_scale(keys: Keys) -> str:
    rank, alpha = keys.read_float("lora_rank") or 16.0, keys.read_float("lora_alpha") or 1.0
    usual = " (lora_alpha is 1.0 where it is left as it is)" if alpha == 1 else ""
    return (
        f"your alpha {simplify(alpha)} and rank {simplify(rank)} multiplied the output of the adapter by {alpha / rank:g}{usual}, on top of"
        f" the learning rate {find_rate(keys):g}"
    )


def _describe_warmup(keys: Keys) -> str:
    return "learning_rate_warmup_steps is 200 where it is left out: a run of few pictures may end before the rate is there"


ROWS: Sequence[Row] = (
    (_has_scale, _describe_scale),
    (
        lambda keys: is_flux2(keys) and keys.read_bool("dynamic_timestep_shifting"),
        "from February to August 2026 dynamic_timestep_shifting counted a quarter of the tokens of FLUX.2: at 1024 px it shifted by 1.88"
        " instead of 3.16, at 512 px by 1.65 instead of 1.88; here the tokens are counted right",
    ),
    (lambda keys: "learning_rate_warmup_steps" not in keys, _describe_warmup),
    (
        lambda keys: "text_encoder_2_sequence_length" not in keys and not is_flux2(keys),
        "text_encoder_2_sequence_length is 77 where it is left out: the rest of longer captions is not read",
    ),
    (
        lambda keys: "lora_decompose" in keys and keys.read_bool("lora_decompose") and keys["optimizer.fused_back_pass"] is True,
        "until August 2026 a DoRA with a fused back pass trained as a plain LoRA",
    ),
    (
        lambda keys: (keys.read_int("batch_size") or 1) > 1,
        "pictures that do not fill a batch of their size are left out in each epoch; here the last, smaller batch is learned too",
    ),
    (
        lambda keys: str(keys["timestep_distribution"]).upper() == "SIGMOID" and (keys.read_float("timestep_shift") or 1) != 1,
        "the densities of SIGMOID are shifted twice",
    ),
    (
        lambda keys: not is_full(keys) and "text_encoder.train" not in keys and not is_flux2(keys),
        "text_encoder.train and text_encoder_2.train are true where they are left out: CLIP and T5 get adapters",
    ),
    (
        lambda keys: str(keys["learning_rate_scheduler"]).upper() == "COSINE_WITH_RESTARTS",
        "its COSINE_WITH_RESTARTS does not restart: the rate goes down and up again, a whole wave for each cycle",
    ),
)

CONCEPT_ROWS: Sequence[Row] = (
    (
        lambda keys: bool(keys[IS_CACHED]) and find_source(keys) in ("sample", "concept") and (keys.read_int("text_variations") or 1) == 1,
        "with text_variations = 1 one line of a caption file is drawn when it is cached, and the others are never read",
    ),
    (
        lambda keys: bool(keys[IS_CACHED]) and bool(build_steps(keys)) and (keys.read_int("text_variations") or 1) == 1,
        "with text_variations = 1 tags are shuffled and left out once, when they are cached, and stay so",
    ),
    (
        lambda keys: bool(keys[IS_CACHED])
        and keys["image.enable_crop_jitter"] is not False
        and (keys.read_int("image_variations") or 1) == 1,
        "with image_variations = 1 a random window is drawn once, when it is cached",
    ),
)


def list_faults(keys: Keys, concepts: Sequence[Keys]) -> list[str]:
    """What the keys of a run and of its concepts did; several concepts with the same line stand in one."""
    lines = [line if isinstance(line, str) else line(keys) for holds, line in ROWS if holds(keys)]
    found: dict[str, list[str]] = {}
    for number, concept in enumerate(concepts):
        for holds, line in CONCEPT_ROWS:
            if holds(concept):
                text = line if isinstance(line, str) else line(concept)
                found.setdefault(text, []).append(concept.read_text("name") or f"concept {number + 1}")
    return lines + [f"{', '.join(names)}: {text}" for text, names in found.items()]
