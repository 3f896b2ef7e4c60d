"""Models that judge pictures: tiny ones of the library's own classes, asked as the library itself is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import weber
from weber.errors import ModelError
from weber.progress import ignore_progress
from weber.sampling.scorers import find_scorer, load_scorer

TOKENIZER = Path(weber.__file__).parent / "pocket" / "weights" / "tokenizer"


def write_clip(folder: Path) -> Path:
    """A tiny CLIP with the pocket model's tokenizer."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **small)
    vision = CLIPVisionConfig(image_size=32, patch_size=8, **small)
    CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_dino(folder: Path) -> Path:
    """A tiny DINOv2."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def _draw(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 56, 3), np.uint8))


def test_a_clip_says_what_the_library_says(tmp_path: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor

    folder = find_scorer(str(write_clip(tmp_path / "clip")), key="sampling.clip_model", needs_text=True)
    scorer, pictures, texts = load_scorer(folder), [_draw(1), _draw(2)], ["a red fox", "a dog"]
    pictures_ND, texts_ND = scorer.embed_pictures(pictures, ignore_progress), scorer.embed_texts(texts)
    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    with torch.no_grad():
        output = model(**processor(text=texts, images=pictures, return_tensors="pt", padding=True))
    assert torch.allclose(pictures_ND, output.image_embeds, atol=1e-5) and torch.allclose(texts_ND, output.text_embeds, atol=1e-5)
    assert scorer.num_tokens == 77 and scorer.count_tokens(["a red fox"])[0] <= 77 < scorer.count_tokens(["fox " * 99])[0]
    assert scorer.embed_texts(["fox " * 99]).shape == (1, 16)


def test_a_dino_says_what_the_library_says(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, Dinov2Model

    folder = find_scorer(str(write_dino(tmp_path / "dino")), key="sampling.likeness_model", needs_text=False)
    found = load_scorer(folder).embed_pictures([_draw(1)], ignore_progress)
    with torch.no_grad():
        inputs = AutoImageProcessor.from_pretrained(folder)(images=_draw(1), return_tensors="pt")
        expected = Dinov2Model.from_pretrained(folder).eval()(**inputs).pooler_output
    assert torch.allclose(found, expected / expected.norm(), atol=1e-5)
    with pytest.raises(ModelError, match=r"(?s)sampling.clip_model cannot be used to judge pictures.*a dinov2"):
        find_scorer(str(folder), key="sampling.clip_model", needs_text=True)


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"(?s)sampling.clip_model names no model.*openai/clip"):
        find_scorer(str(tmp_path / "nowhere"), key="sampling.clip_model", needs_text=True)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(ModelError, match="a bert"):
        find_scorer(str(tmp_path), key="sampling.likeness_model", needs_text=False)
