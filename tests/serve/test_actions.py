"""What can be done with a run from its page, and how one begins: which `weber` is called, and what is refused."""

from __future__ import annotations

import http.client
import json
import shutil
import sqlite3
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.serve.browsing import Answer, Client
from weber.config.load import load_config
from weber.serve.queue import QUEUE_NAME
from weber.serve.site import Site

FILES = {
    "simpletuner": (
        "config.json",
        '{"--model_type": "lora", "--model_family": "flux", "--lora_rank": 8, "--data_backend_config": "sets.json"}',
    ),
    "kohya": ("train.sh", "accelerate launch flux_train_network.py --network_dim 8 --learning_rate 1e-4 --train_data_dir dogs\n"),
    "diffusers": (
        "run.sh",
        "accelerate launch train_dreambooth_lora_flux.py --pretrained_model_name_or_path black-forest-labs/FLUX.1-dev --rank 8"
        " --instance_prompt zorb --instance_data_dir dogs --max_train_steps 10\n",
    ),
    "ai-toolkit": (
        "job.yaml",
        "job: extension\nconfig:\n  name: a\n  process:\n  - type: sd_trainer\n    network: {type: lora, linear: 8}\n"
        "    datasets: [{folder_path: dogs}]\n    model: {name_or_path: black-forest-labs/FLUX.1-dev, is_flux: true}\n",
    ),
    "onetrainer": ("one.json", '{"training_method": "LORA", "model_type": "FLUX_DEV_1", "lora_rank": 8, "concepts": [{"path": "dogs"}]}'),
}
SETS = '[{"id": "dogs", "type": "local", "instance_data_dir": "dogs", "caption_strategy": "textfile"}]'


@pytest.fixture
def run(site: Site, client: Client) -> Path:
    """A finished run, as its folder tells it. Nothing is started."""
    client.post("/jobs/pause", paused="1")
    folder = site.roots[0] / "runs" / "a"
    (folder / "pictures" / "step-000002").mkdir(parents=True)
    (folder / "checkpoint-000002").mkdir()
    (folder / "config.toml").write_text(
        f"[model]\nvariant = 'pocket'\n[[data]]\npath = 'dogs'\n[output]\nfolder = '{folder}'\n"
        "[[output.webhooks]]\nkind = 'raw'\nurl = 'https://host/very-secret'\n"
    )
    lines = [json.dumps({"step": step, "loss": 1 / step, "lr": 1e-4, "seconds": 0.5, "grad_norm": 1.0}) for step in range(1, 3001)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "status.json").write_text('{"status": "finished", "step": 3000, "steps": 3000, "time": 5, "started": 1}')
    said = "The run doctor, after step 9: too hot"
    finding = {"time": 1, "type": "finding", "level": "warning", "text": said, "finding": "hot", "step": 9}
    (folder / "events.jsonl").write_text(json.dumps(finding) + "\n")
    (folder / "adapter.safetensors").write_bytes(b"1234")
    info = PngInfo()
    info.add_text("weber", json.dumps({"prompt": "a <b>dog</b>"}))
    Image.new("RGB", (40, 30), "red").save(folder / "pictures" / "step-000002" / "00.png", pnginfo=info)
    return folder


def read_words(site: Site) -> list[str]:
    """The last call of `weber` that was asked for."""
    with sqlite3.connect(site.home / QUEUE_NAME) as connection:
        words: list[str] = json.loads(connection.execute("SELECT words FROM jobs ORDER BY id DESC LIMIT 1").fetchone()[0])
    return words


