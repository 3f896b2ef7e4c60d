"""Models that look at pictures to judge them: any CLIP or DINOv2 that the transformers library reads. On the processor, so that they take
nothing of the card that trains; read for a score, and freed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from weber.errors import ModelError
from weber.families.hub import find_place
from weber.progress import Progress
from weber.sampling.scores import normalize

_FILES = ["*.json", "*.txt", "*.model", "model.safetensors", "model-*.safetensors"]
_WHAT = "scoring"


@dataclass(frozen=True)
class Scorer:
    """`model` and what prepares its inputs. `tokenizer`: None for a model of pictures alone."""

    model: Any
    processor: Any
    tokenizer: Any | None

    @torch.no_grad()
    def embed_pictures(self, pictures: Sequence[Image.Image], progress: Progress) -> Tensor:
        """Rows (N, D) fp32 of length 1, one picture after the other."""
        rows = []
        for number, picture in enumerate(pictures):
            progress(_WHAT, number, len(pictures))
            inputs = self.processor(images=picture.convert("RGB"), return_tensors="pt")
            if self.tokenizer is None:
                rows.append(self.model(**inputs).pooler_output[0])
            else:
                rows.append(_read_rows(self.model.get_image_features(**inputs))[0])
        progress(_WHAT, len(pictures), len(pictures))
        return normalize(rows)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Rows (N, D) fp32 of length 1. Of longer texts the model reads the beginning."""
        assert self.tokenizer is not None
        inputs = self.tokenizer(list(texts), padding=True, truncation=True, max_length=self.num_tokens, return_tensors="pt")
        return normalize(_read_rows(self.model.get_text_features(**inputs)))

    @property
    def num_tokens(self) -> int:
        """How much of a text the model reads, its two marks included."""
        return int(self.model.config.text_config.max_position_embeddings)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Of each text, uncut."""
        assert self.tokenizer is not None
        return [len(one) for one in self.tokenizer(list(texts)).input_ids]


def find_scorer(place: str, *, key: str, needs_text: bool, is_whole: bool = True) -> Path:
    """Folder of a model that judges pictures, or prompts too; of the hub it is fetched, or its configuration alone. Raises ModelError. No
    weights are read."""
    folder = find_place(place, _FILES if is_whole else ["config.json"], key=key)
    expected = "openai/clip-vit-large-patch14 or another CLIP" + ("" if needs_text else ", facebook/dinov2-small or another DINOv2")
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{key} names no model.", got=place, expected=f"a folder or a hub id: {expected}", fix=f"correct {key}, or remove it"
        )
    kind = _read_kind(folder)
    if kind not in (("clip",) if needs_text else ("clip", "dinov2")):
        raise ModelError(f"{key} cannot be used to judge pictures.", got=f"{place}, a {kind}", expected=expected, fix=f"correct {key}")
    return folder


def load_scorer(folder: Path) -> Scorer:
    """The model in fp32 on the processor."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)  # type: ignore[no-untyped-call]
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True) if _read_kind(folder) == "clip" else None
    return Scorer(model, processor, tokenizer)


def _read_kind(folder: Path) -> str:
    return str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type", "model without a type"))


def _read_rows(output: Any) -> Tensor:
    """Projected features, which the library returns as a tensor or as the pooled part of an output."""
    rows: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return rows
