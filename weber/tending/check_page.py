"""The page of `weber data check`: one HTML file with thumbnails in it, which needs no network and no other file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from weber.data.whole import write_whole
from weber.data.words import describe_count
from weber.tending.check import Checked, list_aspects
from weber.tending.findings import Finding, Item
from weber.tending.looking import Seen

_MOST_PER_KIND, _MOST_SHOWN = 300, 1000
_PAIRED = ("copies", "alike", "leaked")


def write_page(checked: Checked, file: Path, *, title: str) -> None:
    """Write the page. Raises DataError where it cannot be written."""
    page = (files("weber.tending") / "check.html").read_text(encoding="utf-8")
    page = page.replace("<!--TITLE-->", escape(title)).replace("<!--BODY-->", _build_body(checked, title))
    write_whole(file, page.encode(errors="replace"))


def _build_body(checked: Checked, title: str) -> str:
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="gray">{describe_count(len(checked.seen), "picture")} looked at</p>',
        _build_cards(checked),
    ]
    for finding in checked.found.findings:
        parts.append(_build_finding(finding, checked))
    for name, seen in checked.sets.items():
        parts.append(_build_set(name, seen, checked))
    parts.append(_build_windows(checked.seen))
    return "\n".join(parts)


def _build_cards(checked: Checked) -> str:
    findings = checked.found.findings
    cards = [
        f'<a class="{"problem" if one.row.is_problem else ""}" href="#{one.kind}"><b>{len(one.items)}</b>{escape(one.row.title)}</a>'
        for one in findings
    ]
    if not any(one.row.is_problem for one in findings):
        cards.insert(0, '<div class="fine"><b>0</b>problems</div>')
    return f'<div class="cards">{"".join(cards)}</div>'


def _build_finding(finding: Finding, checked: Checked) -> str:
    shown = finding.items[:_MOST_PER_KIND]
    figures = "".join(_build_item(finding.kind, item, checked) for item in shown)
    more = f"<p>and {len(finding.items) - len(shown)} more</p>" if len(finding.items) > len(shown) else ""
    title = f"{describe_count(len(finding.items), 'picture')} {finding.row.title}"
    advice = f'<p class="gray">{escape(finding.row.advice)}</p>'
    return f'<h2 id="{finding.kind}">{escape(title)}</h2>{advice}<div class="gallery">{figures}</div>{more}'


def _build_item(kind: str, item: Item, checked: Checked) -> str:
    one = checked.seen[item.place]
    mark = checked.found.marks.get(one.set_name) if kind == "marked" else None
    box = "" if mark is None else _build_box("u", (mark.box[0], mark.box[1], mark.box[2] - mark.box[0], mark.box[3] - mark.box[1]))
    picture = _build_picture(one, box or (_build_window(one) if kind == "cut" else ""))
    if kind in _PAIRED and item.others:
        picture = f'<span class="pair">{picture}{_build_picture(checked.seen[item.others[0]], "")}</span>'
    return f"<figure>{picture}<figcaption>{escape(one.name)}<br><span>{escape(item.detail)}</span></figcaption></figure>"


def _build_set(name: str, seen: Sequence[Seen], checked: Checked) -> str:
    sizes, facts = [one.size for one in seen if one.size[0]], checked.captions[name]
    rows = list_aspects(sizes) if sizes else []
    most = max((number for _, number in rows), default=1)
    table = "".join(
        f'<tr><td>{escape(what)}<td>{number}<td><span class="bar" style="width:{round(240 * number / most)}px"></span>'
        for what, number in rows
    )
    words = "".join(f"<span>{escape(word)} {number}</span>" for word, number in facts.words)
    trigger = ""
    if facts.num_with_trigger is not None:
        trigger = f"<p>“{escape(checked.triggers[name])}” is in {facts.num_with_trigger} of {facts.num_captions}</p>"
    captions = f"{describe_count(facts.num_captions, 'caption')}, {facts.num_distinct} different"
    return (
        f"<h2>{escape(name)}: {describe_count(len(seen), 'picture')}</h2><h3>Width / height</h3><table>{table}</table>"
        f'<h3>{captions}</h3>{trigger}<div class="words">{words}</div>'
    )


def _build_windows(seen: Sequence[Seen]) -> str:
    """What each crop keeps, those that lose most first."""
    cut = sorted((one for one in seen if one.bucket[0]), key=lambda one: -one.lost)
    figures = "".join(
        f"<figure>{_build_picture(one, _build_window(one))}<figcaption>{escape(one.name)}<br><span>{one.size[0]} x {one.size[1]} to"
        f" {one.bucket[0]} x {one.bucket[1]}, {one.lost:.0%} cut off</span></figcaption></figure>"
        for one in cut[:_MOST_SHOWN]
    )
    more = f"<p>and {len(cut) - _MOST_SHOWN} more, which lose less</p>" if len(cut) > _MOST_SHOWN else ""
    return f'<h2>What each crop keeps</h2><div class="gallery">{figures}</div>{more}' if cut else ""


def _build_window(one: Seen) -> str:
    return _build_box("i", one.window) if one.lost > 0 else ""


def _build_box(tag: str, box: tuple[float, float, float, float]) -> str:
    left, top, width, height = (f"{share:.2%}" for share in box)
    return f'<{tag} style="left:{left};top:{top};width:{width};height:{height}"></{tag}>'


def _build_picture(one: Seen, box: str) -> str:
    if one.measures is None or not one.measures.thumb:
        return '<span class="picture none">not shown</span>'
    data = base64.b64encode(one.measures.thumb).decode()
    return f'<span class="picture"><img alt="" loading="lazy" src="data:image/jpeg;base64,{data}">{box}</span>'
