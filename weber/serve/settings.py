"""The settings of a run as a form: what is typed is written into its file, with comments kept, and checked by the settings' own rules."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from weber.config.document import Document, read_document, write_document
from weber.config.edits import move_entry, write_setting
from weber.config.form import build_form, list_changes, list_unknown
from weber.config.load import check_tree, is_own
from weber.config.optimizers import FACTS
from weber.config.settings import find_setting
from weber.config.toml import read_toml
from weber.errors import ChangedError, ConfigError
from weber.serve.files import find_file, list_settings_files
from weber.serve.models import list_models
from weber.serve.paths import shorten
from weber.serve.reply import find_site, go, read_text, render, take_form
from weber.serve.site import Site

_FIELD, _MOST_CHARACTERS = "v.", 200
"""Before the keys of settings in the form's names; of a key."""


def routes(site: Site) -> list[Route]:
    """The pages of this file."""
    return [
        Route("/settings", show_settings),
        Route("/settings", take_form(change_settings), methods=["POST"]),
        Route("/settings/check", take_form(check_settings), methods=["POST"]),
        Route("/settings/remove", take_form(remove_unknown), methods=["POST"]),
    ]


@dataclass(frozen=True)
class Sheet:
    """A file of settings while somebody edits it. `typed`: texts by key that the file does not say yet; `problems`: by key, of the file
    with what is typed."""

    path: Path
    document: Document
    tree: Mapping[str, Any]
    typed: Mapping[str, str]
    problems: Mapping[str, ConfigError]

    @property
    def changes(self) -> list[tuple[str, object]]:
        """What is typed that means something else than the file says."""
        return list_changes(self.tree, self.typed)


def load_sheet(path: Path, typed: Mapping[str, str] | None = None) -> Sheet:
    """Raises ConfigError for a file that is no TOML."""
    document = read_document(path)
    tree = read_toml(path) if document.text.strip() else {}
    sheet = Sheet(path, document, tree, typed or {}, {})
    changed: Mapping[str, Any] = tomllib.loads(_write(sheet)) if sheet.changes else tree
    return Sheet(path, document, tree, sheet.typed, check_tree(changed))


def _write(sheet: Sheet) -> str:
    """The file's text with what is typed."""
    text = sheet.document.text
    for key, value in sorted(sheet.changes, key=lambda change: change[1] is None):
        text = write_setting(text, key, value=value)
    return text


def show_settings(request: Request) -> Response:
    """The form of a file, or the files that there are."""
    site, name = find_site(request), request.query_params.get("file", "").strip()
    if not name:
        return render(request, "settings_files.html", files=list_settings_files(site), page="/settings", title="Settings")
    path = find_file(site, name)
    added = request.query_params.getlist("add")
    return _show(request, load_sheet(path), added=added, find=request.query_params.get("find", ""))


def _show(
    request: Request,
    sheet: Sheet,
    *,
    added: Sequence[str] = (),
    find: str = "",
    conflict: bool = False,
    refused: bool = False,
    status: int = 200,
) -> Response:
    site = find_site(request)
    told = {str(key): _split(error) for key, error in sheet.problems.items()}
    blocks = build_form(sheet.tree, typed=sheet.typed, added=[*added, *_list_added(sheet)])
    said = {row.key: str(row.text) for block in build_form(sheet.tree) for row in block.list_rows()} if conflict else {}
    theirs = {key: said.get(key, "") for key, _ in sheet.changes} if conflict else {}
    return render(
        request,
        "settings.html",
        status=status,
        file=shorten(site, sheet.path),
        stamp=sheet.document.stamp,
        blocks=blocks,
        problems=told,
        unknown=[(key, _show_value(value), told.get(key)) for key, value in list_unknown(sheet.tree)],
        is_own=not sheet.path.exists() or is_own(sheet.path),
        others=[one for key, one in told.items() if not key],
        find=find,
        proposed={"model.variant": list_models(site), "optim.name": list(FACTS)},
        added=list(added),
        theirs=theirs,
        conflict=conflict,
        refused=refused,
        told=" ".join(told),
        saved="saved" in request.query_params,
    )


def _list_added(sheet: Sheet) -> list[str]:
    """Tables that only what is typed speaks of."""
    return [key.rpartition(".")[0] for key, value in sheet.changes if value is not None]


def _show_value(value: object) -> str:
    """What stands in the file where no setting is; it may be a secret by another name, so that only its kind is said of texts."""
    return f"{value}" if isinstance(value, bool | int | float) else "a table" if isinstance(value, Mapping) else "a text or a list"


