"""The first steps: three answers, and what follows from them as a sentence; another trainer's file; a run that is there."""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from weber.config.document import read_document, write_document
from weber.config.edits import write_setting
from weber.config.importers.commented import write_commented
from weber.config.importers.load import import_run
from weber.config.importers.outcome import Imported
from weber.config.importers.report import list_groups
from weber.config.importers.table import TOOLS
from weber.config.load import build_config, choose_mode, is_own, load_config
from weber.config.toml import read_toml
from weber.data.formats import SUFFIXES
from weber.errors import ConfigError
from weber.memory.cards import CARDS
from weber.questions.answers import Answers, Model, write_run
from weber.questions.folder import read_folder
from weber.serve.desk import find_desk
from weber.serve.files import find_file, find_root, list_settings_files
from weber.serve.found import is_run_folder
from weber.serve.models import list_models
from weber.serve.paths import clean_name, resolve_path, shorten
from weber.serve.planned import find_planned, start_planning
from weber.serve.reply import find_site, go, read_text, render, take_form
from weber.serve.site import Site
from weber.track.process import is_locked

CAPTIONS = {"textfile": "lie beside the pictures", "instance": "are the word alone", "filename": "are the names of the files"}
_SMALL = Model("pocket", "it comes with weber, and learns on a processor", "", is_small=True)
_MOST_CHARACTERS = 200
_PICTURE_ENDINGS = (*SUFFIXES, ".txt", ".caption", ".json", ".toml", ".csv", ".jsonl", ".parquet")
_CHUNK_BYTES = 2**20
_IMPORTS, _FOLDER_OF_PICTURES = "imports", "pictures"


def routes(site: Site) -> list[Route]:
    """The pages of this file."""
    return [
        Route("/start", show_start, methods=["GET"]),
        Route("/start", take_form(begin), methods=["POST"]),
        Route("/start/look", show_look, methods=["GET"]),
        Route("/start/state", show_state, methods=["GET"]),
        Route("/start/look", take_form(change), methods=["POST"]),
        Route("/start/go", take_form(train), methods=["POST"]),
        Route("/start/open", take_form(open_place), methods=["POST"]),
        Route("/start/import", take_form(take_import), methods=["POST"]),
        Route("/start/imported", show_imported, methods=["GET"]),
        Route("/start/imported", take_form(keep_import), methods=["POST"]),
        Route("/upload", take_form(upload), methods=["POST"]),
    ]


def show_start(request: Request) -> Response:
    """Three questions."""
    site = find_site(request)
    folder = request.query_params.get("pictures", "")
    return render(
        request,
        "start.html",
        pictures=folder,
        captions=CAPTIONS,
        cards=[card.name for card in CARDS],
        has_gpu=bool(site.slots),
        roots=site.roots,
        files=list_settings_files(site)[:20],
        trainers=[tool.title for tool in TOOLS],
        endings=",".join(sorted(SUFFIXES | {".txt", ".caption"})),
    )


def begin(request: Request, form: FormData) -> Response:
    """Write a file of settings from the answers, and plan it."""
    site = find_site(request)
    place, card, word = resolve_path(site, read_text(form, "pictures")), _read_card(form), read_text(form, "word")[:_MOST_CHARACTERS]
    folder, root = read_folder(place), find_root(site, place)
    model = None if card or site.slots else _SMALL
    answers = Answers(
        replace(folder, path=place.relative_to(root)), word=word or None, model=model, card=card or None, has_gpu=bool(site.slots)
    )
    run = find_free(root / "runs", answers.chosen_name)
    file = find_free(root, run.name, ending=".toml")
    text = write_run(replace(answers, name=run.name), file=file.name)
    write_document(read_document(file), _choose_captions(text, read_text(form, "captions"), word=answers.word or folder.word))
    return go(request, _look(site, file, card))


def _choose_captions(text: str, captions: str, *, word: str) -> str:
    """The file with other captions than those that were found, if somebody wants that."""
    if captions not in ("", *CAPTIONS):
        raise ConfigError("There are no such captions.", got=ascii(captions[:40]), expected=", ".join(CAPTIONS), fix="choose one")
    if not captions:
        return text
    said: dict[str, object] = {"captions": captions, "caption_fallback": None, "instance_prompt": None}
    said |= {"instance_prompt": word, "caption_steps": None} if captions == "instance" else {}
    for key, value in said.items():
        text = write_setting(text, f"data.0.{key}", value=value)
    return text


def find_free(folder: Path, name: str, *, ending: str = "") -> Path:
    """A file or folder that is not there yet: name, name-2, name-3, ..."""
    number = 1
    while (place := folder / f"{name}{'' if number == 1 else f'-{number}'}{ending}").exists():
        number += 1
    return place


