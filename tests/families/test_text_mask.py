"""Padding that is hidden: the prediction is that of a text without it, whatever the padding holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.memory.conftest import BATCH, FAMILIES, HEIGHT, NUM_TEXT, WIDTH
from weber.config.model import ModelConfig
from weber.config.objective import RouteConfig
from weber.errors import ConfigError
from weber.families.family import Family
from weber.families.flux1.components import Flux1
from weber.families.route import build_routes
from weber.families.table import build_family
from weber.pocket.random_flux2 import Kind, build_random_flux2
from weber.pocket.random_flux3 import build_random_flux3

CPU = torch.device("cpu")
READ = {
    "right": [[True] * 4 + [False] * 3, [True] * 6 + [False]],
    "left": [[False] * 3 + [True] * 4, [False] * 2 + [True] * 5],
    "hardly any": [[True] + [False] * 6, [False] * 7],
}
PROMPTS = ["a red apple", "", "zebra " * 700]
Inputs = tuple[Tensor, Tensor, dict[str, Tensor]]


def _build(kind: str) -> tuple[Any, Inputs]:
    """A network, and what it is fed: noisy latents, t and a condition without a mask."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        transformer, build, _, channels, text = FAMILIES[kind]()
    draw = torch.Generator().manual_seed(1)
    condition = {"text": torch.randn(BATCH, NUM_TEXT, text["text"], generator=draw), "guidance": torch.ones(BATCH)}
    if "pooled" in text:
        condition["pooled"] = torch.randn(BATCH, text["pooled"], generator=draw)
    noisy, t = torch.randn(BATCH, channels, HEIGHT, WIDTH, generator=draw), torch.rand(BATCH, generator=draw)
    return build(transformer.requires_grad_(False)), (noisy, t, condition)


def _predict_without_padding(predictor: Any, inputs: Inputs, read_BT: Tensor) -> Tensor:
    """Sample by sample with the padding cut out of text and positions."""
    noisy, t, condition = inputs
    load, rows = predictor._load_rotary, []
    shared = {name: one for name, one in condition.items() if name == "route_scores"}
    for number, read_T in enumerate(read_BT):
        one = {name: tensor[number : number + 1] for name, tensor in condition.items() if name not in shared}

        def load_cut(num_text: int, pictures: Any, read_T: Tensor = read_T) -> Any:
            stays = torch.cat([read_T, torch.ones(100, dtype=torch.bool)])
            return tuple(part[stays[: len(part)]] for part in load(NUM_TEXT, pictures))

        predictor._load_rotary = load_cut
        rows.append(predictor(noisy[number : number + 1], t[number : number + 1], one | shared | {"text": one["text"][:, read_T]}))
    predictor._load_rotary = load
    return torch.cat(rows)


