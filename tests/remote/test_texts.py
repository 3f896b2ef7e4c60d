"""Texts that another machine encodes: the bytes of a run whose encoders are here, and one clear error for each way to fail."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import weber
from tests.runs import BuildRun, build_watcher
from weber.cache import served
from weber.cache.served import TextServer
from weber.config.run import RunConfig
from weber.errors import ConfigError, ModelError
from weber.families.flux1.variants import POCKET
from weber.families.table import build_family
from weber.planning.plan import build_plan
from weber.planning.report import build_report
from weber.pocket.random_flux2 import build_random_flux2
from weber.remote.start import open_site, read_token
from weber.remote.texts import MOST_TEXTS
from weber.training.assemble import train

TOKEN = "a-token-of-some-length"
Make = Callable[..., RunConfig]


@contextmanager
def serving(model: str, *overrides: str) -> Iterator[tuple[str, list[str]]]:
    """The address of a server on this machine, and what it says."""
    said: list[str] = []
    with open_site(model, overrides, place=("127.0.0.1", 0), token=TOKEN, write=said.append) as site:
        thread = Thread(target=site.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{site.server_port}/?token={TOKEN}", said
        finally:
            site.shutdown()
            thread.join()


@pytest.fixture
def make(build_run: BuildRun, tmp_path: Path) -> Make:
    """Settings of a run of two small steps with a cache of its own, which lacks everything."""

    def build(name: str, url: str | None = None, *, model: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
        own = {"train": {"steps": 2, "batch_size": 1}, "data": [{"resolution": 48, "limit": 3}]} | sections
        output = {"cache": str(tmp_path / f"cache of {name}")} | sections.get("output", {})
        address = {} if url is None else {"text_encoder_url": url}
        return build_run(name, model=(model or {"variant": "pocket"}) | address, **own | {"output": output})

    return build


def copy_deaf(tmp_path: Path) -> Path:
    """The pocket model without the weights of its text encoders."""
    folder = Path(shutil.copytree(POCKET, tmp_path / "deaf"))
    for file in folder.glob("text_encoder*/*.safetensors"):
        file.unlink()
    return folder


def run(config: RunConfig) -> str:
    watcher, said = build_watcher()
    train(config, resume=False, watcher=watcher)
    return said.getvalue()


def list_tensors(cache: Path) -> dict[str, bytes]:
    """All that a cache keeps, by the names of its shards' samples."""
    found: dict[str, bytes] = {}
    for shard in cache.glob("*.safetensors"):
        found |= {name: tensor.numpy().tobytes() for name, tensor in load_file(shard).items()}
    return found


