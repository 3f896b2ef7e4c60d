"""Single files of weights, as the makers and ComfyUI have them: their pieces, what is inside, and names without prefixes.

A file may hold one part of a model or several (`model.diffusion_model.`, `vae.`, `text_encoders.t5xxl.transformer.`). A *marker* is a
tensor that a part has under one and the same name everywhere; what stands before it is the part's prefix.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from weber.errors import ModelError
from weber.families.scaled import build_plain_weights
from weber.families.tensors import Weights, check_format, open_weights, read_metadata

ENDING = ".safetensors"
INDEX_ENDING = ".safetensors.index.json"
_PIECE = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
_CONFIG_KEY = "weber_config"

TRANSFORMER_MARKERS = ("img_in.weight", "x_embedder.weight", "emb_in.image.weight", "x_embedders.image.weight")
VAE_MARKERS = ("decoder.conv_in.weight",)
CLIP_MARKERS = ("embeddings.token_embedding.weight",)
T5_MARKERS = ("encoder.block.0.layer.0.SelfAttention.q.weight",)
LANGUAGE_MARKERS = ("layers.0.input_layernorm.weight",)

_PARTS = {
    "transformer": TRANSFORMER_MARKERS,
    "vae": VAE_MARKERS,
    "text_encoder": CLIP_MARKERS + LANGUAGE_MARKERS,
    "text_encoder_2": T5_MARKERS,
}
_CONTENTS = (
    ("a LoRA", ("*lora_A.*", "*lora_B.*", "*lora_down.*", "*lora_up.*", "*lora.down.*", "*.lokr_w*", "*.hada_w*")),
    ("a ControlNet", ("*controlnet_blocks.*", "*controlnet_x_embedder.*")),
    ("a FLUX.3 transformer", ("*early_stream_modulations.image.*",)),
    ("a FLUX.2 transformer", ("*double_stream_modulation_img.*",)),
    ("a Chroma transformer", ("*distilled_guidance_layer.*",)),
    ("a FLUX.1 transformer", ("*double_blocks.0.img_mod.lin.*", "*transformer_blocks.0.norm1_context.linear.*")),
    ("a model for images of another kind", ("*input_blocks.0.0.*", "*joint_blocks.0.*", "*down_blocks.0.attentions.0.*")),
    ("a FLUX.2 autoencoder", ("*bn.running_mean",)),
    ("an autoencoder", tuple(f"*{name}" for name in VAE_MARKERS)),
    ("a CLIP text encoder", tuple(f"*{name}" for name in CLIP_MARKERS)),
    ("a T5 text encoder", tuple(f"*{name}" for name in T5_MARKERS)),
    ("a language model of the kind of Qwen3", ("*layers.0.self_attn.q_norm.weight",)),
    ("a language model of the kind of Mistral", tuple(f"*{name}" for name in LANGUAGE_MARKERS)),
    ("an image encoder", ("*vision_model.*", "*visual.*")),
)


def list_pieces(path: Path) -> tuple[Path, ...]:
    """All files of a checkpoint, given one file, the first of its pieces (`-00001-of-00003`) or its index. Raises ModelError."""
    if path.name.endswith(INDEX_ENDING):
        pieces: list[Path] = sorted({path.parent / name for name in _read_index(path)})
    elif match := _PIECE.fullmatch(path.name):
        count = int(match["count"])
        pieces = [path.with_name(f"{match['stem']}-{number:05}-of-{count:05}{ENDING}") for number in range(1, count + 1)] or [path]
    else:
        _check_ending(path)
        pieces = [path]
    missing = [piece.name for piece in pieces if not piece.is_file()]
    if missing:
        raise ModelError(
            "Pieces of the model are missing.",
            got=f"{path.parent} without {', '.join(missing)}",
            expected=f"all {len(pieces)} pieces of {path.name} in one folder",
            fix="download the missing pieces",
        )
    return tuple(pieces)


def list_folder_files(folder: Path) -> tuple[Path, ...]:
    """The weights of a part in the library's layout: what its index names, else its one whole file, else every *.safetensors."""
    indexes = [file for name in ("diffusion_pytorch_model", "model") if (file := folder / (name + INDEX_ENDING)).is_file()]
    if indexes:
        return list_pieces(indexes[0])
    files = sorted(folder.glob(f"*{ENDING}"))
    return tuple(file for file in files if file.stem in ("diffusion_pytorch_model", "model")) or tuple(files)


def open_single(files: Sequence[Path]) -> Weights:
    """The tensors of a single file as plain numbers, whatever precision they are kept in. Raises ModelError in words."""
    metadata: dict[str, str] = {}
    for file in files:
        metadata |= read_metadata(file)
    return build_plain_weights(open_weights(files), metadata, where=files[0])


def read_own_config(files: Sequence[Path]) -> dict[str, object] | None:
    """The library's configuration that a file written by weber carries in its header, or None."""
    text = read_metadata(files[0]).get(_CONFIG_KEY)
    if text is None:
        return None
    try:
        config = json.loads(text)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise ModelError(f"{files[0]} says in its header what it is, but not as a JSON object.", got=text[:80], fix="write the file again")
    return config


def list_parts(weights: Weights) -> tuple[str, ...]:
    """The parts of a model that a single file holds, as far as they are known."""
    return tuple(part for part, markers in _PARTS.items() if any(_find_prefixes(weights, marker) for marker in markers))


def build_stripped(weights: Weights, markers: Sequence[str]) -> Weights:
    """The tensors of one part without its prefix. In a file with nothing else, names outside the prefix stay as they are."""
    prefixes = [prefix for marker in markers for prefix in _find_prefixes(weights, marker)]
    if not prefixes:
        return weights
    prefix = min(prefixes, key=len)
    is_alone = len(list_parts(weights)) < 2
    stripped = {name.removeprefix(prefix): entry for name, entry in weights.items() if name.startswith(prefix)}
    return stripped | ({name: entry for name, entry in weights.items() if not name.startswith(prefix)} if is_alone else {})


def keep_known(weights: Weights, *, known: re.Pattern[str]) -> tuple[Weights, list[str]]:
    """The tensors whose whole names match, as they are, and the names of the others."""
    kept = {name: entry for name, entry in weights.items() if known.fullmatch(name)}
    return kept, [name for name in weights if name not in kept]


def describe_content(weights: Weights) -> str:
    """What a file holds, in words for a person."""
    for words, patterns in _CONTENTS:
        if any(fnmatchcase(name, pattern) for pattern in patterns for name in weights):
            return words
    names = sorted(weights)
    return f"{len(names)} tensors ({', '.join(names[:3])}{', ...' if names[3:] else ''})" if names else "no tensors at all"


def _find_prefixes(weights: Weights, marker: str) -> list[str]:
    return [name.removesuffix(marker) for name in weights if name == marker or name.endswith("." + marker)]


def _read_index(path: Path) -> set[str]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return {str(name) for name in index["weight_map"].values()} or {"nothing"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} is not an index of pieces.",
            got=f"{type(error).__name__}: {error}",
            expected='a JSON object with "weight_map"',
            fix="download the file again",
        ) from error


def _check_ending(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix == ENDING or suffix == ".sft":
        return
    check_format(path)
    what = f"a file that ends in {suffix or 'nothing'}"
    fix = "give a *.safetensors file or a folder in diffusers layout"
    raise ModelError(f"{path} cannot be read.", got=what, expected="*.safetensors", fix=fix)