def test_the_page_of_a_run_shows_what_lies_in_its_folder(client: Client, run: Path) -> None:
    text = client.get("/run", at="runs/a").text
    shown = ("finished", "3,000 steps", "too hot", "checkpoint-000002", "adapter.safetensors", "a &lt;b&gt;dog&lt;/b&gt;", "model.variant")
    for words in shown:
        assert words in text, words
    assert "very-secret" not in text
    [loss, *others] = json.loads(client.get("/run/charts", at="runs/a").text)["charts"]
    assert loss["title"] == "loss" and len(loss["x"]) <= 2400 and loss["x"][0] == 1 and loss["x"][-1] == 3000
    assert loss["lines"][1]["y"][0] == 1.0 and {chart["title"] for chart in others} >= {"learning rate", "steps per second"}
    picture = client.get("/picture", at="runs/a/pictures/step-000002/00.png", small=1)
    assert picture.headers["content-type"] == "image/webp" and picture.body[8:12] == b"WEBP"
    assert client.get("/picture", at="runs/a/adapter.safetensors").status == 404
    assert client.get("/run/download", at="runs/a/adapter.safetensors").headers["content-disposition"].startswith("attachment")
    assert client.get("/run/download", at="runs/a/config.toml").status == 403
    assert "runs/a" in client.get("/").text and client.get("/compare", a="runs/a", b="runs/a").status == 200


def read_stream(client: Client, last: str) -> tuple[str, list[str], str]:
    """What a stream sends until it has told the status: the last id, the texts of lines, and the status."""
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
    try:
        connection.request("GET", "/run/events?at=runs/a", headers={**client.headers, "Last-Event-ID": last})
        answer = connection.getresponse()
        assert answer.headers["content-type"].startswith("text/event-stream")
        texts: list[str] = []
        while True:
            line = answer.readline().decode().strip()
            name, _, value = line.partition(": ")
            last = value if name == "id" else last
            if name == "data" and "text" in json.loads(value):
                texts.append(json.loads(value)["text"])
            elif name == "data":
                return last, texts, json.loads(value)["status"]
    finally:
        connection.close()


def test_what_happens_is_sent_and_goes_on_where_a_browser_was(client: Client, run: Path) -> None:
    last, texts, status = read_stream(client, "0")
    assert texts == ["The run doctor, after step 9: too hot"] and status == "finished"
    assert int(last) == (run / "events.jsonl").stat().st_size
    with (run / "events.jsonl").open("a") as stream:
        stream.write('{"text": "new"}\n{"text": "half')
    last, texts, _ = read_stream(client, last)
    assert texts == ["new"]
    with (run / "events.jsonl").open("a") as stream:
        stream.write(' of it"}\n')
    assert read_stream(client, last)[1] == ["half of it"]
    (run / "events.jsonl").write_text('{"text": "another file"}\n')
    assert read_stream(client, "99999")[1] == ["another file"]


def test_what_is_done_with_a_run_is_a_call_of_weber(client: Client, site: Site, run: Path) -> None:
    def ask(action: str, **fields: object) -> list[str]:
        answer = client.post(f"/run/{action}", at="runs/a", **fields)
        assert answer.status == 303 and answer.headers["location"].startswith("/job?id="), answer.text
        assert client.get(answer.headers["location"]).status == 200
        return read_words(site)

    adapter = str(run / "adapter.safetensors")
    painted = ask("sample", place="adapter.safetensors", prompt="a dog\n--out=/etc\n", strength="0.5", num=2, seed=7)
    assert painted == ["sample", adapter, "--prompt=a dog", "--prompt=--out=/etc", "--num=2", "--strength=0.5", "--seed=7"]
    assert ask("export", format=["comfyui", "kohya"]) == ["export", str(run), "--format=comfyui", "--format=kohya"]
    assert ask("check", place="checkpoint-000002") == ["check", str(run / "checkpoint-000002")]
    merged = ask("merge", other="runs/a", weight=1, other_weight="0.5", name="../x")
    assert merged == ["merge", f"{run}:1", f"{run}:0.5", f"--out={run}/x.safetensors"]
    assert ask("publish", to="me/mine", send=0, consent=1) == ["publish", str(run), "me/mine", "--dry-run"]
    assert ask("publish", send=1, public=1, consent=1, trigger="--x") == ["publish", str(run), "--public", "--consent", "--trigger=--x"]
    assert ask("report", other="runs/a") == ["report", str(run), str(run)]
    assert ask("resume", steps=4000) == ["train", str(run / "config.toml"), "train.steps=4000", "--resume"]
    for action, fields in (
        ("resume", {}),
        ("sample", {"prompt": ""}),
        ("sample", {"prompt": "x", "place": "../a"}),
        ("sample", {"prompt": "x", "strength": "much"}),
        ("export", {"format": "exe"}),
        ("merge", {"other": "../b"}),
        ("publish", {"to": "--public"}),
        ("report", {"other": "nothing"}),
    ):
        assert client.post(f"/run/{action}", at="runs/a", **fields).status == 400, (action, fields)


