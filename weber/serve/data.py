"""The pictures of a run: what is cut out of each, what is said of it, and what stays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from weber.config.document import Document, write_document
from weber.data.formats import SUFFIXES
from weber.errors import ChangedError, DataError
from weber.serve.describing import DESCRIBERS
from weber.serve.files import find_file, list_settings_files
from weber.serve.gallery import (
    ORDERS,
    PORTION,
    Entry,
    PictureSet,
    check_local,
    find_picture,
    list_aside,
    list_entries,
    list_refused,
    list_sets,
    move_aside,
    move_back,
    read_caption,
)
from weber.serve.paths import resolve_path, shorten
from weber.serve.planned import Planned, find_planned, start_planning
from weber.serve.reply import find_site, go, read_text, refuse, render, take_form
from weber.serve.site import Site
from weber.serve.thumbnails import load_thumbnail

_SHOWN = {f".{kind}": f"image/{kind}" for kind in ("png", "jpeg", "webp", "gif", "avif")} | {".jpg": "image/jpeg"}
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
_MOST_SHOWN, _MOST_DIGITS = 200, 8
"""Pictures that are set aside; digits of a number in an address."""


def routes(site: Site) -> list[Route]:
    """The pages of this file."""
    return [
        Route("/data", show_data),
        Route("/data/rows", show_rows),
        Route("/data/state", show_state),
        Route("/data/look", take_form(start_looking), methods=["POST"]),
        Route("/data/caption", take_form(change_caption), methods=["POST"]),
        Route("/data/aside", take_form(set_aside), methods=["POST"]),
        Route("/data/back", take_form(take_back), methods=["POST"]),
        Route("/data/thumbnail", show_thumbnail),
        Route("/data/picture", show_picture),
    ]


@dataclass(frozen=True)
class Card:
    """A picture on the page: its entry, its names, and the text that is edited with its stamp; `others`: references and masks, by what they
    are."""

    entry: Entry
    name: str
    place: str
    version: int
    caption: Document | None
    others: Sequence[tuple[str, str]]
    number: int

    @property
    def text(self) -> str:
        """Of the caption."""
        return "" if self.caption is None else self.caption.text.rstrip("\n")


def show_data(request: Request) -> Response:
    """The sets of a file of settings and the first pictures of one, or the files that there are."""
    site, name = find_site(request), request.query_params.get("file", "").strip()
    if not name:
        return render(request, "settings_files.html", files=list_settings_files(site), page="/data", title="Pictures")
    return render(request, "data.html", **_describe(request, request.query_params))


def show_rows(request: Request) -> Response:
    """Further pictures of a set."""
    return render(request, "data_cards.html", **_describe(request, request.query_params))


def _describe(request: Request, given: Mapping[str, Any]) -> dict[str, Any]:
    site = find_site(request)
    file = find_file(site, given.get("file", ""))
    sets = list_sets(site, file)
    chosen = _choose(sets, given.get("set", "0"))
    planned = find_planned(site, file)
    order = given.get("order", "name") if given.get("order") in ORDERS else "name"
    start = _read_number(given.get("start", "0"))
    found = list_entries(chosen, planned.pictures, order=order)
    entries = [one for one in found[start : start + PORTION] if one.path.is_file()]
    name = shorten(site, file)
    following = start + PORTION if start + PORTION < len(found) else None
    return {
        "file": name,
        "sets": sets,
        "chosen": chosen,
        "planned": planned,
        "limits": {} if planned.facts is None else planned.facts["text_limits"],
        "orders": ORDERS,
        "describers": DESCRIBERS,
        "order": order,
        "num": len(found),
        "start": start,
        "cards": [_build_card(site, chosen, one, number) for number, one in enumerate(entries, start + 1)],
        "refused": [(shorten(site, one.path), one.facts) for one in list_refused(chosen, planned.pictures)][:_MOST_SHOWN],
        "aside": [(one.name, shorten(site, one)) for one in list_aside(chosen)[:_MOST_SHOWN]] if start == 0 else [],
        "more": None
        if following is None
        else urlencode({"file": name, "set": chosen.number, "order": order, "start": following}),
    }


def _choose(sets: Sequence[PictureSet], text: str) -> PictureSet:
    return sets[min(_read_number(text), len(sets) - 1)]


def _read_number(text: str) -> int:
    """A whole number that somebody may have meant."""
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else 0


def _build_card(site: Site, one: PictureSet, entry: Entry, number: int) -> Card:
    path, facts = entry.path, entry.facts
    others = [("reference", place) for place in facts.get("references", ())] + [("mask", place) for place in facts.get("masks", ())]
    others += [("mask for the loss", facts["loss_mask"])] if facts.get("loss_mask") else []
    seen = [(kind, shorten(site, Path(place))) for kind, place in others if any(Path(place).is_relative_to(root) for root in site.roots)]
    is_inside = one.folder is not None and path.is_relative_to(one.folder)
    name = path.relative_to(one.folder).as_posix() if is_inside and one.folder is not None else path.name
    caption = read_caption(one, path) if is_inside else None
    return Card(entry, name, shorten(site, path), path.stat().st_mtime_ns, caption, seen, number)


def show_state(request: Request) -> Response:
    """The part of the page that waits until the pictures were looked at."""
    site = find_site(request)
    file = find_file(site, request.query_params.get("file", ""))
    planned, name, number = find_planned(site, file), shorten(site, file), request.query_params.get("set", "0")
    if planned.state == "ready" and "waiting" in request.query_params:
        return go(request, "/data?" + urlencode({"file": name, "set": number}))
    return _show_looking(request, planned, name=name, number=number)


def _show_looking(request: Request, planned: Planned, *, name: str, number: str) -> Response:
    return render(request, "data_state.html", file=name, number=number, planned=planned)


def start_looking(request: Request, form: FormData) -> Response:
    """Look at all pictures anew."""
    site = find_site(request)
    file, number = find_file(site, read_text(form, "file")), read_text(form, "set") or "0"
    start_planning(site, file)
    name = shorten(site, file)
    if "hx-request" in request.headers:
        return _show_looking(request, find_planned(site, file), name=name, number=number)
    return go(request, "/data?" + urlencode({"file": name, "set": number}))


def _find(request: Request, form: FormData) -> tuple[Site, Path, PictureSet, Path]:
    """The site, the file of settings, the set and the picture that a form speaks of."""
    site = find_site(request)
    file = find_file(site, read_text(form, "file"))
    one = _choose(list_sets(site, file), read_text(form, "set"))
    check_local(one)
    return site, file, one, find_picture(one, resolve_path(site, read_text(form, "picture")))


def change_caption(request: Request, form: FormData) -> Response:
    """Write a caption into its file, if that is still as it was."""
    site, file, one, picture = _find(request, form)
    document, text = read_caption(one, picture), read_text(form, "text").replace("\r\n", "\n")
    if document is None:
        raise DataError("The captions of this set are not in text files.", got=one.name, fix="change them where the set has them from")
    state, theirs = "written", ""
    try:
        document = write_document(document, text + "\n" if text else "", stamp=read_text(form, "stamp"))
    except ChangedError:
        state, theirs = "changed", document.text.rstrip("\n")
    facts: dict[str, Any] = {"file": shorten(site, file), "number": one.number, "place": shorten(site, picture)}
    if "hx-request" not in request.headers:
        if state == "changed":
            what, fix = "The caption was changed by somebody else meanwhile.", f"nothing was written; yours: {text}"
            return refuse(request, what, status=409, got=theirs, fix=fix)
        return _go_back(request, form, shorten(site, file), one.number)
    entry_id = read_text(form, "id")[:32]
    return render(request, "data_caption.html", state=state, theirs=theirs, text=text, stamp=document.stamp, id=entry_id, **facts)


def set_aside(request: Request, form: FormData) -> Response:
    """Move a picture out of its set."""
    site, file, one, picture = _find(request, form)
    moved = move_aside(one, picture)
    return _show_moved(request, form, file=shorten(site, file), number=one.number, place=shorten(site, moved), is_back=False)


def take_back(request: Request, form: FormData) -> Response:
    """Move a picture that was set aside to where it was."""
    site, file, one, picture = _find(request, form)
    moved = move_back(one, picture)
    return _show_moved(request, form, file=shorten(site, file), number=one.number, place=shorten(site, moved), is_back=True)


def _show_moved(request: Request, form: FormData, *, file: str, number: int, place: str, is_back: bool) -> Response:
    if "hx-request" not in request.headers:
        return _go_back(request, form, file, number)
    name = place.rpartition("/")[2]
    return render(request, "data_aside.html", file=file, number=number, name=name, place=place, is_back=is_back)


def _go_back(request: Request, form: FormData, name: str, number: int) -> Response:
    """To where the form was."""
    fields = {"file": name, "set": number, "order": read_text(form, "order") or "name", "start": read_text(form, "start") or "0"}
    return go(request, "/data?" + urlencode(fields))


def show_thumbnail(request: Request) -> Response:
    """A small picture of one below the roots."""
    path = _find_shown(request)
    return FileResponse(load_thumbnail(find_site(request), path), media_type="image/webp", headers=_choose_headers(request))


def show_picture(request: Request) -> Response:
    """A picture as it is, where browsers know its format; else a small one."""
    path = _find_shown(request)
    kind = _SHOWN.get(path.suffix.lower())
    return show_thumbnail(request) if kind is None else FileResponse(path, media_type=kind, headers=_choose_headers(request))


def _choose_headers(request: Request) -> dict[str, str]:
    """An address with the picture's own time in it is never another picture."""
    return _FOREVER if "v" in request.query_params else {}


def _find_shown(request: Request) -> Path:
    path = resolve_path(find_site(request), request.query_params.get("path", ""))
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        raise DataError("There is no such picture.", got=path.name, fix="reload the page")
    return path
