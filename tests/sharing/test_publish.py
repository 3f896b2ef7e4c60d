"""What a run has learned, on a hub of our own and in a real S3: what arrives, what is never sent, and what becomes of failures."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import huggingface_hub
import pytest
import torch
import yaml
from diffusers import FluxPipeline, FluxTransformer2DModel
from fsspec.config import conf
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file

import weber
from tests.data.s3 import serve_s3
from tests.hub import HANG, TOKEN, Hub, Misbehave, serving_hub
from tests.runs import BuildRun, build_watcher
from weber.adapters.metadata import read_facts
from weber.config.adapter import AdapterConfig
from weber.config.load import build_config
from weber.config.lycoris import LycorisConfig
from weber.config.publish import PublishConfig
from weber.config.run import RunConfig
from weber.errors import ConfigError, PublishError, WeberError
from weber.families.flux1.variants import POCKET
from weber.families.tensors import read_metadata
from weber.progress import ignore_progress
from weber.sharing import send
from weber.sharing.beside import Publisher
from weber.sharing.captions import CAPTIONS
from weber.training.assemble import train

PROMPTS = ["a dog", "a cat"]
SAMPLING = {"prompts": PROMPTS, "steps": 1, "every": 4}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Hub]:
    """A hub that this process knows as the only one; a parameter says how it misbehaves."""
    misbehave: Misbehave = getattr(request, "param", None) or (lambda asked, number: None)
    with serving_hub(misbehave) as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(send, "PAUSES_SECONDS", (0.01, 0.01))
        huggingface_hub.close_session()
        yield served
        huggingface_hub.close_session()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, pictures: Path, small_cache: Path) -> Path:
    """The folder of a run that is done, once for all tests; it was trained without any place to send it to."""
    folder = tmp_path_factory.mktemp("done") / "run"
    tree = {
        "model": {"variant": "pocket"},
        "data": [{"path": str(pictures), "resolution": 64}],
        "adapter": {"rank": 4},
        "memory": {"device": "cpu", "gradient_checkpointing": "none"},
        "optim": {"lr": 1e-3},
        "train": {"steps": 4, "batch_size": 1},
        "sampling": SAMPLING,
        "output": {"folder": str(folder), "cache": str(small_cache), "save_every": 2},
    }
    return run(build_config(tree))[0].parent


@pytest.fixture
def finished(done: Path, tmp_path: Path) -> Path:
    """The result in a copy of it."""
    return Path(shutil.copytree(done, tmp_path / "run")) / "adapter.safetensors"


def fail(start: str, *, num: int, status: int) -> Misbehave:
    """The first requests that begin so are answered with a status."""
    return lambda asked, number: status if asked.startswith(start) and number < num else None


def run(config: RunConfig, **more: object) -> tuple[Path, str]:
    """A run to its end; its result and what it said."""
    watcher, said = build_watcher()
    return train(config, resume=False, watcher=watcher, **more), said.getvalue()  # type: ignore[arg-type]


def send_result(folder: Path, *, to: str) -> str:
    """What a run does at its end; what it said."""
    said: list[str] = []
    with Publisher(PublishConfig(to=to), folder=folder, write=said.append) as publisher:
        publisher.start()
        publisher.finish(lambda: False, ignore_progress)
    return "\n".join([*said, ""])


def read_front(card: str) -> dict[str, object]:
    return dict(yaml.safe_load(card.split("---\n", 2)[1]))


def test_a_run_is_sent_with_its_page_and_its_checkpoints_beside_it(build_small: BuildRun, hub: Hub, pictures: Path, done: Path) -> None:
    publish = {"to": "me/cat-lora", "trigger_words": "ohwx cat", "formats": ["diffusers", "comfyui"], "when": "checkpoints"}
    finished, said = run(build_small("run", sampling=SAMPLING, publish=publish))
    ours, plain = load_file(finished), load_file(done / "adapter.safetensors")
    assert all(torch.equal(one, plain[name]) for name, one in ours.items()) and ours.keys() == plain.keys()
    repository = hub.repositories["me/cat-lora"]
    assert repository.messages[-1] == "weber: step 4" and set(repository.messages) <= {"weber: step 2", "weber: step 4"}
    assert repository.is_private and f"Sent to {hub.url}/me/cat-lora" in said
    assert sorted(repository.files) == [
        *("README.md", "cat-lora-comfyui.safetensors", "images/00.png", "images/01.png", "loss.png", "pytorch_lora_weights.safetensors")
    ]
    assert repository.files["pytorch_lora_weights.safetensors"] == finished.read_bytes()
    card = repository.files["README.md"].decode()
    front = read_front(card)
    assert front["library_name"] == "diffusers" and front["pipeline_tag"] == "text-to-image" and front["license"] == "apache-2.0"
    assert front["instance_prompt"] == "ohwx cat" and {"lora", "template:sd-lora", "diffusers"} <= set(front["tags"])  # type: ignore[call-overload]
    assert front["widget"] == [{"text": text, "output": {"url": f"images/{number:02d}.png"}} for number, text in enumerate(PROMPTS)]
    assert "base_model" not in front  # the pocket model is on no hub
    assert "<Gallery />" in card and "| diffusers | loads all" in card and "| `adapter.rank` | `4` | `16` |" in card
    num = len(list(pictures.glob("*.png")))
    assert f"trained for 4 steps on {num} pictures with {num} captions" in card
    facts = read_facts(read_metadata(finished))
    assert len(str(facts["base_identity"])) == 32 and str(facts["base_identity"]) in card
    assert not list((finished.parent).glob(".publish*"))


def test_a_lycoris_and_a_whole_model_are_sent_as_what_they_are(build_small: BuildRun, hub: Hub) -> None:
    """The page names the base of one and says that the other is a model, whose files the library reads from where they were sent."""
    few = "single_transformer_blocks.0.proj_mlp"
    lokr = {"kind": "lycoris", "rank": 16, "targets": [few], "lycoris": {"algo": "lokr"}}
    finished, said = run(build_small("lokr", adapter=lokr, train={"steps": 1, "batch_size": 1}, publish={"to": "me/lokr"}))
    files = hub.repositories["me/lokr"].files
    assert f"Sent to {hub.url}/me/lokr" in said and sorted(files) == ["README.md", "lokr.safetensors", "loss.png"]
    assert files["lokr.safetensors"] == finished.read_bytes()
    card = files["README.md"].decode()
    assert "A LyCORIS (lokr) of" in card and "lycoris" in read_front(card)["tags"] and "load_lora_weights" not in card  # type: ignore[operator]

    full = {"kind": "full", "rank": 16, "targets": [few]}
    publish = {"to": "me/whole", "formats": ["merged-diffusers", "merged-bfl"], "captions": True}
    finished, said = run(build_small("whole", adapter=full, train={"steps": 1, "batch_size": 1}, publish=publish))
    files = hub.repositories["me/whole"].files
    model = ("transformer/config.json", "transformer/diffusion_pytorch_model.safetensors")
    assert "Sent to" in said and sorted(files) == ["README.md", "loss.png", *model, "whole.safetensors"]
    sent = finished.parent.parent / "sent"
    for name, data in files.items():
        (sent / name).parent.mkdir(parents=True, exist_ok=True)
        (sent / name).write_bytes(data)
    weight = FluxTransformer2DModel.from_pretrained(sent / "transformer").get_submodule(few).weight
    base = FluxTransformer2DModel.from_pretrained(POCKET / "transformer").get_submodule(few).weight
    assert torch.equal(weight, FluxTransformer2DModel.from_pretrained(finished).get_submodule(few).weight) and not torch.equal(weight, base)
    card = files["README.md"].decode()
    captions = (finished.parent / CAPTIONS).read_text().splitlines()
    assert captions and all(f"- `{caption}`" in card for caption in captions)


def test_nothing_of_the_data_and_no_token_is_sent_or_said(finished: Path, hub: Hub, pictures: Path, tmp_path: Path) -> None:
    after = finished.parent / "pictures" / "step-000004"
    shutil.copy(after / "00.png", after / "data-00.png")  # as sampling.from_data calls them
    said = send_result(finished.parent, to="me/quiet")
    assert len([name for name in hub.repositories["me/quiet"].files if name.startswith("images/")]) == 2
    sent = b"\0".join(hub.repositories["me/quiet"].files.values())
    captions = {file.read_text().strip() for file in pictures.glob("*.txt")} - set(PROMPTS)
    names = {file.stem for file in pictures.glob("*.png")} | {str(tmp_path), str(pictures), str(Path.home())}
    assert captions and not [text for text in captions | names if len(text) > 4 and text.encode() in sent]
    kept = b"".join(file.read_bytes() for file in finished.parent.rglob("*") if file.is_file())
    assert TOKEN.encode() not in sent + kept and TOKEN not in said


@pytest.mark.parametrize("hub", [fail("POST /api/repos/create", num=2, status=503)], indirect=True)
def test_a_hub_that_is_busy_is_asked_again(finished: Path, hub: Hub) -> None:
    said = send_result(finished.parent, to="me/late")
    assert hub.asked.count("POST /api/repos/create") == 3 and "Sent to" in said and "README.md" in hub.repositories["me/late"].files


@pytest.mark.parametrize(
    ("hub", "words"),
    [
        (fail("POST /api/repos/create", num=99, status=503), ["the hub answers 503", "try again later"]),
        (fail("POST /api", num=99, status=403), ["the hub answers 403", "a token that may write to me"]),
        (fail("POST /api/models/me/cat/commit", num=99, status=401), ["the hub answers 401", "hf auth login"]),
        (lambda asked, number: HANG if asked.startswith("POST /api/repos") else None, ["no answer within 0 s"]),
    ],
    indirect=["hub"],
)
def test_a_failure_costs_the_run_nothing_and_a_command_sends_it(
    finished: Path, hub: Hub, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_hanging = words[0].startswith("no answer")
    monkeypatch.setattr(send, "PATIENCE_SECONDS", 0.3 if is_hanging else 60.0)
    monkeypatch.setattr(send, "SLOWEST_BYTES_PER_SECOND", 2**40 if is_hanging else 2**17)
    said = send_result(finished.parent, to="me/cat")
    assert finished.is_file() and "Warning: The result could not be sent to me/cat" in said
    assert all(word in said for word in words) and TOKEN not in said
    assert f"  weber publish {finished.parent}\n" in said
    hub.misbehave = lambda asked, number: None
    monkeypatch.setattr(send, "PATIENCE_SECONDS", 60.0)
    assert weber.publish(finished.parent, "me/cat", progress=ignore_progress) == f"{hub.url}/me/cat"
    assert hub.repositories["me/cat"].files["pytorch_lora_weights.safetensors"] == finished.read_bytes()


@pytest.mark.parametrize("hub", [fail("POST /api/models/me/cat/commit", num=1, status=500)], indirect=True)
def test_what_has_arrived_is_not_sent_again(finished: Path, hub: Hub) -> None:
    said = send_result(finished.parent, to="me/cat")
    assert "Sent to" in said and len(hub.uploads) == len(set(hub.uploads)) == 4  # weights, curve, pictures
    assert hub.repositories["me/cat"].messages == ["weber: step 4"]


def test_what_is_private_goes_to_no_public_repository(finished: Path, hub: Hub) -> None:
    huggingface_hub.HfApi(endpoint=hub.url).create_repo("me/open", private=False)
    with pytest.raises(PublishError, match="Everyone can see the repository me/open"):
        weber.publish(finished.parent, "me/open", progress=ignore_progress)
    assert not hub.repositories["me/open"].files
    place = weber.publish(finished.parent, "me/open", public=True, consent=True, progress=ignore_progress)
    assert place.endswith("/me/open") and "README.md" in hub.repositories["me/open"].files
    with pytest.raises(ConfigError, match="needs --public and --consent|needs public and consent"):
        weber.publish(finished.parent, "me/other", public=True, progress=ignore_progress)
    assert "me/other" not in hub.repositories


def test_without_a_token_it_is_said_at_the_start_and_nothing_is_asked(
    finished: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    first, *_, last = send_result(finished.parent, to="me/cat").splitlines()
    assert "There is no token of the hub" in first and "hf auth login" in first and "The run goes on" in first
    assert last == f"  weber publish {finished.parent}" and not hub.asked


def test_a_folder_is_written_that_diffusers_reads(finished: Path, tmp_path: Path, hub: Hub) -> None:
    place = Path(weber.publish(finished.parent, "me/cat", formats=["diffusers", "kohya"], out=tmp_path / "shown", progress=ignore_progress))
    assert not hub.asked and place == tmp_path / "shown"
    assert Image.open(place / "loss.png").size == (1000, 420)
    with Image.open(place / "images" / "00.png") as picture:
        assert json.loads(picture.info["weber"])["prompt"] == "a dog"
    assert (place / "cat-kohya.safetensors").is_file()
    state, _, _ = FluxPipeline.lora_state_dict(str(place), return_alphas=True, return_lora_metadata=True)
    assert len(state) == len(load_file(finished))
    with pytest.raises(ConfigError, match="not empty"):
        weber.publish(finished.parent, "me/cat", out=place, progress=ignore_progress)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    """A real S3 with an empty bucket, as fsspec sees it."""
    with serve_s3() as served:
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setitem(conf, "s3", {"endpoint_url": served.address, "key": "a", "secret": "b"})
        system = fsspec.filesystem("s3", skip_instance_cache=False)
        system.mkdir("handed")
        yield system


def test_a_storage_gets_the_same_files(finished: Path, bucket: fsspec.AbstractFileSystem) -> None:
    assert weber.publish(finished.parent, "s3://handed/loras/cat", progress=ignore_progress) == "s3://handed/loras/cat"
    names = sorted(name.removeprefix("handed/loras/cat/") for name in bucket.find("handed/loras/cat"))
    assert names == ["README.md", "images/00.png", "images/01.png", "loss.png", "pytorch_lora_weights.safetensors"]
    assert bucket.cat_file("handed/loras/cat/pytorch_lora_weights.safetensors") == finished.read_bytes()
    said = send_result(finished.parent, to="s3://nowhere/cat")
    assert "Warning: The result could not be sent to s3://nowhere/cat" in said and f"  weber publish {finished.parent}" in said


@pytest.mark.parametrize(
    ("publish", "words"),
    [
        ({"to": "me/cat", "formats": ["merged-bfl", "comfyui"], "when": "checkpoints"}, None),
        ({"to": "ftp://host/folder"}, ["weber knows no such storage", "publish.to", "s3://"]),
    ],
)
def test_what_cannot_be_sent_is_refused_by_the_plan(build_small: BuildRun, publish: dict[str, object], words: list[str] | None) -> None:
    if words is None:
        weber.plan(build_small("run", publish=publish), progress=ignore_progress)
        lycoris = AdapterConfig(kind="lycoris", lycoris=LycorisConfig(algo="lokr"))
        with pytest.raises(WeberError, match="publish.formats with comfyui"):
            weber.plan(build_small("run", publish=publish).model_copy(update={"adapter": lycoris}), progress=ignore_progress)
        return
    with pytest.raises(PublishError) as caught:
        weber.plan(build_small("run", publish=publish), progress=ignore_progress)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("hub", [None, lambda asked, number: HANG if "repos/create" in asked else None], indirect=True)
def test_a_run_that_ends_early_says_what_was_not_sent(finished: Path, hub: Hub) -> None:
    said: list[str] = []
    is_hanging = hub.misbehave("POST /api/repos/create", 0) == HANG
    with Publisher(PublishConfig(to="me/cat", when="checkpoints"), folder=finished.parent, write=said.append) as publisher:
        publisher.start()
        publisher.add(finished.parent / "checkpoint-000002")
        limit = time.monotonic() + 20
        while time.monotonic() < limit and not (hub.asked if is_hanging else hub.count_files("me/cat")):
            time.sleep(0.02)
        time.sleep(0.2)
    assert bool(said) == is_hanging and all(f"weber publish {finished.parent}" in line for line in said)
