"""Steps 5 and 6 of a document on whole fine-tunes with kohya's scripts, done with weber's commands: pictures without words, described by
BLIP from its makers' file and tagged from a folder of taggers, with a tag of their own put first, become a fine-tune of a single file."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from PIL import Image
from safetensors.torch import load_file
from transformers import BlipForConditionalGeneration, CLIPTextModel, T5EncoderModel

from tests.captioners.models import write_model
from tests.captioners.test_captions import name_as_makers
from tests.captioners.test_tags import write_wd14
from tests.shared import EXAMPLES
from weber.captioners import prefixed
from weber.families.flux1.keys import PAIRINGS
from weber.families.flux1.variants import POCKET
from weber.families.pairing import build_original_weights
from weber.families.tensors import build_entry, save_weights

Run = Callable[..., tuple[int, str, str]]
SCRIPTS = Path(__file__).parents[1] / "config" / "importers" / "files" / "kohya" / "seed"
PAGE = Path(__file__).parents[2] / "docs" / "preparing.md"
FILES = {
    "flux1-dev": (FluxTransformer2DModel, "transformer"),
    "clip_l": (CLIPTextModel, "text_encoder"),
    "t5xxl_fp16": (T5EncoderModel, "text_encoder_2"),
    "ae": (AutoencoderKL, "vae"),
}


def _list_commands(place: Path) -> list[list[str]]:
    """Those of the page's table, with what the document has in them."""
    page = PAGE.read_text(encoding="utf-8").split("## From kohya's scripts")[1]
    lines = [line.split("|")[2].strip().strip("`") for line in page.splitlines() if line.startswith(("| `", "| the notebook"))]
    values = {"DIR": str(place / "data path"), "FILE": str(place / "BLIP" / "model_large_caption.pth"), "X": "wd-v1-4-moat-tagger-v2"}
    words = [[re.sub(r"^(DIR|FILE|X)\b", lambda found: values[found[0]], word) for word in shlex.split(line)] for line in lines]
    return [[str(place / word) if word == "tag_models" else word for word in line[1:]] for line in words]


def _write_files(place: Path, models: Path) -> None:
    """The model as single files of its makers, BLIP, and a folder of taggers."""
    for name, (kind, part) in FILES.items():
        model = kind.from_pretrained(POCKET / part)
        weights = {key: build_entry(tensor) for key, tensor in model.state_dict().items()}
        weights = build_original_weights(weights, PAIRINGS) if part == "transformer" else weights
        config = (POCKET / part / "config.json").read_text(encoding="utf-8")
        save_weights(place / f"{name}.safetensors", weights, metadata={"weber_config": config})
    state = BlipForConditionalGeneration.from_pretrained(models).state_dict()
    (place / "BLIP").mkdir()
    torch.save({"model": {name_as_makers(name): tensor for name, tensor in state.items()}}, place / "BLIP" / "model_large_caption.pth")
    write_wd14(place / "tag_models" / "wd-v1-4-moat-tagger-v2")


def test_the_document_from_pictures_to_a_model(tmp_path: Path, weber: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "Local path"
    (place / "data path" / "sub").mkdir(parents=True)
    for number, name in enumerate(("zorb-01", "zorb-04", "zorb-09")):
        target = place / "data path" / ("sub" if number == 2 else ".") / f"{name}.png"
        with Image.open(EXAMPLES / "zorb" / f"{name}.png") as picture:
            picture.resize((64, 64)).save(target)
    blip = write_model("blip", tmp_path / "blip")
    monkeypatch.setattr(prefixed, "BLIP_HOME", str(blip))
    _write_files(place, blip)

    commands = _list_commands(place)
    assert [words[0] for words in commands] == ["caption", "tag", "tags", "metadata"]
    for words in commands:
        code, out, err = weber(*words)
        assert code == 0, err
    captions = sorted((place / "data path").rglob("*.caption"))
    tags = {path.stem: path.read_text(encoding="utf-8").strip() for path in (place / "data path").rglob("*.txt")}
    assert len(captions) == 3 and all(path.read_text(encoding="utf-8").strip() for path in captions)
    assert len(tags) == 3 and all(text.startswith("WeThinkIn") for text in tags.values())
    table = json.loads((place / "data path" / "meta_data.json").read_text(encoding="utf-8"))
    found = table[str(place / "data path" / "sub" / "zorb-09.png")]
    assert found["tags"] == tags["zorb-09"] and found["caption"] and found["image_size"] == [64, 64]

    for script in SCRIPTS.iterdir():
        text = script.read_text(encoding="utf-8").replace("/Local path", str(place))
        text = text.replace(f'image_dir = "{place}"', f'image_dir = "{place / "data path"}"')
        text = text.replace("[1024, 1024]", "[64, 64]").replace("min_bucket_reso = 256", "min_bucket_reso = 64")
        (place / script.name).write_text(text, encoding="utf-8")
    overrides = ["model.variant=pocket", f"model.tokenizer_path={POCKET}", "memory.device=cpu", "memory.dtype=fp32", "memory.swap_blocks=0"]
    overrides += ["train.epochs=1", "data.0.repeats=1", f"output.cache={tmp_path / 'cache'}"]
    code, out, err = weber("train", place / "FLUX_finetune.sh", *overrides)
    assert code == 0, err
    [made] = (place / "Model save address").glob("FLUX_model*.safetensors")
    tuned, base = load_file(made), load_file(place / "flux1-dev.safetensors")
    assert tuned.keys() == base.keys()
    assert any(not torch.equal(tuned[name].float(), base[name].float()) for name in base)
    shutil.rmtree(place / "Model save address")