def test_a_run_whose_texts_are_encoded_elsewhere_is_the_same(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = {"prompts": ["a dog"], "steps": 1, "every": 2, "width": 48, "height": 48}
    plain = make("plain", sampling=sampling)
    run(plain)
    with serving("pocket") as (url, said):
        far = make("far", url, model={"path": str(copy_deaf(tmp_path)), "variant": "pocket"}, sampling=sampling)
        plan = build_plan(far)
        report = build_report(plan)
        assert f"texts are encoded by {url.partition('/?')[0]}" in report and TOKEN not in report
        assert TOKEN not in run(far) and (far.output.folder / "config.toml").stat().st_mode & 0o077 == 0
        [picture] = weber.sample(far.output.folder, "a cat", progress=lambda *_: None)
        far_live = make("live", url, output={"text_cache": "live"})
        run(far_live)
        assert any(line.startswith("Encoded 3 texts (t5)") or line.startswith("Encoded 4 texts (t5)") for line in said)
    [same] = weber.sample(plain.output.folder, "a cat", progress=lambda *_: None)
    assert np.array_equal(np.asarray(picture), np.asarray(same))
    assert list_tensors(far.output.cache) == list_tensors(plain.output.cache)
    mine, theirs = (load_file(one.output.folder / "adapter.safetensors") for one in (far, plain))
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    step = "pictures/step-000002/00.png"
    assert np.array_equal(*(np.asarray(Image.open(one.output.folder / step)) for one in (plain, far)))
    lines = [(one.output.folder / "metrics.jsonl").read_text().splitlines() for one in (plain, far, far_live)]
    losses = [[json.loads(line)["loss"] for line in some] for some in lines]
    assert losses[0] == losses[1] and losses[2] == pytest.approx(losses[0], rel=1e-5)
    monkeypatch.setattr(served, "PAUSES_SECONDS", ())
    with pytest.raises(ModelError, match="cannot be reached"):
        build_plan(make("late", url))


def test_what_does_not_fit_is_said_before_anything_is_loaded(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "PAUSES_SECONDS", ())
    build_random_flux2(tmp_path / "other", "klein-base")
    with serving("pocket") as (url, _):
        cases: dict[str, tuple[RunConfig, list[str]]] = {
            "token": (make("run", url.replace(TOKEN, "wrong")), ["does not take the token (401)", "copy the address"]),
            "path": (make("run", url.replace("/?", "/texts?")), ["answers 404", "correct model.text_encoder_url"]),
            "precision": (make("run", url, memory={"dtype": "bf16"}), ["it encodes in fp32", "bf16, as this run"]),
            "model": (
                make("run", url, model={"path": str(tmp_path / "other"), "variant": "flux2-klein-base-4b"}, data=[{"resolution": 32}]),
                ["text encoders of pocket (clip, t5)", "weber serve-text"],
            ),
        }
        for config, words in cases.values():
            with pytest.raises(ModelError) as error:
                build_plan(config)
            assert all(word in str(error.value) for word in words) and TOKEN not in str(error.value), str(error.value)
    for sections, words in (
        ({"memory": {"quantize_text_encoder": "int8"}}, ["give it to weber serve-text"]),
        ({"adapter": {"text_encoder": True}}, ["has to be on this machine"]),
    ):
        with pytest.raises(ConfigError) as refused:
            build_plan(make("run", url, **sections))
        assert all(word in str(refused.value) for word in words)
    with pytest.raises(ConfigError, match="text_encoder has no effect where another machine"):
        make("run", url, model={"variant": "pocket", "text_encoder": "elsewhere"})
    with pytest.raises(ConfigError) as refused:
        make("run", "ftp://host/")
    assert "it is no address of a server" in str(refused.value)


def test_fewer_tokens_are_asked_for_on_both_sides(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "PAUSES_SECONDS", ())
    model = {"variant": "pocket", "text_tokens": 16}
    with serving("pocket", "model.text_tokens=16") as (url, _):
        run(make("both", url, model=model))
        with pytest.raises(ModelError) as error:
            run(make("one", url))
        assert "it answers with {'text': (" in str(error.value) and "model.text_tokens" in str(error.value)


def ask(url: str, path: str, body: bytes | None, **headers: str) -> int:
    place = url.partition("/?")[0] + path
    try:
        with urlopen(Request(place, data=body, headers={"Authorization": f"Bearer {TOKEN}"} | headers), timeout=20) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


def test_what_no_run_would_ask_is_refused_and_the_server_stays(tmp_path: Path) -> None:
    with serving("pocket") as (url, _):
        good = {"part": "clip", "texts": ["a dog"], "dtype": "fp32"}
        bad = [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"part": 1}']
        changed = [{"part": "zork"}, {"texts": []}, {"texts": ["a"] * (MOST_TEXTS + 1)}, {"texts": [1]}, {"dtype": "fp16"}, {"dtype": None}]
        statuses = [ask(url, "/encode", body) for body in [*bad, *(json.dumps(good | one).encode() for one in changed)]]
        assert set(statuses) == {400, 409}, statuses
        assert ask(url, "/encode", b"{}", **{"Content-Length": "99999999999"}) == 413
        assert ask(url, "/encode", json.dumps(good).encode(), Authorization="Bearer no") == 401
        assert ask(url, "/../../etc/passwd", None) == 404
        assert ask(url, "/encode", json.dumps(good).encode()) == 200 and ask(url, "/model", None) == 200
    for text, words in (("short", "holds no token"), ("a blank in a token of some length", "holds no token")):
        (tmp_path / "token").write_text(text)
        with pytest.raises(ConfigError, match=words):
            read_token(tmp_path / "token")
    with pytest.raises(ConfigError, match="has no effect where texts are encoded"):
        open_site("pocket", ["memory.quantize=nf4"], place=("127.0.0.1", 0), token=TOKEN, write=print)
    with serving("pocket") as (url, _), pytest.raises(ConfigError, match="cannot be listened at"):
        open_site("pocket", [], place=("127.0.0.1", int(url.split(":")[2].partition("/")[0])), token=TOKEN, write=print)


@contextmanager
def serving_as_the_hub(shape: tuple[int, ...], *, num_failures: int = 0) -> Iterator[tuple[str, list[Any]]]:
    """A server that answers as the hub's does: one prompt, a tensor of `torch.save`."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers["Authorization"], body))
            if len(asked) <= num_failures:
                self.send_error(503)
                return
            data = io.BytesIO()
            torch.save(torch.full(shape, float(len(body["prompt"]))), data)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data.getvalue())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as site:
        Thread(target=site.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{site.server_port}/predict", asked
        site.shutdown()


def test_the_hubs_own_server_of_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weber.config.model import ModelConfig

    monkeypatch.setattr(served, "PAUSES_SECONDS", (0.01, 0.01))
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    build_random_flux2(tmp_path / "model", "dev")
    family = build_family(ModelConfig(path=str(tmp_path / "model"), variant="flux2-dev"))
    (part,) = family.text_parts
    ((name, shape),) = family.text_shapes(part).items()
    with serving_as_the_hub((1, *shape), num_failures=2) as (url, asked):
        client = TextServer(url, family, torch.float32)
        assert client.identify(part) == f"{url} {part}"
        tensors = client.encode(part, ["a dog", "a"])
        assert tensors.keys() == {name} and tensors[name].shape == (2, *shape) and tensors[name][:, 0, 0].tolist() == [5.0, 1.0]
        assert asked[-1] == ("/predict", "Bearer hf_secret", {"prompt": "a"}) and len(asked) == 4
    with serving_as_the_hub((1, 3, 4)) as (url, _), pytest.raises(ModelError, match="it answers with"):
        TextServer(url, family, torch.float32).encode(part, ["a dog"])
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ModelError, match="hf auth login"):
        TextServer(url, family, torch.float32).encode(part, ["a dog"])
