"""`model.text_tokens`: one number for what is encoded, cached, counted and seen by the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.runs import BuildRun, build_watcher
from weber.cache.store import Store
from weber.config.model import ModelConfig
from weber.errors import ConfigError
from weber.families.table import build_family
from weber.planning.plan import build_plan
from weber.planning.report import build_report
from weber.pocket.random_flux2 import build_random_flux2
from weber.pocket.random_flux3 import build_random_flux3
from weber.training.assemble import Encoded, encode_cache, train
from weber.training.batch import Loader
from weber.training.subject import find_subject

CPU = torch.device("cpu")


def test_what_is_encoded_is_as_long_and_has_a_key_of_its_own(tiny_model: Path) -> None:
    whole, short = (build_family(ModelConfig(path=str(tiny_model), text_tokens=one)) for one in (None, 100))
    assert short.text_limits["t5"]().most_tokens == 100 and whole.text_limits["t5"]().most_tokens == 512
    assert short.text_limits["clip"]().most_tokens == 77
    assert short.text_shapes("t5")["text"][0] == 100
    assert short.text_range == whole.text_range and whole.text_range is not None and whole.text_range.most == 512
    with torch.no_grad():
        text = short.encode_prompts("t5", short.load("t5", device=CPU, dtype=torch.float32), ["a cat"])["text"]
    assert text.shape[1:] == short.text_shapes("t5")["text"]
    assert short.identify("t5") != whole.identify("t5") and short.identify("clip") == whole.identify("clip")
    same = build_family(ModelConfig(path=str(tiny_model), text_tokens=512))
    assert same.identify("t5") == whole.identify("t5"), "what was encoded before stays valid"


@pytest.mark.parametrize(("number", "fix"), [(40, "to 77"), (76, "to 77")])
def test_too_few_tokens_are_refused(tiny_model: Path, number: int, fix: str) -> None:
    with pytest.raises(ConfigError, match="was made for texts of 512 tokens") as caught:
        build_family(ModelConfig(path=str(tiny_model), text_tokens=number))
    assert f"set model.text_tokens {fix}" in caught.value.fix


def test_models_of_which_the_padding_is_a_part_say_why(tiny_schnell: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sees 77 of them at least") as caught:
        build_family(ModelConfig(path=str(tiny_schnell), text_tokens=300))
    assert "to 256" in caught.value.fix
    refused = {
        "is part of the model libreflux": ModelConfig(path=str(tiny_schnell), variant="libreflux", text_tokens=128),
        "padded to 512 tokens": ModelConfig(path=str(build_random_flux2(tmp_path / "second", "klein")), text_tokens=128),
        "as many tokens as a text has": ModelConfig(path=str(build_random_flux3(tmp_path / "third")), text_tokens=128),
    }
    for words, config in refused.items():
        with pytest.raises(ConfigError, match=words) as caught:
            build_family(config)
        assert caught.value.fix == "remove model.text_tokens" and caught.value.got == "model.text_tokens = 128"


def test_a_run_sees_encodes_and_paints_with_as_many(build_run: BuildRun) -> None:
    """In the step, in the cache, in the estimate, in the plan, in what is saved, and in pictures afterwards."""
    sampling = {"prompts": ["a dog"], "steps": 1, "every": 2}
    sections = {"train": {"steps": 2, "batch_size": 2}, "sampling": sampling, "output": {"save_every": 2}}
    whole, short = (build_run(name, model={"text_tokens": one}, **sections) for name, one in (("whole", 24), ("short", 16)))
    plan, other = build_plan(short), build_plan(whole)
    report = build_report(plan)
    assert "texts of 16 tokens in place of 24, padding included: 20% fewer tokens in each step at 64 x 64" in report
    assert "t5 reads 16 tokens" in report and "in place of" not in build_report(other)
    assert plan.workload.family.text_shapes("t5")["text"][0] == 16
    store = Store(short.output.cache)
    assert encode_cache(plan, store, watcher=build_watcher()[0]) == Encoded(0, len(plan.needs.texts)), "CLIP's are there already"
    assert encode_cache(other, store, watcher=build_watcher()[0]) == Encoded(0, 0), "24 is what the model was made for"
    with Loader(plan, store) as loader:
        batches = loader.load(0)
    assert {batch.condition["text"].shape[1] for batch in batches} == {16}
    train(short, resume=False, watcher=build_watcher()[0])
    assert "text_tokens = 16" in (short.output.folder / "config.toml").read_text()
    subject = find_subject(short.output.folder, memory={})
    assert subject.family.text_shapes("t5")["text"][0] == 16
    train_more = build_run("short", model={"text_tokens": 20}, **(sections | {"train": {"steps": 4, "batch_size": 2}}))
    watcher, said = build_watcher()
    train(train_more, resume=True, watcher=watcher)
    assert "model.text_tokens: 16 -> 20" in said.getvalue()


def test_the_plan_says_how_many_would_be_enough(build_run: BuildRun) -> None:
    report = build_report(build_plan(build_run(data=[{"captions": "instance", "instance_prompt": "a cat"}])))
    assert "model.text_tokens = 16 is enough for all of them: 20% fewer tokens in each step at 64 x 64" in report
    report = build_report(build_plan(build_run(data=[{"captions": "instance", "instance_prompt": "a cat " * 20}])))
    assert "is enough for all" not in report
