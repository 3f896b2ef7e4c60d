"""The form of settings: what is typed is in the file, with comments kept, and nothing of anybody is lost."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from tests.serve.browsing import Answer, Client
from weber.serve.site import Site

SOURCE = """\
# the first run
[[data]]
path = "pictures" # mine

[train]
steps = 100 # few
"""


@pytest.fixture
def run(site: Site) -> Path:
    """A file of settings in a folder below the root."""
    path = site.roots[0] / "a" / "run.toml"
    path.parent.mkdir()
    path.write_text(SOURCE, encoding="utf-8")
    return path


def read_fields(answer: Answer) -> dict[str, str]:
    """What a browser sends when the form is sent as it came."""
    form = answer.text.partition('<form id="settings"')[2].partition("</form>")[0]
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))
    fields |= dict(re.findall(r'<input (?:type="password" )?id="f-[^"]*" name="([^"]*)"[^>]* value="([^"]*)"', form))
    fields |= dict(re.findall(r'<textarea id="f-[^"]*" name="([^"]*)"[^>]*>([^<]*)<', form))
    for name, inner in re.findall(r'<select id="f-[^"]*" name="([^"]*)"[^>]*>(.*?)</select>', form, re.DOTALL):
        chosen = re.findall(r'value="([^"]*)" selected', inner)
        fields[name] = chosen[0] if chosen else ""
    return {name: unescape(value) for name, value in fields.items()}


def test_what_is_typed_is_written_with_comments_kept(client: Client, run: Path) -> None:
    assert 'href="/settings?file=a/run.toml"' in client.get("/settings").text
    shown = client.get("/settings", file="a/run.toml")
    fields = read_fields(shown)
    assert fields["v.train.steps"] == "100" and len(fields) > 150 and fields["v.adapter.kind"] == ""
    assert client.post("/settings", **fields, do="save").status == 303 and run.read_text(encoding="utf-8") == SOURCE
    typed = fields | {"v.train.steps": "300", "v.optim.lr": "2e-4", "v.sampling.prompts": "a cat\r\na dog", "v.adapter.kind": "lora"}
    answer = client.post("/settings", **typed, do="save")
    assert answer.status == 303 and answer.headers["location"].startswith("/settings?file=a%2Frun.toml")
    text = run.read_text(encoding="utf-8")
    assert "steps = 300 # few\n" in text and 'prompts = ["a cat", "a dog"]' in text and "# the first run" in text and "lr = 0.0002" in text
    assert "kind" in text  # it was said, although it is the default


def test_fields_are_checked_while_they_are_typed(client: Client, run: Path) -> None:
    fields = read_fields(client.get("/settings", file="a/run.toml"))
    wrong = client.post("/settings/check", **fields | {"v.train.steps": "many", "v.train.seed": "-1"})
    assert "Not written yet: 2 to mend" in wrong.text and 'id="m-train-steps"' in wrong.text and "at least 0" in wrong.text
    assert run.read_text(encoding="utf-8") == SOURCE
    good = client.post("/settings/check", **fields | {"v.train.steps": "7", "told": "train.steps train.seed"})
    assert "Written to a/run.toml" in good.text
    assert '<div class="said" id="m-train-seed" role="alert" hx-swap-oob="true"></div>' in good.text
    assert "steps = 7 # few" in run.read_text(encoding="utf-8")
    [stamp] = re.findall(r'name="stamp" value="(\w+)"', good.text)
    again = client.post("/settings/check", **fields | {"v.train.steps": "8", "stamp": stamp})
    assert "Written to" in again.text and "steps = 8 # few" in run.read_text(encoding="utf-8")


def test_a_refused_form_keeps_what_was_typed_and_may_be_written_all_the_same(client: Client, run: Path) -> None:
    fields = read_fields(client.get("/settings", file="a/run.toml")) | {"v.train.epochs": "3", "v.output.folder": "runs/x"}
    refused = client.post("/settings", **fields, do="save")
    assert refused.status == 422 and "Not written yet" in refused.text and "steps and epochs cannot both be set" in refused.text
    assert read_fields(refused)["v.output.folder"] == "runs/x" and run.read_text(encoding="utf-8") == SOURCE
    assert client.post("/settings", **read_fields(refused), do="force").status == 303
    assert "epochs = 3" in run.read_text(encoding="utf-8")


def test_an_edit_from_outside_is_said_and_nothing_is_lost(client: Client, run: Path) -> None:
    fields = read_fields(client.get("/settings", file="a/run.toml"))
    run.write_text(SOURCE.replace("100", "555") + "seed = 9\n", encoding="utf-8")
    assert "changed by somebody else" in client.post("/settings/check", **fields | {"v.train.steps": "300"}).text
    conflict = client.post("/settings", **fields | {"v.train.steps": "300"}, do="save")
    assert conflict.status == 409 and "The file says: <code>555</code>" in conflict.text and "<code>9</code>" in conflict.text
    assert "555" in run.read_text(encoding="utf-8") and read_fields(conflict)["v.train.steps"] == "300"
    assert client.post("/settings", **read_fields(conflict), do="save").status == 303
    assert "steps = 300 # few" in run.read_text(encoding="utf-8")


def test_tables_are_added_filled_and_taken_out(client: Client, run: Path) -> None:
    fields = read_fields(client.get("/settings", file="a/run.toml"))
    opened = client.post("/settings", **fields, do="add data.0.caption_steps.0")
    fields = read_fields(opened)
    assert run.read_text(encoding="utf-8") == SOURCE and fields["add"] == "data.0.caption_steps.0"
    fields |= {"v.data.0.caption_steps.0.kind": "trigger", "v.data.0.caption_steps.0.text": "zorb"}
    assert client.post("/settings", **fields, do="save").status == 303
    assert '# mine\n\n[[data.caption_steps]]\nkind = "trigger"\ntext = "zorb"\n\n[train]' in run.read_text(encoding="utf-8")
    more = read_fields(client.post("/settings", **read_fields(client.get("/settings", file="a/run.toml")), do="add data.0.caption_steps.1"))
    more |= {"v.data.0.caption_steps.1.kind": "suffix", "v.data.0.caption_steps.1.text": "!"}
    assert client.post("/settings", **more, do="save").status == 303
    shown = client.get("/settings", file="a/run.toml")
    assert "Move [[data.caption_steps]] 2 up" in shown.text and "Move [[data.caption_steps]] 1 up" not in shown.text
    moved = client.post("/settings", **read_fields(shown), do="up data.0.caption_steps.1")
    assert read_fields(moved)["v.data.0.caption_steps.0.kind"] == "suffix"
    left = client.post("/settings", **read_fields(moved), do="remove data.0.caption_steps.0")
    assert client.post("/settings", **read_fields(left), do="remove data.0.caption_steps.0").status == 200
    assert run.read_text(encoding="utf-8") == SOURCE


def test_what_is_no_setting_is_kept_and_flagged(client: Client, run: Path) -> None:
    run.write_text(SOURCE + "stepz = 5\n", encoding="utf-8")
    shown = client.get("/settings", file="a/run.toml")
    assert "Lines that are no settings" in shown.text and "train.stepz" in shown.text and "Take train.stepz out" in shown.text
    fields = read_fields(shown) | {"v.train.batch_size": "2"}
    live = client.post("/settings/check", **fields | {"v.train.seed": "1"})
    assert "Written to a/run.toml" in live.text and "1 to mend" in live.text
    fields = read_fields(client.get("/settings", file="a/run.toml")) | {"v.train.seed": ""}
    assert client.post("/settings", **fields, do="save").status == 303
    text = run.read_text(encoding="utf-8")
    assert "stepz = 5\n" in text and "batch_size = 2" in text
    stamp = read_fields(client.get("/settings", file="a/run.toml"))["stamp"]
    assert client.post("/settings/remove", file="a/run.toml", stamp=stamp, key="train.stepz").status == 303
    assert "stepz" not in run.read_text(encoding="utf-8")


def test_no_secret_is_in_a_page_and_its_file_is_private(client: Client, run: Path) -> None:
    fields = read_fields(client.post("/settings", **read_fields(client.get("/settings", file="a/run.toml")), do="add output.webhooks.0"))
    fields |= {"v.output.webhooks.0.kind": "raw", "v.output.webhooks.0.url": "https://example.org/hush-hush"}
    assert client.post("/settings", **fields, do="save").status == 303 and "hush-hush" in run.read_text(encoding="utf-8")
    assert run.stat().st_mode & 0o077 == 0
    shown = client.get("/settings", file="a/run.toml")
    assert "hush-hush" not in shown.text and "not shown" in shown.text
    assert client.post("/settings", **read_fields(shown) | {"v.train.steps": "5"}, do="save").status == 303
    assert "hush-hush" in run.read_text(encoding="utf-8")
    broken = client.post("/settings/check", **read_fields(shown) | {"v.output.webhooks.0.url": "ftp://other-secret"})
    assert "other-secret" not in broken.text and "1 to mend" in broken.text or "no address of a server" in broken.text


def test_only_files_of_settings_are_opened_and_a_new_one_can_be_made(client: Client, run: Path) -> None:
    (run.parent / "a.txt").write_text("a cat", encoding="utf-8")
    assert client.get("/settings", file="a/a.txt").status == 400 and client.get("/settings", file="../run.toml").status == 400
    run.write_text("[train\n", encoding="utf-8")
    assert "not valid TOML at line 1" in client.get("/settings", file="a/run.toml").text
    fields = read_fields(client.get("/settings", file="new.toml")) | {"v.train.steps": "5"}
    opened = read_fields(client.post("/settings", **fields, do="add data.0")) | {"v.data.0.path": "a"}
    assert client.post("/settings", **opened, do="save").status == 303
    assert (run.parents[1] / "new.toml").read_text(encoding="utf-8") == '[[data]]\npath = "a"\n\n[train]\nsteps = 5\n'


def test_odd_requests_are_answered_in_words(client: Client, run: Path) -> None:
    fields, many = read_fields(client.get("/settings", file="a/run.toml")), "9" * 5000
    asked = [
        client.post("/settings", **fields | {f"v.data.{many}.path": "x", "v.data.7.path": "x", "v.train.steps": "\0"}, do="save"),
        client.post("/settings", **fields, do=f"remove data.{many}"),
        client.post("/settings", **fields, do="add \0.[["),
        client.post("/settings/remove", file="a/run.toml", stamp="x", key=many),
        client.get("/settings", file="a/run.toml", add=f"data.{many}"),
        client.get("/plan", file="a/run.toml", card="\0 RTX", price="nan"),
        client.get("/data", file="a/run.toml", start=many, set="-1", order="x"),
        client.get("/data/rows", file="a/run.toml", start="\u0663"),
        client.get("/data/thumbnail?path=%00.png"),
    ]
    assert [one.status for one in asked if one.status >= 500] == [] and run.read_text(encoding="utf-8") == SOURCE