def _split(error: ConfigError) -> dict[str, str]:
    return {"what": error.what, "expected": error.expected, "fix": error.fix}


def _read_typed(form: FormData) -> dict[str, str]:
    found = form.multi_items()
    fields = {name.removeprefix(_FIELD): value for name, value in found if name.startswith(_FIELD) and len(name) <= _MOST_CHARACTERS}
    return {key: value for key, value in fields.items() if isinstance(value, str) and find_setting(key) is not None}


def change_settings(request: Request, form: FormData) -> Response:
    """Write what was typed; add a table to the form, or take one out of the file."""
    site = find_site(request)
    path, what = find_file(site, read_text(form, "file")), (read_text(form, "do") or "save")[:_MOST_CHARACTERS]
    sheet = load_sheet(path, _read_typed(form))
    word, _, place = what.partition(" ")
    added = [one for one in form.getlist("add") if isinstance(one, str)]
    if read_text(form, "stamp") != sheet.document.stamp:
        return _show(request, sheet, added=added, conflict=True, status=409)
    if word == "add":
        return _show(request, sheet, added=[*added, place])
    if word in ("remove", "up"):
        return _rearrange(request, sheet, place, is_move=word == "up")
    if word != "force" and not _is_no_worse(sheet):
        return _show(request, sheet, added=added, refused=True, status=422)
    try:
        _save(sheet)
    except ChangedError:
        return _show(request, load_sheet(path, sheet.typed), added=added, conflict=True, status=409)
    return go(request, "/settings?" + urlencode({"file": shorten(site, path), "saved": 1}))


def _is_no_worse(sheet: Sheet) -> bool:
    """Whether what is typed brings no problem that the file does not have already."""
    return not sheet.problems or set(sheet.problems) <= set(load_sheet(sheet.path).problems)


def _save(sheet: Sheet) -> Document:
    """Where it holds what is secret, for its owner alone."""
    text = _write(sheet)
    return write_document(sheet.document, text, is_private="webhooks" in tomllib.loads(text).get("output", {}))


def _rearrange(request: Request, sheet: Sheet, place: str, *, is_move: bool) -> Response:
    """Take a table out of the file, or move it up in its list; and write what else was typed where that can be."""
    text = sheet.document.text if sheet.problems else _write(sheet)
    write_document(sheet.document, move_entry(text, place) if is_move else write_setting(text, place, value=None))
    left = {key: value for key, value in sheet.typed.items() if not key.startswith(place.rpartition(".")[0] + ".")}
    return _show(request, load_sheet(sheet.path, left if sheet.problems else {}))


def remove_unknown(request: Request, form: FormData) -> Response:
    """Take a line out that is no setting."""
    site = find_site(request)
    path, key = find_file(site, read_text(form, "file")), read_text(form, "key")[:_MOST_CHARACTERS]
    document = read_document(path)
    write_document(document, write_setting(document.text, key, value=None), stamp=read_text(form, "stamp"))
    return go(request, "/settings?" + urlencode({"file": shorten(site, path)}))


def check_settings(request: Request, form: FormData) -> Response:
    """What is typed while it is typed: written at once where all of it can be, else said what cannot."""
    site = find_site(request)
    path = find_file(site, read_text(form, "file"))
    sheet, told = load_sheet(path, _read_typed(form)), read_text(form, "told").split()
    stamp, state, number = sheet.document.stamp, "same", len(sheet.changes)
    if read_text(form, "stamp") != stamp:
        stamp, state = read_text(form, "stamp"), "changed"
    elif number and _is_no_worse(sheet):
        stamp, state = _save(sheet).stamp, "written"
    elif number:
        state = "waiting"
    rows = {row.key: row for block in build_form(sheet.tree, typed=sheet.typed) for row in block.list_rows()}
    problems = {key: _split(error) for key, error in sheet.problems.items()}
    changed = [rows[key] for key, _ in sheet.changes if key in rows]
    keys = dict.fromkeys([*told, *problems, *(key for key, _ in sheet.changes)])
    return render(
        request,
        "settings_state.html",
        state=state,
        stamp=stamp,
        number=number,
        problems=problems,
        keys=[key for key in keys if key],
        changed=changed,
        others=[one for key, one in problems.items() if not key],
        told=" ".join(key for key in problems if key),
        file=shorten(site, path),
    )