@pytest.mark.parametrize("is_routed", [False, True])
@pytest.mark.parametrize("padding", READ)
@pytest.mark.parametrize("kind", ["first", "second"])
def test_hidden_padding_is_no_padding(kind: str, padding: str, is_routed: bool) -> None:
    predictor, (noisy, t, condition) = _build(kind)
    predictor.is_fused = False  # with a mask the library runs the blocks; its last bits are others
    read = torch.tensor(READ[padding])
    if is_routed:
        predictor.routes = build_routes([RouteConfig(ratio=0.5, first=1, last=3)], num_blocks=5)
        condition["route_scores"] = torch.rand(HEIGHT * WIDTH // (4 if kind == "first" else 1), generator=torch.Generator().manual_seed(2))
    hidden = predictor(noisy, t, condition | {"text_read": read})
    assert torch.allclose(hidden, _predict_without_padding(predictor, (noisy, t, condition), read), atol=1e-5)
    assert (hidden - predictor(noisy, t, condition)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["first", "second"])
def test_what_padding_holds_does_not_matter(kind: str) -> None:
    predictor, (noisy, t, condition) = _build(kind)
    read = torch.tensor(READ["right"])
    text = condition["text"].clone().requires_grad_(True)
    velocity = predictor(noisy, t, condition | {"text": text, "text_read": read})
    velocity.square().sum().backward()
    assert text.grad is not None
    assert (text.grad[~read] == 0).all() and (text.grad[read].abs().sum(dim=-1) > 0).all()
    other = torch.where(read[..., None], text.detach(), 7.0)
    assert torch.allclose(predictor(noisy, t, condition | {"text": other, "text_read": read}), velocity, atol=1e-6)


@pytest.mark.parametrize("kind", ["first", "second"])
def test_a_text_without_padding_is_as_without_a_mask(kind: str) -> None:
    predictor, (noisy, t, condition) = _build(kind)
    masked = predictor(noisy, t, condition | {"text_read": torch.ones(BATCH, NUM_TEXT, dtype=torch.bool)})
    assert torch.allclose(masked, predictor(noisy, t, condition), atol=1e-6)


@pytest.fixture(scope="module")
def families(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny models whose prompts are padded: behind and before the text."""
    root = tmp_path_factory.mktemp("models")
    kinds: tuple[Kind, ...] = ("dev", "klein")
    return {"first": tiny_model} | {kind: build_random_flux2(root / kind, kind) for kind in kinds}


def _encode(family: Family, part: str, prompts: list[str]) -> dict[str, Tensor]:
    with torch.no_grad():
        return family.encode_prompts(part, family.load(part, device=CPU, dtype=torch.float32), prompts)


@pytest.mark.parametrize("kind", ["first", "dev", "klein"])
def test_the_last_text_part_says_what_is_padding(kind: str, families: dict[str, Path]) -> None:
    config = ModelConfig(path=str(families[kind]))
    plain, hiding = build_family(config), build_family(config, hides_padding=True)
    part = plain.text_parts[-1]
    without, found = _encode(plain, part, PROMPTS), _encode(hiding, part, PROMPTS)
    assert set(found) - set(without) == {"text_read"} and torch.equal(found["text"], without["text"])
    assert {name: (*found[name].shape[1:],) for name in found} == hiding.text_shapes(part)
    read = found["text_read"]
    num_read = read.sum(dim=1).tolist()
    assert read.dtype == torch.bool and 0 < num_read[1] < num_read[0] < num_read[2] == read.shape[1]
    assert (read.int().diff(dim=1) * (1 if kind == "dev" else -1) >= 0).all(), "padding is at one end"
    assert _encode(hiding, part, PROMPTS[1:2])["text_read"].equal(read[1:2])


@pytest.mark.parametrize("kind", ["first", "dev", "klein"])
def test_what_was_encoded_without_a_mask_stays_valid(kind: str, families: dict[str, Path]) -> None:
    config = ModelConfig(path=str(families[kind]))
    plain, hiding = build_family(config), build_family(config, hides_padding=True)
    for part in (*plain.text_parts, plain.image_part):
        assert (plain.identify(part) == hiding.identify(part)) is (part != plain.text_parts[-1])
    assert plain.identify(plain.text_parts[-1]) == build_family(config).identify(plain.text_parts[-1])


def test_models_that_cannot_hide_it_say_why(tiny_schnell: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a text mask of its own"):
        build_family(ModelConfig(path=str(tiny_schnell), variant="libreflux"), hides_padding=True)
    with pytest.raises(ConfigError, match="take no text mask"):
        build_family(ModelConfig(path=str(build_random_flux3(tmp_path / "third"))), hides_padding=True)


def test_a_models_own_recipe_is_another_one(tiny_schnell: Path) -> None:
    """Of LibreFLUX padding weighs less and is not hidden; its mask is a float tensor with a name of its own."""
    family = build_family(ModelConfig(path=str(tiny_schnell), variant="libreflux"))
    assert isinstance(family, Flux1)
    found = _encode(family, "t5", PROMPTS)
    assert set(found) == {"text", "text_mask"} and found["text_mask"].dtype == torch.float32