def show_look(request: Request) -> Response:
    """What will be done, as a sentence whose parts can be changed."""
    return render(request, "look.html", **_build_look(request))


def show_state(request: Request) -> Response:
    """The part of it that waits for the plan."""
    return render(request, "look_state.html", **_build_look(request))


def change(request: Request, form: FormData) -> Response:
    """Write what was changed in the sentence into the file, and plan it anew."""
    site = find_site(request)
    file, card = find_file(site, read_text(form, "file")), _read_card(form)
    document = read_document(file)
    read_toml(file)  # what is wrong with it is said before anything is put into it
    model = read_text(form, "model")
    is_path = "/" in model or model.endswith(".safetensors")
    prompts = [line.strip() for line in read_text(form, "prompts").splitlines() if line.strip()]
    said: dict[str, object] = {
        "model.variant": None if is_path or not model else model,
        "model.path": model if is_path else None,
        "train.steps": _read_number(form, "steps"),
        "data.0.resolution": _read_number(form, "resolution"),
        "adapter.rank": _read_number(form, "rank"),
        "sampling.prompts": prompts or None,
        "sampling.every": _read_number(form, "every") if prompts else None,
    }
    text = document.text
    for key, value in said.items():
        text = write_setting(text, key, value=value)
    build_config(tomllib.loads(text))
    write_document(document, text, stamp=read_text(form, "stamp") or None)
    return go(request, _look(site, file, card))


def train(request: Request, form: FormData) -> Response:
    """Put it into the queue."""
    desk = find_desk(request)
    file = find_file(desk.site, read_text(form, "file"))
    config = load_config(file) if is_own(file) else import_run(file).config
    run = (find_root(desk.site, file) / config.output.folder.expanduser()).resolve()
    if not any(run.is_relative_to(root) for root in desk.site.roots):
        raise ConfigError(
            "This run would be outside of the folders that these pages show.",
            got=f"output.folder = {config.output.folder}",
            expected=f"a folder below {', '.join(map(str, desk.site.roots))}",
            fix="set output.folder to another one, or start the pages with that folder: weber serve . /the/folder",
        )
    if is_run_folder(run) and read_text(form, "resume") != "1":
        raise ConfigError(
            "There is a run in this folder already.", got=shorten(desk.site, run), fix="open it and go on, or set output.folder to another"
        )
    job = desk.train(file, run=run, is_resumed=is_run_folder(run))
    return go(request, f"/job?id={job.id}")


def open_place(request: Request, form: FormData) -> Response:
    """A run folder, a file of settings, or another trainer's file that lies on this machine."""
    site = find_site(request)
    place = resolve_path(site, read_text(form, "at"))
    if is_run_folder(place):
        return go(request, f"/run?{urlencode({'at': shorten(site, place)})}")
    if is_own(place):
        return go(request, _look(site, place, ""))
    if not place.exists():
        raise ConfigError("There is nothing at this place.", got=shorten(site, place), fix="correct it")
    import_run(place)  # what cannot be read is refused where it was named
    return go(request, f"/start/imported?{urlencode({'at': shorten(site, place)})}")


def take_import(request: Request, form: FormData) -> Response:
    """Files of another trainer, kept where no page shows them, and what became of every key."""
    site = find_site(request)
    sent = [one for one in form.getlist("files") if isinstance(one, UploadFile) and one.filename]
    if not sent:
        raise ConfigError("No file was sent.", got="nothing", fix="choose the file that the other trainer is started with")
    folder = site.home / _IMPORTS / uuid4().hex
    folder.mkdir(parents=True, mode=0o700)
    for one in sent:
        _keep(one, folder / clean_name(one.filename or ""))
    return go(request, f"/start/imported?id={folder.name}")


def show_imported(request: Request) -> Response:
    """What became of every key of files that were sent, or of one that lies here."""
    site, at = request.app.state.site, request.query_params.get("at", "")
    imported = import_run(resolve_path(site, at)) if at else _read_import(site, request.query_params.get("id", ""))
    return _show_imported(request, imported, at)


def keep_import(request: Request, form: FormData) -> Response:
    """Write the settings of an import as a file of weber, and plan it."""
    site = find_site(request)
    at, number = read_text(form, "at"), read_text(form, "id")
    imported = import_run(resolve_path(site, at)) if at else _read_import(site, number)
    name = clean_name(read_text(form, "name") or "imported").removesuffix(".toml")
    file = find_free(site.roots[0], name, ending=".toml")
    file.touch(mode=choose_mode(imported.config))
    file.write_text(write_commented(imported), encoding="utf-8")
    return go(request, _look(site, file, ""))


