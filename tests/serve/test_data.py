"""The page of pictures: what is seen, written and moved, and what a plan adds to it."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.serve.browsing import Client
from weber.captioners.table import CAPTIONERS
from weber.captioners.tagger import TAGGERS
from weber.data.left_out import ASIDE_FOLDER
from weber.serve.describing import DESCRIBERS
from weber.serve.gallery import PORTION
from weber.serve.queue import Queue
from weber.serve.site import Site
from weber.serve.thumbnails import load_thumbnail

RUN = """\
[model]
variant = "pocket"
[[data]]
path = "pictures"
[train]
steps = 4
[output]
folder = "runs/a"
cache = "runs/cache"
"""


@pytest.fixture
def run(site: Site) -> Path:
    """A run with three pictures: one is wide, one has no caption."""
    root = site.roots[0]
    (root / "pictures" / "in").mkdir(parents=True)
    for name, size, color in (("wide.png", (200, 90), "red"), ("in/a b.jpg", (64, 64), "blue"), ("bare.png", (64, 64), "green")):
        Image.new("RGB", size, color).save(root / "pictures" / name)
    (root / "pictures" / "wide.txt").write_text("a <red> wall\n", encoding="utf-8")
    (root / "pictures" / "in" / "a b.txt").write_text("a sky\n", encoding="utf-8")
    (root / "run.toml").write_text(RUN, encoding="utf-8")
    return root / "run.toml"


def read_stamp(text: str, place: str) -> str:
    """That of the caption of a picture."""
    [stamp] = re.findall(rf'name="picture" value="{re.escape(place)}"><input type="hidden" name="stamp" value="(\w+)"', text)
    return stamp


def test_pictures_and_captions_are_shown_before_anything_was_looked_at(client: Client, run: Path) -> None:
    page = client.get("/data", file="run.toml")
    assert page.status == 200 and "<strong>3</strong> pictures" in page.text and "a &lt;red&gt; wall" in page.text
    assert page.text.index("bare.png") < page.text.index("in/a b.jpg") < page.text.index("wide.png")
    small = client.get("/data/thumbnail?path=pictures/wide.png")
    assert small.headers["content-type"] == "image/webp" and Image.open(io.BytesIO(small.body)).size == (200, 90)
    assert client.get("/data/picture?path=pictures/in/a%20b.jpg").headers["content-type"] == "image/jpeg"
    assert client.get("/data/thumbnail?path=pictures/wide.txt").status == 400 and client.get("/data/picture?path=../x.png").status == 400
    assert "1</strong> picture" in client.get("/data", file="run.toml", order="none").text


def test_a_caption_is_written_where_nobody_has_changed_it(client: Client, run: Path) -> None:
    page, file = client.get("/data", file="run.toml"), run.parent / "pictures" / "wide.txt"
    fields = {"file": "run.toml", "set": "0", "picture": "pictures/wide.png", "stamp": read_stamp(page.text, "pictures/wide.png")}
    answer = client.post("/data/caption", **fields, text="a wall\r\nof bricks")
    assert answer.status == 303 and file.read_text(encoding="utf-8") == "a wall\nof bricks\n"
    stale = client.post("/data/caption", **fields, text="mine")
    assert stale.status == 409 and "a wall" in stale.text and "mine" in stale.text
    assert file.read_text(encoding="utf-8") == "a wall\nof bricks\n"
    bare = fields | {"picture": "pictures/bare.png", "stamp": read_stamp(page.text, "pictures/bare.png")}
    assert client.post("/data/caption", **bare, text="grass").status == 303
    assert (file.parent / "bare.txt").read_text(encoding="utf-8") == "grass\n"
    outside = client.post("/data/caption", **fields | {"picture": "run.toml"}, text="x")
    assert outside.status == 400 and run.read_text(encoding="utf-8") == RUN


def test_a_picture_is_set_aside_and_taken_back_and_nothing_is_deleted(client: Client, run: Path) -> None:
    folder, fields = run.parent / "pictures", {"file": "run.toml", "set": "0"}
    assert client.post("/data/aside", **fields, picture="pictures/in/a b.jpg").status == 303
    aside = folder / ASIDE_FOLDER / "in"
    assert sorted(one.name for one in aside.iterdir()) == ["a b.jpg", "a b.txt"] and not (folder / "in" / "a b.jpg").exists()
    page = client.get("/data", file="run.toml")
    assert "<strong>2</strong> pictures" in page.text and "Set aside by you: 1" in page.text
    Image.new("RGB", (8, 8)).save(folder / "in" / "a b.jpg")
    refused = client.post("/data/back", **fields, picture="pictures/set-aside/in/a b.jpg")
    assert refused.status == 400 and "another file of that name" in refused.text and (aside / "a b.jpg").exists()
    (folder / "in" / "a b.jpg").unlink()
    assert client.post("/data/back", **fields, picture="pictures/set-aside/in/a b.jpg").status == 303
    assert (folder / "in" / "a b.txt").read_text(encoding="utf-8") == "a sky\n"
    assert client.post("/data/back", **fields, picture="pictures/wide.png").status == 400


def test_captions_are_a_job_of_the_queue(client: Client, run: Path, site: Site) -> None:
    """Its words are those of the verb, for the folder of the set alone; what is no captioner is refused."""
    assert [*DESCRIBERS["caption"]] == sorted(CAPTIONERS, key=DESCRIBERS["caption"].index) and set(DESCRIBERS["tag"]) == set(TAGGERS)
    assert client.get("/data", file="run.toml").text.count("<option>") == len(CAPTIONERS) + len(TAGGERS)
    fields = {"file": "run.toml", "set": "0", "prefix": "ohwx, "}
    assert client.post("/data/describe", **fields, **{"with": "wd14"}, overwrite="1").status == 303
    assert client.post("/data/describe", **fields, **{"with": "--help"}).status == 400
    [job] = Queue(site).list_open()
    folder = str(run.parent / "pictures")
    words = ["tag", folder, "--with", "wd14", "--ending=.txt", "--prefix=ohwx, ", "--overwrite"]
    assert list(job.words) == words and job.is_heavy


def test_a_large_set_comes_in_portions(client: Client, run: Path) -> None:
    for number in range(PORTION + 5):
        (run.parent / "pictures" / f"z{number:03}.png").write_bytes((run.parent / "pictures" / "bare.png").read_bytes())
    page = client.get("/data", file="run.toml")
    assert page.text.count('<article class="picture"') == PORTION
    [more] = re.findall(r'hx-get="/data/rows\?([^"]*)"', page.text)
    rest = client.get(f"/data/rows?{more.replace('&amp;', '&')}")
    assert rest.text.count('<article class="picture"') == 8 and "hx-get" not in rest.text.rpartition("</article>")[2]


def test_problems_are_found_and_set_aside_by_a_button_and_taken_back(client: Client, run: Path) -> None:
    """By a real `weber data check` of its own; those that `--apply` has moved go back to where they were, too."""
    folder = run.parent / "pictures"
    Image.effect_noise((64, 64), 90).convert("RGB").save(folder / "noise.png")
    for name in ("twin.png", "in/third.png"):
        (folder / name).write_bytes((folder / "noise.png").read_bytes())
    for name in ("noise", "twin", "in/third", "bare"):
        (folder / f"{name}.txt").write_text("something\n", encoding="utf-8")
    assert "Look for them" in client.get("/problems", file="run.toml").text
    assert client.post("/problems", file="run.toml").status == 303
    deadline = time.monotonic() + 300
    while "Looking:" in (page := client.get("/problems", file="run.toml")).text and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "2 there more than once, byte for byte" in page.text and "Set 2 aside" in page.text, page.text
    answer = client.post("/problems/aside", file="run.toml", kind="copies")
    assert answer.status == 303 and "moved=2" in answer.headers["location"]
    left = {one.name for one in (*folder.glob("*.png"), *folder.glob("in/*.png"))}
    assert len({"noise.png", "twin.png", "third.png"} & left) == 1
    assert "Set 2 aside" not in client.get("/problems", file="run.toml").text
    moved = next((folder / ASIDE_FOLDER).rglob("*.png"))
    sorted_by_kind = folder / ASIDE_FOLDER / "copies" / moved.name
    sorted_by_kind.parent.mkdir()
    moved.rename(sorted_by_kind)
    row = {"source": str(folder / "in" / "was here.png"), "target": str(sorted_by_kind)}
    (folder / ASIDE_FOLDER / "undo-0001.json").write_text(json.dumps({"moves": [row]}), encoding="utf-8")
    assert client.post("/data/back", file="run.toml", set="0", picture=f"pictures/set-aside/copies/{moved.name}").status == 303
    assert (folder / "in" / "was here.png").is_file()


def test_small_pictures_are_made_once_by_what_they_show(site: Site, tmp_path: Path) -> None:
    turned, exif = Image.new("RGB", (600, 300), "red"), Image.Exif()
    exif[274] = 6
    turned.save(tmp_path / "a.jpg", exif=exif)
    first = load_thumbnail(site, tmp_path / "a.jpg")
    assert Image.open(first).size == (128, 256)
    made = first.stat().st_mtime_ns
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    assert load_thumbnail(site, tmp_path / "b.jpg") == first and first.stat().st_mtime_ns == made
    turned.save(tmp_path / "a.jpg")
    assert Image.open(load_thumbnail(site, tmp_path / "a.jpg")).size == (256, 128)


def _make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_plan_says_what_becomes_of_each_picture_and_of_the_run(client: Client, run: Path) -> None:
    """By a real `weber plan` of its own."""
    Image.new("L", (200, 90), 128).save(_make(run.parent / "masks") / "wide.png")
    run.write_text(RUN.replace('"pictures"', '"pictures"\nloss_masks = "masks"'), encoding="utf-8")
    waiting = client.get("/plan", file="run.toml")
    assert "Not planned yet" in waiting.text and "known yet" in client.get("/data", file="run.toml").text
    assert client.post("/data/look", file="run.toml").status == 303
    assert "hx-get" in client.get("/plan/state", file="run.toml").text
    deadline = time.monotonic() + 300
    while "Looking at the pictures" in (page := client.get("/data", file="run.toml")).text and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "as of" in page.text, page.text
    [shares] = re.findall(r'<rect class="window" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', page.text)
    left, top, width, height = map(float, shares)
    assert (top, height) == (0, 1) and 0.1 < left < 0.2 and abs(left + width / 2 - 0.5) < 0.01
    assert re.search(r"200 x 90 &rarr; <strong>\d+ x \d+</strong>, <span.*% cut", page.text)
    assert "mask for the loss of wide.png" in page.text and client.get("/data/thumbnail?path=masks/wide.png").status == 200
    assert re.search(r"\d+ clip tokens</span>, <span>\d+ t5 tokens", page.text) and "no caption file" in page.text
    plan = client.get("/plan", file="run.toml", price="3600")
    assert "4 steps with 2 pictures" in plan.text and "weights of the blocks" in plan.text and "3600 per hour" in plan.text
    run.write_text(RUN.replace("pictures", "absent"), encoding="utf-8")
    assert "Not planned yet" in client.get("/plan", file="run.toml").text
    facts = json.loads(next((run.parent / ".weber" / "errands").glob("*.out")).read_text(encoding="utf-8"))
    assert facts["num_steps"] == 4 and facts["text_limits"] == {"clip": 77, "t5": 24} and sum(facts["seconds"].values()) > 0
