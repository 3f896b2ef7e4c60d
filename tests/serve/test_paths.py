"""No text leads out of the roots."""

from __future__ import annotations

from pathlib import Path

import pytest

from weber.errors import ConfigError
from weber.serve.paths import clean_name, resolve_path, shorten
from weber.serve.site import Site

BAD = [
    *("", " ", "..", "../x", "a/../../x", "a/..", "/etc/passwd", "/", "~/x", "~root", "a\x00b", "a\nb", "C:", "C:/x"),
    *("c:\\x", "\\\\host\\share"),
    *("//host/share", "file:///etc/passwd", "file:x", "http://a/b", "s3://b/c", "CON", "a/nul.txt", "COM1", "lpt9.png", "aux ", "x\u202ey"),
    *("x" * 300, "y/" * 1500, "..\\x", "%2e%2e\\", "\ud800", ".weber/token", ".weber", "out", "out/passwd", "a/./../.weber/queue.sqlite"),
]


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_leads_out_is_refused(site: Site, text: str) -> None:
    (site.roots[0] / "out").symlink_to("/etc")
    (site.roots[0] / "a").mkdir()
    with pytest.raises(ConfigError, match="This path cannot be used"):
        resolve_path(site, text)


def test_what_is_inside_is_found(site: Site) -> None:
    root = site.roots[0]
    (root / "runs" / "a b").mkdir(parents=True)
    (root / "link").symlink_to(root / "runs")
    pairs = {"runs/a b": "runs/a b", "./runs": "runs", str(root / "runs"): "runs", "new/of it": "new/of it", "link": "runs"}
    for text, found in pairs.items():
        assert resolve_path(site, text) == root / found
    assert resolve_path(site, ".") == root
    assert shorten(site, root / "runs" / "a b") == "runs/a b" and shorten(site, root) == str(root)
    assert resolve_path(site, shorten(site, root)) == root


def test_of_two_roots_a_name_means_what_is_there(tmp_path: Path, site: Site) -> None:
    both = Site((site.roots[0], tmp_path / "other"), site.home, "t", site.templates)
    (tmp_path / "other" / "x").mkdir(parents=True)
    assert resolve_path(both, "x") == tmp_path / "other" / "x" == resolve_path(both, shorten(both, tmp_path / "other" / "x"))
    (site.roots[0] / "x").mkdir()
    assert resolve_path(both, "x") == site.roots[0] / "x"
    assert resolve_path(both, shorten(both, tmp_path / "other" / "x")) == tmp_path / "other" / "x"


def test_names_of_files_are_cleaned() -> None:
    for text, name in (
        ("../../etc/passwd", "passwd"),
        ("C:\\dir\\cat.png", "cat.png"),
        ("a\x00b<>:|?*.png", "ab______.png"),
        (" .hidden. ", "hidden"),
        ("Ж é.jpg", "Ж é.jpg"),
        ("x" * 300 + ".png", "x" * 116 + ".png"),
    ):
        assert clean_name(text) == name
    for text in ("", "..", "///", "CON.png", "nul", "\x00", "___"):
        with pytest.raises(ConfigError, match="name cannot be used"):
            clean_name(text)