def upload(request: Request, form: FormData) -> Response:
    """Pictures and captions into a folder below the first root. What is there already stays as it is."""
    site = find_site(request)
    name = read_text(form, "folder")
    folder = resolve_path(site, name) if name else find_free(site.roots[0], _FOLDER_OF_PICTURES)
    sent = [one for one in form.getlist("files") if isinstance(one, UploadFile) and one.filename]
    if not sent:
        raise ConfigError("No file was sent.", got="nothing", fix="choose pictures, or drop them")
    names = [clean_name(one.filename or "") for one in sent]
    wrong = next((one for one in names if not one.lower().endswith(_PICTURE_ENDINGS)), None)
    if wrong is not None:
        expected = "files such as cat.png and cat.txt"
        raise ConfigError("This is neither a picture nor a caption.", got=wrong, expected=expected, fix="leave it out")
    there = next((one for one in names if (folder / one).exists()), None)
    if there is not None:
        got = f"{there} in {shorten(site, folder)}"
        raise ConfigError("There is a file of this name already.", got=got, fix="rename it, or name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for one, kept in zip(sent, names, strict=True):
        _keep(one, folder / kept)
    return go(request, f"/start?{urlencode({'pictures': shorten(site, folder)})}")


def _keep(one: UploadFile, file: Path) -> None:
    """Write a file that was sent, whole or not at all."""
    unfinished = file.with_name(f".{uuid4().hex}.tmp")
    try:
        with unfinished.open("xb") as stream:
            shutil.copyfileobj(one.file, stream, _CHUNK_BYTES)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _read_import(site: Site, number: str) -> Imported:
    folder = site.home / _IMPORTS / number
    if len(number) != 32 or not number.isalnum() or not folder.is_dir():
        raise ConfigError("There is no such import.", got=ascii(number[:40]), fix="send the file again")
    files = sorted(folder.iterdir())
    imported = import_run(files[0] if len(files) == 1 else folder)
    return replace(imported, files=[Path(one).name for one in imported.files])


def _show_imported(request: Request, imported: Imported, at: str) -> Response:
    kinds = {"used": 0, "translated": 0, "refused": 0, "no effect": 0}
    for one in imported.outcomes:
        if not one.given.is_default:
            kinds[one.kind] += 1
    return render(
        request,
        "imported.html",
        title=imported.title,
        files=[Path(one).name for one in imported.files],
        groups=list_groups(imported),
        kinds=kinds,
        at=at,
        number=request.query_params.get("id", ""),
        text=write_commented(imported) if choose_mode(imported.config) != 0o600 else "",
    )


def _build_look(request: Request) -> dict[str, Any]:
    site, asked = find_site(request), request.query_params
    file, card = find_file(site, asked.get("file", "")), asked.get("card", "")[:_MOST_CHARACTERS]
    document = read_document(file)
    config = load_config(file)
    planned = find_planned(site, file, card=card)
    if planned.state == "absent":
        start_planning(site, file, card=card)
        planned = find_planned(site, file, card=card)
    data, run = config.data[0], (find_root(site, file) / config.output.folder.expanduser()).resolve()
    return {
        "file": shorten(site, file),
        "query": urlencode({"file": shorten(site, file)} | ({"card": card} if card else {})),
        "stamp": document.stamp,
        "card": card,
        "config": config,
        "data": data,
        "run": shorten(site, run) if any(run.is_relative_to(root) for root in site.roots) else str(run),
        "is_there": is_run_folder(run),
        "is_busy": is_locked(run / "run.lock"),
        "planned": planned,
        "facts": planned.facts,
        "whole_seconds": sum(planned.facts["seconds"].values()) if planned.facts else 0.0,
        "peak": max((phase["num_bytes"] for phase in planned.facts["phases"]), default=0) if planned.facts else 0,
        "models": list_models(site),
    }


def _look(site: Site, file: Path, card: str) -> str:
    return f"/start/look?{urlencode({'file': shorten(site, file)} | ({'card': card} if card else {}))}"


def _read_card(form: FormData) -> str:
    card = read_text(form, "card")
    if card and card not in {one.name for one in CARDS}:
        raise ConfigError("This card is not known by name.", got=ascii(card[:40]), fix="choose another one")
    return card


def _read_number(form: FormData, name: str) -> int | None:
    text = read_text(form, name)
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ConfigError("This is no whole number.", got=f"{name} = {ascii(text[:30])}", fix="correct it")
    return int(text)
