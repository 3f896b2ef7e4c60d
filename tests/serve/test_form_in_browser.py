"""The form and the pictures in a real browser: what a person types is in the file, and no script is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.serve.browsing import Client, serving
from tests.serve.chromium import Browser, browsing, needs_chromium
from weber.serve.site import Site

RUN = """\
[model]
variant = "pocket" # mine

[[data]]
path = "pictures"
"""


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    """A site with a run and two pictures."""
    folder = site.roots[0] / "pictures"
    folder.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (64, 64), "red").save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text("a wall\n", encoding="utf-8")
    (site.roots[0] / "run.toml").write_text(RUN, encoding="utf-8")
    with serving(site) as client:
        yield client


@needs_chromium
def test_a_person_changes_settings_and_pictures(client: Client, site: Site, tmp_path: Path) -> None:
    run, pictures = site.roots[0] / "run.toml", site.roots[0] / "pictures"
    with browsing(tmp_path / "profile") as browser:
        browser.show(1280, 900)
        browser.open(f"{client.origin}/settings?file=run.toml&token={client.token}")
        _change_settings(browser, run)
        browser.open(f"{client.origin}/data?file=run.toml")
        _change_pictures(browser, pictures)
        assert browser.errors == [] and all(one.startswith((client.origin, "about:", "data:", "blob:")) for one in browser.asked)


def _change_settings(browser: Browser, run: Path) -> None:
    """By the search, the keyboard, a mistake and its correction."""
    browser.type("#find", "batch_size")
    browser.wait("document.querySelectorAll('.setting:not(.elsewhere)').length < 20")
    browser.type("#f-train-batch_size", "two")
    browser.press("Tab")
    browser.wait("document.querySelector('#m-train-batch_size').innerText.includes('whole number')")
    assert run.read_text(encoding="utf-8") == RUN and "Not written yet" in browser.text
    browser.type("#f-train-batch_size", "2")
    browser.press("Enter")
    browser.wait("document.querySelector('#state').innerText.includes('Written')")
    assert run.read_text(encoding="utf-8") == RUN + "\n[train]\nbatch_size = 2\n"
    assert browser.read("document.querySelector('#m-train-batch_size').innerText") == ""
    browser.type("#f-train-batch_size", "")
    browser.press("Tab")
    browser.wait("document.querySelector('#d-train-batch_size').innerText === ''")
    assert "batch_size" not in run.read_text(encoding="utf-8") and 'variant = "pocket" # mine' in run.read_text(encoding="utf-8")


def _change_pictures(browser: Browser, pictures: Path) -> None:
    """A caption, and a picture that is set aside and taken back."""
    browser.wait("[...document.querySelectorAll('.frame img')].every((one) => one.naturalWidth === 64)")
    browser.type(".picture:nth-of-type(1) textarea", "a red wall")
    browser.press("Tab")
    browser.wait("document.querySelector('.picture .good')?.innerText === 'Written.'")
    assert (pictures / "a.txt").read_text(encoding="utf-8") == "a red wall\n"
    browser.click(".picture:nth-of-type(2) .aside button")
    browser.wait("document.body.innerText.includes('is set aside')")
    assert not (pictures / "b.png").exists() and (pictures / "set-aside" / "b.png").exists()
    browser.click(".picture.gone button")
    browser.wait("document.body.innerText.includes('is in the set again')")
    assert (pictures / "b.png").exists() and (pictures / "b.txt").exists()
