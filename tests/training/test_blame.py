"""What made numbers not finite is named: the samples, and the cache's file that holds them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.runs import BuildRun, build_watcher
from weber.cache.key import build_latent_key, build_text_key
from weber.cache.store import Store
from weber.errors import CacheError
from weber.planning.plan import build_plan, list_views
from weber.training.assemble import train


def test_the_file_of_samples_that_are_not_finite_is_named(build_run: BuildRun, tmp_path: Path) -> None:
    config = build_run(train={"steps": 2, "batch_size": 1})
    plan, good = build_plan(config), Store(config.output.cache)
    encoder = plan.encoders.identify(plan.family.image_part)
    views = {build_latent_key(view, encoder=encoder, dtype=plan.dtype): view for view in list_views(plan)}
    texts = [
        build_text_key(caption, encoder=plan.encoders.identify(part), dtype=plan.dtype)
        for part in plan.family.text_parts
        for caption in plan.needs.texts
    ]
    bad = Store(tmp_path / "bad")
    bad.check_writable()
    bad.publish({key: good.read(key) for key in texts})
    before = set((tmp_path / "bad").glob("*.safetensors"))
    bad.publish({key: {name: torch.full_like(one, torch.nan) for name, one in good.read(key).items()} for key in views})
    [shard] = set((tmp_path / "bad").glob("*.safetensors")) - before
    config = build_run("broken", train={"steps": 2, "batch_size": 1}, output={"cache": str(tmp_path / "bad")})
    with pytest.raises(CacheError, match="What the encoders made of pictures or captions is not finite") as caught:
        train(config, resume=False, watcher=build_watcher()[0])
    assert "picture of " in caught.value.got and str(shard) in caught.value.got
    assert f"delete {shard}" in caught.value.fix
    assert not any(str(one) in caught.value.got for one in before)
