"""Filling the cache: exactly what is missing is encoded, once, with one encoder in memory at a time."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from weber.cache.encode import Encoders
from weber.cache.key import build_latent_key, build_text_key
from weber.cache.latents import encode_latents
from weber.cache.store import Store
from weber.cache.text import encode_texts
from weber.config.data import DataConfig
from weber.data.build import build_dataset
from weber.data.examples import Example
from weber.data.sets import PictureLimits
from weber.data.views import read_mask, read_pixels
from weber.errors import DataError, ModelError
from weber.families.family import Family
from weber.families.weights import Fill
from weber.progress import Progress, ignore_progress

CPU = torch.device("cpu")
PLAIN = PictureLimits()


class ImageEncoder(nn.Module):
    """16 x 16 pixels to one latent of 4 channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, kernel_size=16, stride=16)

    def forward(self, pixels: Tensor) -> Tensor:
        latents: Tensor = self.conv(pixels)
        return latents


class TextEncoder(nn.Module):
    """The bytes of a prompt, at most 8, to 8 vectors."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(256, 6)

    def forward(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        ids = torch.tensor([list(prompt.encode()[:8].ljust(8, b"\0")) for prompt in prompts])
        return {"vectors": self.embedding(ids), "ids": ids}


class SmallFamily(Family):
    """A model with one image and two text encoders, which remembers what it was asked."""

    image_part = "vae"
    text_parts = ("short", "long")
    prompts_per_batch: int | None = None

    def __init__(self) -> None:
        self.identities = {"vae": "vae 1", "short": "short 1", "long": "long 1"}
        self.broken: str | None = None
        self.images: list[Tensor] = []
        self.masks: list[Tensor] = []
        self.prompts: dict[str, list[list[str]]] = {"short": [], "long": []}
        self.loaded: list[str] = []
        self.alive: list[weakref.ref[nn.Module]] = []

    def identify(self, part: str) -> str:
        return self.identities[part]

    def text_shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        return {part: (4,)}

    def load(self, part: str, *, device: torch.device, dtype: torch.dtype, fill: Fill | None = None) -> nn.Module:
        assert not [encoder for encoder in self.alive if encoder() is not None], "the encoder before was not freed"
        self.loaded.append(part)
        encoder = ImageEncoder() if part == "vae" else TextEncoder(seed=self.text_parts.index(part))
        self.alive.append(weakref.ref(encoder))
        return encoder.to(device, dtype)

    def encode_images(self, encoder: nn.Module, pixels: Tensor, *, masks: Tensor | None = None) -> dict[str, Tensor]:
        pixels = pixels.to(next(encoder.parameters()).dtype)
        self.images.append(pixels)
        if masks is None:
            return {"latents": encoder(pixels)}
        self.masks.append(masks)
        return {"latents": encoder(pixels), "masked": encoder(pixels * (masks < 0.5)), "mask": masks}

    def encode_prompts(self, part: str, encoder: nn.Module, prompts: Sequence[str]) -> dict[str, Tensor]:
        self.prompts[part].append(list(prompts))
        scale = float("nan") if self.broken in prompts else 1
        return {f"{part}_{name}": tensor * scale if name == "vectors" else tensor for name, tensor in encoder(prompts).items()}

    def count_images(self) -> int:
        return sum(len(pixels) for pixels in self.images)


def _build_encoders(family: SmallFamily, dtype: torch.dtype = torch.float32) -> Encoders:
    return Encoders(family, CPU, dtype, family.identify, partial(family.load, device=CPU, dtype=dtype))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """5 pictures: 2 wide, 3 square."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, size in enumerate([(96, 64), (80, 80), (96, 64), (80, 80), (80, 80)]):
        _draw(folder / f"{number}.png", number, size)
        (folder / f"{number}.txt").write_text(f"fox {number}\nan animal")
    return folder


