"""Captioners on tiny models of the real classes: what they are told, how they make texts, and what becomes of a folder."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, BlipForConditionalGeneration

from tests.captioners.models import WORDS, WRITERS, write_model
from weber.captioners import prefixed
from weber.captioners.loaded import read_memory_config
from weber.captioners.prefixed import rename_original
from weber.captioners.run import Job, write_texts
from weber.captioners.table import CAPTIONERS, find_captioner
from weber.captioners.wish import Wish
from weber.config.memory import MemoryConfig
from weber.errors import ConfigError, DataError, ModelError
from weber.memory.packed import PackedLinear
from weber.progress import ignore_progress
from weber.tending.undo import Undone, undo

MEMORY = MemoryConfig(device="cpu")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a tiny model of a kind."""
    home, known = tmp_path_factory.mktemp("captioners"), dict[str, Path]()

    def find(kind: str) -> Path:
        if kind not in known:
            known[kind] = write_model(kind, home / kind)
        return known[kind]

    return find


def _build_images() -> list[Image.Image]:
    gradient = Image.radial_gradient("L")
    shapes = [gradient.crop((0, 0, 200, 120)), gradient.rotate(40).crop((30, 0, 130, 180)), gradient.transpose(Image.Transpose.ROTATE_90)]
    return [Image.merge("RGB", (one, one.point(lambda level: 255 - level), one)) for one in shapes]


def _write_pictures(folder: Path) -> list[str]:
    folder.mkdir(parents=True)
    names = ["ä.png", "b.jpg", "sub/c.png", "d.webp"]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40 + 8 * number, 40), (60 * number, 90, 200)).save(folder / name)
    return names


@pytest.mark.parametrize("kind", list(WRITERS))
def test_every_kind_describes_pictures_in_batches_and_alone(models: Callable[[str], Path], kind: str) -> None:
    """The tokens are in length what was asked for; a batch says what its pictures say alone."""
    row, folder, images = CAPTIONERS[WRITERS[kind][0]], models(kind), _build_images()
    describe = row.build(str(folder), Wish(beams=2, min_length=3, max_length=6), memory=MEMORY)
    together = describe(images)
    assert len(together) == len(images) and all(together)
    assert together == [text for image in images for text in describe([image])]
    assert all(set(text.split()) <= set(WORDS) for text in together)


