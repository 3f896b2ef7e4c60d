"""What becomes of a picture's captions: outcomes and their probabilities, against draws of the same steps without a cache."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weber.config.captions import CaptionStepConfig
from weber.config.data import DataConfig
from weber.data.batches import BatchPlan
from weber.data.buckets import Bucket
from weber.data.caption_steps import Steps, build_steps
from weber.data.chances import Drawn, list_outcomes
from weber.data.crops import Crop
from weber.data.dataset import Dataset
from weber.data.examples import Example
from weber.data.pictures import pack_pictures
from weber.data.seeds import build_seed, draw_weighted
from weber.data.tags import split_tags
from weber.data.variants import DEFAULT_MOST, Variants, build_variants
from weber.errors import DataError

Read = Callable[..., Dataset]
Write = Callable[..., Path]
NUM_DRAWS = 10_000


def _steps(*steps: dict[str, Any], most: int | None = None) -> Steps:
    rows = [CaptionStepConfig(**one) for one in steps]
    built = build_steps(DataConfig(path=Path("x"), caption_steps=rows, caption_variants=most), key="data.0")
    assert built is not None
    return built


def _build(texts: list[str], steps: Steps | None, weights: tuple[float, ...] = (), *, seed: int = 1, name: str = "a.png") -> Variants:
    return build_variants(texts, weights, steps=steps, seed=seed, name=name)


def _list_shares(variants: Variants) -> dict[str, float]:
    weights = variants.weights or (1 / len(variants.texts),) * len(variants.texts)
    return dict(zip(variants.texts, weights, strict=True))


def _measure(counts: Counter[str], shares: dict[str, float]) -> float:
    """Chi-square of counts, in standard deviations from what is expected of it. Whatever has no share must not have been drawn."""
    total = sum(counts.values())
    assert counts.keys() <= shares.keys()
    squares = sum((counts[text] - share * total) ** 2 / (share * total) for text, share in shares.items())
    degrees = max(1, len(shares) - 1)
    return (squares - degrees) / math.sqrt(2 * degrees)


SHUFFLE, DROP = {"kind": "shuffle", "keep": 1}, {"kind": "drop", "rate": 0.3, "keep": 1}
FEW = [
    (["cat, a, b"], [SHUFFLE, DROP], ()),
    (["{red|blue} cat, {big|small}"], [{"kind": "wildcards"}], ()),
    (["a cat", "a cat, on a {red|green|blue} sofa"], [{"kind": "wildcards"}], (3.0, 1.0)),
    (["cat, a, b", "dog, c"], [DROP, {"kind": "trigger", "text": "TOK"}], (1.0, 2.0)),
]


@pytest.mark.parametrize(("texts", "steps", "weights"), FEW)
def test_cached_outcomes_have_the_distribution_of_fresh_draws(
    texts: list[str], steps: list[dict[str, Any]], weights: tuple[float, ...]
) -> None:
    """10,000 captions as steps draw them from the cached variants, and 10,000 of the same steps run anew each time."""
    built = _steps(*steps)
    variants = _build(texts, built, weights)
    assert variants.is_whole and sum(_list_shares(variants).values()) == pytest.approx(1, abs=1e-12)
    example = _example(variants)
    plan = BatchPlan(pack_pictures([example]), batch_size=1, accumulation=1, seed=3)
    cached = Counter(example.caption(plan.draw_step(step)[0][0].caption) for step in range(NUM_DRAWS))
    fresh = Counter(_draw_fresh(texts, weights, built, number) for number in range(NUM_DRAWS))
    shares = _list_shares(variants)
    assert _measure(cached, shares) < 4 and _measure(fresh, shares) < 4


def _example(variants: Variants) -> Example:

    crop = Crop(64, 64, 0, 0, 64, 64)
    return Example("set", Path("a.png"), "0" * 32, 64, 64, Bucket(64, 64), (crop,), variants.texts, 1, caption_weights=variants.weights)


def _draw_fresh(texts: list[str], weights: tuple[float, ...], steps: Steps, number: int) -> str:
    place = draw_weighted(weights or (1.0,) * len(texts), "fresh caption", number)
    return steps.run(texts[place], Drawn(build_seed("fresh", number)))


def test_a_bounded_set_has_the_distribution_of_fresh_draws_over_the_pictures() -> None:
    """Of each of 1,250 pictures 8 variants are kept: together they are 10,000 draws, as those of fresh ones are."""
    text, steps = "a, b, c, d, e, f", _steps({"kind": "shuffle"}, {"kind": "drop", "rate": 0.25})
    kept: Counter[str] = Counter()
    for picture in range(NUM_DRAWS // DEFAULT_MOST):
        variants = _build([text], steps, name=f"{picture}.png")
        assert not variants.is_whole and len(variants.texts) <= DEFAULT_MOST
        for caption, share in _list_shares(variants).items():
            kept[_sum_up(caption)] += round(share * DEFAULT_MOST)
    fresh = Counter(_sum_up(steps.run(text, Drawn(build_seed("fresh", number)))) for number in range(NUM_DRAWS))
    assert kept.total() == NUM_DRAWS
    for counts in (kept, fresh):
        assert _measure(counts, _expect()) < 4


def _sum_up(caption: str) -> str:
    """How many tags are left, and which is the first."""
    tags = caption.split(", ") if caption else []
    return f"{len(tags)} {tags[0]}" if tags else "0"


def _expect() -> dict[str, float]:
    chances = {num: math.comb(6, num) * 0.75**num * 0.25 ** (6 - num) for num in range(7)}
    return {"0": chances[0]} | {f"{num} {tag}": chances[num] / 6 for num in range(1, 7) for tag in "abcdef"}


def test_long_and_short_captions_keep_their_weights_in_a_bounded_set() -> None:
    steps = _steps({"kind": "shuffle"})
    variants = _build(["a, b, c, d, e", "short"], steps, (3.0, 1.0))
    shares = _list_shares(variants)
    assert shares["short"] == pytest.approx(0.25) and len(shares) <= DEFAULT_MOST and not variants.is_whole
    many = _build([f"line {number}, b, c, d" for number in range(20)], steps)
    assert {next(tag for tag in text.split(", ") if tag.startswith("line")) for text in many.texts} == {f"line {n}" for n in range(20)}
    few = [_build(["a, b, c, d", "x", "y"], _steps({"kind": "shuffle"}, most=2), (2.0, 1.0, 1.0), name=str(n)) for n in range(400)]
    drawn = sum(share for one in few for text, share in _list_shares(one).items() if len(text) == 1)
    assert drawn / 400 == pytest.approx(0.5, abs=0.05), "with fewer variants than captions they are still as likely over all pictures"


def test_variants_are_pure_functions_of_seed_name_and_caption() -> None:
    steps, texts = _steps({"kind": "shuffle"}), ["a, b, c, d, e", "f, g, h, i, j"]
    first = _build(texts, steps)
    assert _build(texts, steps) == first
    assert _build(texts, steps, seed=2) != first and _build(texts, steps, name="b.png") != first
    edited = _build([texts[0], "other, words, of, the, second"], steps)
    assert set(first.texts) & set(edited.texts) == {text for text in first.texts if "a" in text}
    more = _build(texts, _steps({"kind": "shuffle"}, most=16))
    assert set(first.texts) < set(more.texts), "more variants add to those that are encoded"


def test_variants_are_the_same_for_ever() -> None:
    """They name what lies in caches, and what a resumed run reads."""
    steps = _steps({"kind": "shuffle", "keep": 1}, {"kind": "drop", "rate": 0.2}, most=3)
    assert _build(["tok, a, b, c, d"], steps).texts == ("tok, b, a, c, d", "tok, b, d, a, c", "tok, c, a, b, d")


def test_without_a_step_that_draws_each_caption_is_one_text() -> None:
    steps = _steps({"kind": "suffix", "text": ", photo"})
    assert _build(["a", "b", "a"], steps) == Variants(("a, photo", "b, photo"), (pytest.approx(2 / 3), pytest.approx(1 / 3)))
    assert _build(["a"] * 3 + ["b"] * 30, steps).is_whole
    assert _build(["a", "b", "a"], None) == Variants(("a", "b", "a"))
    assert _build(["a", "b"], None, (3.0, 1.0)) == Variants(("a", "b"), (3.0, 1.0))
    assert _build(["a", "b"], None, (2.0, 2.0)) == Variants(("a", "b"))


def test_captions_of_which_nothing_is_left() -> None:
    gone = _steps({"kind": "filter", "tags": ["a", "b"]})
    with pytest.raises(DataError, match=r'^caption is empty after its steps: it was "a, b"$'):
        _build(["a, b"], gone)
    assert _build(["a, b", "a, c"], gone).texts == ("c",), "another one that says something takes its place"
    assert _build([""], gone).texts == ("",), "the empty caption was asked for"
    dropped = _build(["a, b"], _steps({"kind": "drop", "rate": 0.5}))
    assert _list_shares(dropped) == {"a, b": 0.25, "a": 0.25, "b": 0.25, "": 0.25}, "chance may leave nothing, as often as it does"


def test_outcomes_are_told_over_only_where_they_are_few() -> None:
    steps = _steps({"kind": "shuffle"})
    assert len(list_outcomes(lambda chance: steps.run("a, b, c", chance), most=6) or []) == 6
    assert list_outcomes(lambda chance: steps.run("a, b, c", chance), most=5) is None
    assert list_outcomes(lambda chance: steps.run(", ".join(map(str, range(500))), chance), most=100) is None
    assert _build(["a, b, c"], steps).is_whole and not _build(["a, b, c, d"], steps).is_whole
    assert _build(["a, b, c, d"], _steps({"kind": "shuffle"}, most=24)).is_whole


words = st.text("abcdefgh :", min_size=1, max_size=6).map(str.strip).filter(bool)
words |= st.tuples(words, words).map(lambda two: f"({two[0]}, {two[1]})") | words.map(lambda word: f"{word} :(")
tags = st.lists(words, min_size=1, max_size=9)


@given(tags, st.integers(0, 3), st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_nothing_is_lost_by_shuffle_and_what_is_kept_stays(tags: list[str], keep: int, seed: int) -> None:

    text = ", ".join(tags)
    own = split_tags(text, ",").body
    steps = _steps({"kind": "shuffle", **({"keep": keep} if keep else {})})
    for variant in _build([text], steps, seed=seed).texts:  # not split as tags: a lone ) and a lone ( may become a pair
        assert Counter(_list_pieces(variant)) == Counter(_list_pieces(text)) and variant.startswith(", ".join(own[:keep]))


def _list_pieces(text: str) -> list[str]:
    return [piece.strip() for piece in text.split(",") if piece.strip()]


@given(st.lists(tags, min_size=1, max_size=4), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_weights_sum_to_one_and_are_no_more_than_asked_for(captions: list[list[str]], seed: int) -> None:
    steps = _steps({"kind": "shuffle"}, {"kind": "drop", "rate": 0.4}, most=7)
    variants = _build([", ".join(one) for one in captions], steps, seed=seed)
    assert 1 <= len(variants.texts) <= 7 and len(set(variants.texts)) == len(variants.texts)
    assert sum(_list_shares(variants).values()) == pytest.approx(1) and all(share > 0 for share in variants.weights)


def test_an_order_is_each_as_likely() -> None:
    counts = Counter("".join(map(str, Drawn(build_seed("order", number)).order(3))) for number in range(NUM_DRAWS))
    assert _measure(counts, dict.fromkeys(("012", "021", "102", "120", "201", "210"), 1 / 6)) < 4


# --- in a set


def _config(path: Path, **keys: Any) -> DataConfig:
    return DataConfig(path=path, **{"resolution": 64, "bucket_step": 16, "caption_steps": [CaptionStepConfig(kind="shuffle")], **keys})


def test_variants_of_a_picture_depend_on_no_other(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for number in range(4):
        write_picture(tmp_path / "set" / f"{number}.png", seed=number, caption=f"p{number}, a, b, c, d")
    before = {one.path.name: one.captions for one in read_sets(_config(tmp_path / "set")).examples}
    assert all(5 < len(captions) <= DEFAULT_MOST for captions in before.values())
    (tmp_path / "set" / "1.txt").write_text("p1, a, b, c, e")
    (tmp_path / "set" / "0.png").unlink()
    write_picture(tmp_path / "set" / "00" / "2.png", seed=9, caption="p2, a, b, c, d")
    after = {one.path.relative_to(tmp_path / "set").as_posix(): one.captions for one in read_sets(_config(tmp_path / "set")).examples}
    assert after["2.png"] == before["2.png"] and after["3.png"] == before["3.png"] and after["1.png"] != before["1.png"]
    assert after["00/2.png"] != after["2.png"], "pictures of one name in two folders are not alike"
    (tmp_path / "set").rename(tmp_path / "moved")
    moved = read_sets(_config(tmp_path / "moved", name="other", repeats=3, resolution=32)).examples
    assert {one.path.name: one.captions for one in moved if one.path.parent.name == "moved"}["3.png"] == before["3.png"], (
        "neither on where the set is, nor on its name or size, so that sets of several sizes share their texts"
    )


def test_fallbacks_and_instances_go_through_the_steps_too(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png", caption=None)
    trigger = [CaptionStepConfig(kind="trigger", text="TOK")]
    (example,) = read_sets(_config(tmp_path / "set", caption_fallback="a thing", caption_steps=trigger)).examples
    assert example.captions == ("TOK, a thing",)
    (example,) = read_sets(_config(tmp_path / "set", captions="none", caption_steps=trigger)).examples
    assert example.captions == ("TOK",)


def test_a_picture_whose_caption_is_emptied_is_set_aside(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png", caption="watermark, text")
    write_picture(tmp_path / "set" / "b.png", seed=1, caption="watermark, cat")
    filter_ = [CaptionStepConfig(kind="filter", tags=["watermark", "text"])]
    dataset = read_sets(_config(tmp_path / "set", caption_steps=filter_))
    assert [one.captions for one in dataset.examples] == [("cat",)]
    assert [one.reason for one in dataset.set_aside] == ['caption is empty after its steps: it was "watermark, text"']
    dataset = read_sets(_config(tmp_path / "set", caption_steps=filter_, caption_fallback="a thing"))
    assert [one.captions for one in dataset.examples] == [("a thing",), ("cat",)]


def test_draws_without_weights_are_what_they_were(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png", caption="one\ntwo\nthree")
    examples = read_sets(_config(tmp_path / "set", caption_steps=[])).examples
    plan = BatchPlan(examples, batch_size=1, accumulation=1, seed=1)
    drawn = np.array([plan.draw_step(step)[0][0].caption for step in range(12)])
    assert drawn.tolist() == [build_seed(1, step, 0, "caption") % 3 for step in range(12)]