def _draw(path: Path, seed: int, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _list_examples(folder: Path, *, inputs: PictureLimits = PLAIN, **changes: object) -> Sequence[Example]:
    settings = {"resolution": 64, "bucket_step": 16, "minimum_edge": 16, **changes}
    config = DataConfig.model_validate({"path": folder, **settings})
    return build_dataset(
        [config],
        alignment_pixels=16,
        inputs=inputs,
        index_path=folder.parent / "index.sqlite",
        hub_folder=folder.parent / "hub",
        seed=0,
        progress=ignore_progress,
    ).examples


def _encode(
    store: Store,
    examples: Sequence[Example],
    *,
    batch_size: int = 2,
    dtype: torch.dtype = torch.float32,
    progress: Progress = ignore_progress,
) -> SmallFamily:
    family = SmallFamily()
    views = [view for example in examples for view in example.list_views()]
    num_encoded = encode_latents(store, views, encoders=_build_encoders(family, dtype), batch_size=batch_size, progress=progress)
    assert num_encoded == family.count_images()
    return family


def _encode_texts(store: Store, captions: Sequence[str], family: SmallFamily, *, progress: Progress = ignore_progress) -> int:
    return encode_texts(store, captions, encoders=_build_encoders(family, torch.bfloat16), batch_size=2, progress=progress)


def test_latents_are_those_of_the_pictures(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path / "cache")
    examples = _list_examples(folder)
    family = _encode(store, examples)
    assert len(store) == 5
    assert family.loaded == ["vae"]
    assert all(pixels.dtype == torch.float32 and pixels.is_contiguous() for pixels in family.images)
    for example in examples:
        view = example.target(0)
        pixels = torch.from_numpy(read_pixels(view)).permute(2, 0, 1)[None] / 127.5 - 1
        assert -1 <= pixels.min() < -0.9
        assert 0.9 < pixels.max() <= 1
        expected = ImageEncoder()(pixels)[0]
        got = store.read(build_latent_key(view, encoder="vae 1", dtype=torch.float32))["latents"]
        assert got.shape == (4, example.bucket.height // 16, example.bucket.width // 16)
        assert torch.allclose(got, expected, atol=1e-5)


def test_batches_hold_one_bucket_and_progress_counts_pictures(tmp_path: Path, folder: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    family = _encode(Store(tmp_path / "cache"), _list_examples(folder), progress=lambda *event: seen.append(event))
    assert sorted(len(pixels) for pixels in family.images) == [1, 2, 2]
    assert [done for _, done, _ in seen] in ([0, 2, 4, 5], [0, 2, 3, 5])
    assert {(what, total) for what, _, total in seen} == {("encoding pictures", 5)}


def test_an_encoder_of_several_processes_runs_as_often_as_all_do(tmp_path: Path) -> None:
    """Whatever is wrong with a batch of this one, others wait for its part; what was whole before is kept."""
    store, family, captions = Store(tmp_path / "cache"), SmallFamily(), [f"fox {number}" for number in range(4)]

    def encode() -> int:
        return encode_texts(store, captions, encoders=_build_encoders(family), batch_size=1, pace=lambda part, num: 6)

    assert encode() == 8
    for part in ("short", "long"):
        assert family.prompts[part] == [*([one] for one in captions), [""], [""]]
    assert encode() == 0 and family.prompts["long"][6:] == 6 * [[""]], "and where it has nothing to encode"
    captions, family = ["bad 1", "bad 2"], SmallFamily()
    family.broken = "bad 1"
    with pytest.raises(ModelError, match="is not finite"):
        encode()
    assert family.prompts["short"] == [["bad 1"], ["bad 2"], *4 * [[""]]] and not family.prompts["long"]


def test_stored_dtype_is_the_one_asked_for(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path / "cache")
    examples = _list_examples(folder)
    _encode(store, examples, dtype=torch.bfloat16)
    key = build_latent_key(examples[0].target(0), encoder="vae 1", dtype=torch.bfloat16)
    assert store.read(key)["latents"].dtype == torch.bfloat16


def test_nothing_missing_loads_nothing(tmp_path: Path, folder: Path) -> None:
    examples = _list_examples(folder, captions="filename")
    captions = [caption for example in examples for caption in example.captions]
    first = SmallFamily()
    store = Store(tmp_path / "cache")
    _encode(store, examples)
    assert _encode_texts(store, captions, first) == 10
    second = SmallFamily()
    reopened = Store(tmp_path / "cache")
    views = [view for example in examples for view in example.list_views()]
    assert encode_latents(reopened, views, encoders=_build_encoders(second, torch.float32), batch_size=2) == 0
    assert _encode_texts(reopened, captions, second) == 0
    assert second.loaded == []


def test_an_edited_picture_is_encoded_again_alone(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path / "cache")
    _encode(store, _list_examples(folder))
    _draw(folder / "3.png", 33, (80, 80))
    assert _encode(store, _list_examples(folder)).count_images() == 1
    assert len(store) == 6


def test_a_renamed_or_copied_picture_is_not_encoded_again(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path / "cache")
    (folder / "copy.png").write_bytes((folder / "1.png").read_bytes())
    (folder / "copy.txt").write_text("a copy")
    assert _encode(store, _list_examples(folder)).count_images() == 5
    (folder / "2.png").rename(folder / "two.png")
    (folder / "2.txt").rename(folder / "two.txt")
    assert _encode(store, _list_examples(folder)).count_images() == 0


def test_another_crop_style_encodes_what_it_changes(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path / "cache")
    center, corner = _list_examples(folder, aspect="square"), _list_examples(folder, aspect="square", crop="corner")
    moved = sum(one.crops != other.crops for one, other in zip(center, corner, strict=True))
    assert moved == 2  # the wide ones
    _encode(store, center)
    assert _encode(store, corner).count_images() == moved
    assert _encode(store, center).count_images() == 0


def test_every_random_crop_is_encoded(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path / "cache")
    examples = _list_examples(folder, aspect="square", crop="random", num_crops=3)
    windows = {(example.content, crop) for example in examples for crop in example.crops}
    assert len(windows) > 5
    assert _encode(store, examples).count_images() == len(windows) == len(store)


def test_another_resolution_encodes_all(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path / "cache")
    _encode(store, _list_examples(folder))
    assert _encode(store, _list_examples(folder, resolution=32)).count_images() == 5
    assert _encode(store, _list_examples(folder, resolution=64)).count_images() == 0


@pytest.mark.parametrize("change", ["deleted", "broken", "replaced"])
def test_a_picture_lost_since_the_index_is_named(tmp_path: Path, folder: Path, change: str) -> None:
    examples = _list_examples(folder)
    if change == "deleted":
        (folder / "4.png").unlink()
    elif change == "broken":
        (folder / "4.png").write_bytes((folder / "4.png").read_bytes()[:500])
    else:
        _draw(folder / "4.png", 44, (80, 80))
    store = Store(tmp_path / "cache")
    with pytest.raises(DataError, match=r"4\.png"):
        _encode(store, examples)
    assert 0 < len(store) < 5  # the batches before it are kept


class Power(Exception):
    """Ends a run in the middle."""


def test_a_run_that_was_cut_goes_on_with_the_same_batches(tmp_path: Path, folder: Path) -> None:
    examples = _list_examples(folder, aspect="square")
    whole = _encode(Store(tmp_path / "whole"), examples)

    def cut(what: str, done: int, total: int) -> None:
        if done == 2:
            raise Power

    with pytest.raises(Power):
        _encode(Store(tmp_path / "cut"), examples, progress=cut)
    resumed = Store(tmp_path / "cut")
    assert len(resumed) == 2
    rest = _encode(resumed, examples)
    assert len(rest.images) == 2
    assert all(torch.equal(one, other) for one, other in zip(whole.images[1:], rest.images, strict=True))


def test_each_caption_once_per_part(tmp_path: Path) -> None:
    store = Store(tmp_path)
    family = SmallFamily()
    seen: list[tuple[str, int, int]] = []
    captions = ["a fox", "a bear", "a fox", "", "ünïcode"]
    assert _encode_texts(store, captions, family, progress=lambda *event: seen.append(event)) == 8
    assert family.prompts == {part: [["a fox", "a bear"], ["", "ünïcode"]] for part in family.text_parts}
    assert family.loaded == ["short", "long"]
    assert seen == [(f"encoding captions ({part})", done, 4) for part in family.text_parts for done in (0, 2, 4)]
    gc.collect()
    assert all(encoder() is None for encoder in family.alive)
    for seed, part in enumerate(family.text_parts):
        for caption in captions:
            got = store.read(build_text_key(caption, encoder=f"{part} 1", dtype=torch.bfloat16))
            expected = TextEncoder(seed).bfloat16()([caption])
            assert torch.equal(got[f"{part}_vectors"], expected["vectors"][0])
            assert torch.equal(got[f"{part}_ids"], expected["ids"][0])


def test_a_family_may_limit_the_prompts_of_a_batch(tmp_path: Path) -> None:
    family = SmallFamily()
    family.prompts_per_batch = 1
    assert _encode_texts(Store(tmp_path), ["a fox", "a bear"], family) == 4
    assert family.prompts == {part: [["a fox"], ["a bear"]] for part in family.text_parts}


def test_an_edited_caption_is_encoded_again_alone(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path / "cache")
    captions = [caption for example in _list_examples(folder) for caption in example.captions]
    assert _encode_texts(store, captions, SmallFamily()) == 12
    (folder / "2.txt").write_text("fox 2\nan animal, edited")
    captions = [caption for example in _list_examples(folder) for caption in example.captions]
    family = SmallFamily()
    assert _encode_texts(store, captions, family) == 2
    assert family.prompts == {part: [["an animal, edited"]] for part in family.text_parts}


def test_a_changed_encoder_encodes_its_own_part_again(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path / "cache")
    _encode_texts(store, ["a", "b"], SmallFamily())
    family = SmallFamily()
    family.identities["long"] = "long 2"
    assert _encode_texts(store, ["a", "b"], family) == 2
    assert family.loaded == ["long"]


def test_a_damaged_sample_is_encoded_again(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path / "cache")
    _encode(store, _list_examples(folder))
    (shard,) = store.folder.glob("*.safetensors")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    reopened = Store(tmp_path / "cache")
    reopened.verify()
    assert _encode(reopened, _list_examples(folder)).count_images() == 1
    assert Store(tmp_path / "cache").verify().num_samples == 5


# --- references and masks

REFERENCES = PictureLimits(max_references=2, reference_size=lambda width, height: (64, 32))
REPAINTS = PictureLimits(repaints=True)


def _draw_all(folder: Path, seed: int) -> Path:
    """A reference for each of the pictures."""
    folder.mkdir()
    for number in range(5):
        _draw(folder / f"{number}.png", seed + number, (120, 90))
    return folder


@pytest.mark.parametrize("kind", ["reference_strict", "reference_loose"])
def test_a_changed_reference_is_encoded_again_alone(tmp_path: Path, folder: Path, kind: str) -> None:
    store = Store(tmp_path / "cache")
    first, second = _draw_all(tmp_path / "first", 100), _draw_all(tmp_path / "second", 200)
    changes = {"conditioning": [first, second], "conditioning_type": kind}
    examples = _list_examples(folder, inputs=REFERENCES, **changes)
    assert _encode(store, examples).count_images() == 15
    assert _encode(store, examples).count_images() == 0
    for example in examples:
        for view in example.list_references(0):
            latents = store.read(build_latent_key(view, encoder="vae 1", dtype=torch.float32))["latents"]
            pixels = torch.from_numpy(read_pixels(view)).permute(2, 0, 1)[None] / 127.5 - 1
            assert latents.shape[1:] == (view.crop.height // 16, view.crop.width // 16)
            assert torch.allclose(latents, ImageEncoder()(pixels)[0], atol=1e-5)
    _draw(second / "3.png", 999, (120, 90))
    (again,) = _encode(store, _list_examples(folder, inputs=REFERENCES, **changes)).images
    assert len(again) == 1
    other = {"conditioning": [second, first], "conditioning_type": kind}
    assert _encode(store, _list_examples(folder, inputs=REFERENCES, **other)).count_images() == 0


def test_a_changed_mask_is_encoded_again_alone(tmp_path: Path, folder: Path) -> None:
    store, masks = Store(tmp_path / "cache"), tmp_path / "masks"
    masks.mkdir()
    for number, size in enumerate([(96, 64), (80, 80), (96, 64), (80, 80), (80, 80)]):
        mask = Image.new("L", size)
        mask.paste(255, (8 * number, 8, 8 * number + 30, 40))
        mask.save(masks / f"{number}.png")
    examples = _list_examples(folder, inputs=REPAINTS, masks=masks)
    family = _encode(store, examples)
    assert (family.count_images(), sum(map(len, family.masks))) == (10, 5)
    for example in examples:
        view = example.masked(0, 0)
        assert view is not None
        white = torch.from_numpy(read_mask(view)) / 255
        assert 0 < white.mean() < 1
        assert set(white.unique().tolist()) == {0.0, 1.0}
        stored = store.read(build_latent_key(view, encoder="vae 1", dtype=torch.float32))
        assert set(stored) == {"masked", "mask"}
        assert torch.equal(stored["mask"][0], white)
        pixels = torch.from_numpy(read_pixels(view)).permute(2, 0, 1)[None] / 127.5 - 1
        assert torch.allclose(stored["masked"], ImageEncoder()(pixels * (1 - white))[0], atol=1e-5)
        assert set(store.read(build_latent_key(example.target(0), encoder="vae 1", dtype=torch.float32))) == {"latents"}
    Image.new("L", (80, 80), 255).save(masks / "3.png")
    (again,) = _encode(store, _list_examples(folder, inputs=REPAINTS, masks=masks)).masks
    assert again.shape == (1, 1, 64, 64)
    assert again.min() == 1


def test_drawn_masks_are_encoded_once_for_each_crop(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path / "cache")
    examples = _list_examples(folder, inputs=REPAINTS, aspect="square", crop="random", num_crops=3, num_masks=2)
    windows = {(example.content, crop) for example in examples for crop in example.crops}
    family = _encode(store, examples)
    assert sum(map(len, family.masks)) == 2 * len(windows)
    assert len(store) == 3 * len(windows)
    more = _list_examples(folder, inputs=REPAINTS, aspect="square", crop="random", num_crops=3, num_masks=3)
    assert _encode(store, more).count_images() == len(windows)
    assert _encode(store, _list_examples(folder, aspect="square", crop="random", num_crops=3)).count_images() == 0


def test_a_mask_lost_since_the_index_is_named(tmp_path: Path, folder: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for number, size in enumerate([(96, 64), (80, 80), (96, 64), (80, 80), (80, 80)]):
        Image.new("L", size, 255).save(masks / f"{number}.png")
    examples = _list_examples(folder, inputs=REPAINTS, masks=masks)
    (masks / "4.png").unlink()
    with pytest.raises(DataError, match=r"masks.4\.png"):
        _encode(Store(tmp_path / "cache"), examples)