def test_files_are_named_before_they_are_deleted(client: Client, run: Path) -> None:
    asked = client.get("/run/delete", at="runs/a").text
    assert all(name in asked for name in ("checkpoint-000002/", "adapter.safetensors", "metrics.jsonl"))
    assert client.post("/run/delete", at="runs/a", name="b").status == 400
    assert "Delete checkpoint-000002" in client.post("/run/checkpoint/delete", at="runs/a", name="checkpoint-000002").text
    assert client.post("/run/checkpoint/delete", at="runs/a", name="checkpoint-000002", sure=1).status == 303
    assert not (run / "checkpoint-000002").exists() and run.is_dir()
    assert client.post("/run/delete", at="runs/a", name="a").status == 303
    assert not run.exists() and run.parent.is_dir() and not list(run.parent.iterdir())


def test_three_answers_become_a_file_that_says_why(client: Client, site: Site, pictures: Path) -> None:
    root = site.roots[0]
    shutil.copytree(pictures, root / "dogs")
    for captions, source in (("", None), ("instance", "instance"), ("filename", "filename")):
        answer = client.post("/start", pictures="dogs", word="zorb", captions=captions)
        assert answer.status == 303, answer.text
        [file] = parse_qs(urlsplit(answer.headers["location"]).query)["file"]
        config = load_config(root / file)
        assert config.data[0].captions == source and config.model.variant == "pocket" and "#" in (root / file).read_text()
        assert (config.data[0].instance_prompt == "zorb") == (captions == "instance")
    client.post("/jobs/pause", paused=1)
    (root / "out.toml").write_text("[[data]]\npath = 'dogs'\n[output]\nfolder = '/elsewhere'\n")
    refused = client.post("/start/go", file="out.toml")
    assert refused.status == 400 and "output.folder = /elsewhere" in refused.text
    assert client.post("/start/go", file="zorb.toml").status == 303 and read_words(site) == ["train", str(root / "zorb.toml")]
    assert client.post("/start", pictures="nowhere", word="zorb").status == 400
    assert client.post("/start", pictures="dogs", card="RTX 9999").status == 400


@pytest.mark.parametrize("trainer", FILES)
def test_a_file_of_each_trainer_is_explained_and_kept_as_ours(client: Client, site: Site, trainer: str) -> None:
    name, text = FILES[trainer]
    files = {name: text.encode()} | ({"sets.json": SETS.encode()} if trainer == "simpletuner" else {})
    sent: Answer = client.upload("/start/import", files)
    assert sent.status == 303, sent.text
    shown = client.get(sent.headers["location"])
    assert shown.status == 200, shown.text
    assert "mean the same here" in shown.text and "The file as it would be" in shown.text
    [number] = parse_qs(urlsplit(sent.headers["location"]).query)["id"]
    kept = client.post("/start/imported", id=number, name="mine")
    assert kept.status == 303 and kept.headers["location"] == "/start/look?file=mine.toml"
    assert load_config(site.roots[0] / "mine.toml").adapter.rank == 8
    assert str(site.home) not in (site.roots[0] / "mine.toml").read_text()
