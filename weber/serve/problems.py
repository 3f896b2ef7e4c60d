"""What `weber data check` finds in the pictures of a run, each with a button that sets it aside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from weber.errors import WeberError
from weber.serve.errands import Errand, find_errand, start_errand
from weber.serve.files import find_file, find_root
from weber.serve.gallery import PictureSet, check_local, find_picture, list_sets, move_aside
from weber.serve.paths import resolve_path, shorten
from weber.serve.reply import find_site, go, read_text, render, take_form
from weber.serve.site import Site

_FOUND_PROBLEMS = 1
_MOST_SHOWN = 60
"""Pictures of one kind."""


def routes(site: Site) -> list[Route]:
    """The pages of this file."""
    return [
        Route("/problems", show_problems),
        Route("/problems", take_form(start_checking), methods=["POST"]),
        Route("/problems/state", show_state),
        Route("/problems/aside", take_form(set_all_aside), methods=["POST"]),
    ]


@dataclass(frozen=True)
class Spoiled:
    """A picture that something is said of: where it is, the number of its set, and the others that it has to do with. `may_go`: it can be
    set aside here."""

    place: str
    number: int
    detail: str
    others: Sequence[str]
    may_go: bool


@dataclass(frozen=True)
class Finding:
    """What is wrong with some pictures, or worth a look; `num` are all of them, of which the first are shown. `num_spare` may go."""

    kind: str
    title: str
    advice: str
    is_problem: bool
    num: int
    pictures: Sequence[Spoiled]
    num_spare: int


def show_problems(request: Request) -> Response:
    """What was found, or a button that looks for it."""
    return render(request, "problems.html", **_describe(request, request.query_params.get("file", "")))


def show_state(request: Request) -> Response:
    """The changing part of it."""
    return render(request, "problems_state.html", **_describe(request, request.query_params.get("file", "")))


def start_checking(request: Request, form: FormData) -> Response:
    """Look at all pictures anew."""
    site = find_site(request)
    file = find_file(site, read_text(form, "file"))
    errand = _find(site, file)
    words = ["data", "check", str(file), "--json", str(errand.found)]
    start_errand(site, errand, words=words, folder=find_root(site, file), good=(0, _FOUND_PROBLEMS))
    if "hx-request" in request.headers:
        return render(request, "problems_state.html", **_describe(request, read_text(form, "file")))
    return go(request, "/problems?" + urlencode({"file": shorten(site, file)}))


def set_all_aside(request: Request, form: FormData) -> Response:
    """Move all pictures of one kind out of their sets that may go; what is not there any more is passed over."""
    site = find_site(request)
    file, kind = find_file(site, read_text(form, "file")), read_text(form, "kind")
    sets, moved = list_sets(site, file), 0
    for finding in _load(_find(site, file)).get("findings", ()):
        for item in finding["pictures"] if finding["kind"] == kind and finding["moves"] else ():
            one = _find_set(sets, item["set"]) if item["spare"] else None
            with suppress(WeberError):
                if one is not None:
                    check_local(one)
                    move_aside(one, find_picture(one, resolve_path(site, item["path"])))
                    moved += 1
    return go(request, "/problems?" + urlencode({"file": shorten(site, file), "moved": moved}))


def _find(site: Site, file: Path) -> Errand:
    """The check of these very settings."""
    return find_errand(site, "data check", str(file), file.read_bytes() if file.is_file() else b"")


def _describe(request: Request, text: str) -> dict[str, Any]:
    site = find_site(request)
    file = find_file(site, text)
    errand = _find(site, file)
    state, message, moment = errand.read_state()
    findings = _list_findings(site, list_sets(site, file), _load(errand)) if state == "ready" else []
    moved = request.query_params.get("moved", "")
    return {
        "file": shorten(site, file),
        "state": state,
        "message": message,
        "moment": moment,
        "findings": findings,
        "moved": moved if moved.isdecimal() else "",
    }


def _load(errand: Errand) -> Mapping[str, Any]:
    """What was found, each picture with its path and its set; nothing where nothing was written."""
    return _read(errand.found, errand.found.stat().st_mtime_ns) if errand.found.is_file() else {}


@lru_cache(maxsize=4)
def _read(path: Path, changed_ns: int) -> Mapping[str, Any]:
    tree = json.loads(path.read_text(encoding="utf-8"))
    pictures = tree["pictures"]
    for finding in tree["findings"]:
        for item in finding["pictures"]:
            item |= {"path": pictures[item["picture"]]["path"], "set": pictures[item["picture"]]["set"]}
            item["others"] = [pictures[place]["path"] for place in item["others"]]
    return {"findings": tree["findings"]}


def _list_findings(site: Site, sets: Sequence[PictureSet], tree: Mapping[str, Any]) -> list[Finding]:
    """Those of which pictures are still where they were, the first of each kind."""
    found = []
    for one in tree.get("findings", ()):
        there = [item for item in one["pictures"] if Path(item["path"]).is_file()]
        pictures = [_build(site, sets, item, moves=one["moves"]) for item in there[:_MOST_SHOWN]]
        spare = sum(item["spare"] for item in there) if one["moves"] else 0
        if there:
            found.append(Finding(one["kind"], one["title"], one["advice"], one["problem"], len(there), pictures, spare))
    return found


def _build(site: Site, sets: Sequence[PictureSet], item: Mapping[str, Any], *, moves: bool) -> Spoiled:
    path, one = Path(item["path"]), _find_set(sets, item["set"])
    is_inside = one is not None and one.folder is not None and path.is_relative_to(one.folder)
    others = [shorten(site, Path(other)) for other in item["others"]]
    return Spoiled(shorten(site, path), 0 if one is None else one.number, item["detail"], others, is_inside and moves)


def _find_set(sets: Sequence[PictureSet], name: str) -> PictureSet | None:
    """The set of that name; one of several resolutions is called `name@512` and so on."""
    return next((one for one in sets if name == one.name or name.startswith(f"{one.name}@")), None)