@pytest.mark.parametrize("kind", ["blip", "qwen-vl", "joycaption"])
def test_words_are_drawn_by_the_seed_and_weights_are_packed(models: Callable[[str], Path], kind: str) -> None:
    row, folder, images = CAPTIONERS[WRITERS[kind][0]], str(models(kind)), _build_images()

    def describe(seed: int) -> list[str]:
        wish = Wish(top_p=0.95, temperature=1.2, min_length=6, max_length=12, seed=seed)
        return row.build(folder, wish, memory=MemoryConfig(device="cpu", quantize="int8", dtype="bf16"))(images)

    state = torch.random.get_rng_state()
    assert describe(1) == describe(1) != describe(2)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_captioner_in_few_bits_has_packed_layers(models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(prefixed, "_build", lambda network, *rest, **keys: seen.append(network))
    prefixed.build_blip(str(models("blip")), Wish(), memory=MemoryConfig(device="cpu", quantize="nf4"))
    [network] = seen
    packed = [name for name, one in network.named_modules() if isinstance(one, PackedLinear)]
    assert any("vision_model" in name for name in packed) and any("text_decoder" in name for name in packed)
    assert not any(type(one) is torch.nn.Linear for name, one in network.named_modules() if ".layers." in name or ".layer." in name)


def test_texts_reach_the_models_that_take_them(models: Callable[[str], Path]) -> None:
    """BLIP goes on with its beginning; a chat holds the question, who it is told to be, and a mark for each piece of the picture."""
    [image, *_] = _build_images()
    blip = CAPTIONERS["blip"].build(str(models("blip")), Wish(question="a photo of", max_length=3), memory=MEMORY)
    assert blip([image])[0].startswith("[DEC] a photo of") or blip([image])[0].startswith("a photo of")
    seen: list[dict[str, torch.Tensor]] = []
    kind = AutoModelForImageTextToText.from_pretrained(models("qwen-vl")).__class__

    def watch(self: object, **keys: torch.Tensor) -> torch.Tensor:
        seen.append(keys)
        return keys["input_ids"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "generate", watch)
        wish = Wish(question="what is in it ?", system="you are a painter")
        CAPTIONERS["qwen-vl"].build(str(models("qwen-vl")), wish, memory=MEMORY)([image])
    words = [WORDS[token] for token in seen[0]["input_ids"][0].tolist()]
    grid = seen[0]["image_grid_thw"][0]
    assert words.count("<|image_pad|>") == int(grid.prod()) // 4 == int(seen[0]["mm_token_type_ids"].sum())
    text = " ".join(word for word in words if word != "<|image_pad|>")
    assert "system you are a painter" in text and "user <|vision_start|> <|vision_end|> what is in it ?" in text
    assert text.endswith("<|im_start|> assistant")


PLAIN = "{% for m in messages %}<|im_start|> {{ m.role }} {% if m.role == 'user' %}EXTRA{% endif %}{{ m.content | trim }} {% endfor %}"


@pytest.mark.parametrize("extra", ["", "<image> "])
def test_templates_of_texts_alone_have_one_mark_too(models: Callable[[str], Path], tmp_path: Path, extra: str) -> None:
    """Those that put the picture in by themselves, as JoyCaption's, and those that know of none."""
    folder = Path(shutil.copytree(models("joycaption"), tmp_path / "plain"))
    (folder / "chat_template.jinja").write_text(PLAIN.replace("EXTRA", extra))
    describe = CAPTIONERS["joycaption"].build(str(folder), Wish(question="describe this image", max_length=4), memory=MEMORY)
    assert all(describe(_build_images()))
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    with pytest.raises(ModelError, match="no place for a picture"):
        CAPTIONERS["joycaption"].build(str(folder), Wish(), memory=MEMORY)


def test_the_file_of_blips_makers_is_read(models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its names are those of salesforce/BLIP; nothing but tensors is unpickled."""
    folder, images = models("blip"), _build_images()
    network = BlipForConditionalGeneration.from_pretrained(folder)
    original = dict(zip(map(name_as_makers, network.state_dict()), network.state_dict().values(), strict=True))
    assert {rename_original(name) for name in original} == set(network.state_dict())
    assert "visual_encoder.blocks.1.attn.qkv.weight" in original and "visual_encoder.patch_embed.proj.weight" in original
    file = tmp_path / "model_large_caption.pth"
    torch.save({"model": original}, file)
    monkeypatch.setattr(prefixed, "BLIP_HOME", str(folder))
    wish = Wish(beams=3, max_length=6)
    assert prefixed.build_blip(str(file), wish, memory=MEMORY)(images) == prefixed.build_blip(str(folder), wish, memory=MEMORY)(images)
    torch.save({"model": {**original, "visual_encoder.norm.weight": torch.zeros(3)}}, file)
    with pytest.raises(ModelError, match="not BLIP's captioner"):
        prefixed.build_blip(str(file), wish, memory=MEMORY)
    torch.save({"model": os.system}, file)
    with pytest.raises(ModelError, match="cannot be read"):
        prefixed.build_blip(str(file), wish, memory=MEMORY)


def name_as_makers(name: str) -> str:
    """From transformers to salesforce/BLIP, written down without the code's own table."""
    if not name.startswith("vision_model."):
        return name
    name = name.removeprefix("vision_model.")
    for new, old in {
        "embeddings.class_embedding": "cls_token",
        "embeddings.position_embedding": "pos_embed",
        "embeddings.patch_embedding": "patch_embed.proj",
        "post_layernorm": "norm",
        "encoder.layers.": "blocks.",
        ".self_attn.projection.": ".attn.proj.",
        ".self_attn.": ".attn.",
        ".layer_norm1.": ".norm1.",
        ".layer_norm2.": ".norm2.",
    }.items():
        name = name.replace(new, old)
    return f"visual_encoder.{name}"


def test_a_folder_is_described_from_the_command_line(models: Callable[[str], Path], tmp_path: Path, weber: Run) -> None:
    folder = tmp_path / "bilder"
    names = _write_pictures(folder)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "b.caption").write_text("mine\n")
    words = ["--with", "blip", "--model", models("blip"), "--ending", ".caption", "--max-length", "5", "--batch", "2", "memory.device=cpu"]
    code, out, err = weber("caption", folder, "--prefix", "zorb, ", "--suffix", ".", *words)
    assert code == 0, err
    assert "3 texts written; 1 were there" in out and "left out: broken.png: " in out
    texts = {name: (folder / name).with_suffix(".caption").read_text(encoding="utf-8") for name in names}
    assert texts["b.jpg"] == "mine\n"
    assert all(text.startswith("zorb, ") and text.endswith(".\n") for name, text in texts.items() if name != "b.jpg")
    code, out, _ = weber("caption", folder, *words)
    assert code == 0 and "0 texts written; 4 were there" in out
    code, out, _ = weber("caption", "--list")
    assert code == 0 and len(out.splitlines()) == len(CAPTIONERS)
    for wrong, said in {
        ("--with", "blib"): "did you mean blip?",
        ("--with", "blip", "--system", "x"): "blip takes no system.",
        ("--with", "blip", "--beams", "3", "--top-p", "0.9"): "searched for with beams, or drawn",
        ("--ending", "txt"): "begins with a dot",
        ("--with", "blip", "memory.swap_blocks=2"): "memory.swap_blocks has no effect on captioners",
        ("--with", "blip", "--min-length", "9", "--max-length", "3"): "so long and so short",
    }.items():
        code, _, err = weber("caption", folder, *wrong)
        assert code == 2 and said in err, err


def _describe_slowly(folder: Path, changes: bool, counter: Path) -> None:
    """A run that kills itself at its third picture."""

    def describe(images: Sequence[Image.Image]) -> list[str]:
        with counter.open("a") as file:
            file.write("x" * len(images))
        if counter.stat().st_size == 3:
            os.kill(os.getpid(), 9)
        return [f"{image.width} wide" for image in images]

    write_texts(Job(folder, ".txt", "test", overwrites=changes), lambda: describe, progress=ignore_progress)


@pytest.mark.parametrize("changes", [False, True])
def test_a_killed_run_goes_on_without_doing_anything_twice(tmp_path: Path, changes: bool) -> None:
    folder, counter = tmp_path / "pictures", tmp_path / "counter"
    _write_pictures(folder)
    if changes:
        for name in ("ä.txt", "b.txt", "sub/c.txt", "d.txt"):
            (folder / name).write_text("old\n")
    counter.touch()
    process = multiprocessing.get_context("fork").Process(target=_describe_slowly, args=(folder, changes, counter))
    process.start()
    process.join()
    assert process.exitcode == -9 and counter.read_text() == "xxx"
    texts = [path.read_text() for path in sorted(folder.rglob("*.txt"))]
    assert sum("wide" in text for text in texts) == 2 and all(text.endswith("\n") for text in texts)
    for journal in (folder / ".weber").glob("texts-*") if changes else ():
        journal.write_text(journal.read_text() + '\n["cut o')
    _describe_slowly(folder, changes, counter)
    assert counter.read_text() == "x" * 5  # the third one is done again, which was never written
    assert {path.read_text() for path in folder.rglob("*.txt")} == {"40 wide\n", "48 wide\n", "56 wide\n", "64 wide\n"}
    assert [path.name for path in folder.glob(".weber/*")] == (["undo-0001.json"] if changes else [])
    assert not list(folder.rglob(".*.tmp"))
    if changes:
        (folder / "b.txt").write_text("better\n")
        undone = undo(folder / ".weber" / "undo-0001.json")
        assert undone.num_files == 3 and undone.left == [f"{folder / 'b.txt'}: it was changed since"]
        assert sorted(path.read_text() for path in folder.rglob("*.txt")) == ["better\n", "old\n", "old\n", "old\n"]


def test_what_was_no_text_comes_back_too(tmp_path: Path) -> None:
    """A file in another encoding, one that was not there, and a run that changed nothing."""
    folder = tmp_path / "pictures"
    _write_pictures(folder)
    (folder / "b.txt").write_bytes(b"caf\xe9\n")
    job = Job(folder, ".txt", "test", overwrites=True)
    outcome = write_texts(job, lambda: lambda images: ["new"] * len(images), progress=ignore_progress)
    assert outcome.record is not None and undo(outcome.record) == Undone(4, [])
    assert (folder / "b.txt").read_bytes() == b"caf\xe9\n" and len(list(folder.rglob("*.txt"))) == 1
    empty = replace(job, ending=".tags")
    assert write_texts(empty, lambda: lambda images: ["new"] * len(images), progress=ignore_progress).record is None


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        write_texts(Job(tmp_path / "nowhere", ".txt", ""), lambda: lambda images: [], progress=ignore_progress)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        write_texts(Job(tmp_path / "empty", ".txt", ""), lambda: lambda images: [], progress=ignore_progress)
    folder = tmp_path / "twins"
    folder.mkdir()
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (20, 20)).save(folder / name)
    with pytest.raises(ConfigError, match="share one text file"):
        write_texts(Job(folder, ".txt", ""), lambda: lambda images: [], progress=ignore_progress)


def test_what_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    """Here no file is, because a name of 255 bytes has no room for what is written beside it first."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (20, 20)).save(folder / f"{'x' * 251}.png")
    with pytest.raises(DataError, match="cannot be written"):
        write_texts(Job(folder, ".txt", ""), lambda: lambda images: ["a"] * len(images), progress=ignore_progress)
    assert not list(folder.glob("*.txt"))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser writes everywhere")
def test_a_folder_that_is_read_only_is_one_error(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    _write_pictures(folder)
    folder.chmod(0o555)
    try:
        with pytest.raises(DataError, match="cannot be written"):
            write_texts(Job(folder, ".txt", ""), lambda: lambda images: ["a"] * len(images), progress=ignore_progress)
    finally:
        folder.chmod(0o755)


def test_models_that_cannot_be_are_refused_in_words(models: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model of transformers"):
        CAPTIONERS["blip"].build(str(tmp_path), Wish(), memory=MEMORY)
    broken = Path(shutil.copytree(models("qwen-vl"), tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match="cannot be read"):
        CAPTIONERS["qwen-vl"].build(str(broken), Wish(), memory=MEMORY)
    with pytest.raises(ConfigError, match="no such task"):
        find_captioner("florence2", Wish(question="dance")).build(str(models("florence2")), Wish(question="dance"), memory=MEMORY)
    assert read_memory_config({"device": "cpu", "quantize": "int8"}).quantize == "int8"
