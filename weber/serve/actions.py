"""What can be done with a run: stop, go on, delete, paint, export, merge, publish, report. All that takes time is a job."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from weber.checkpoint.save import CONFIG_NAME, list_checkpoints
from weber.config.load import load_config
from weber.errors import ConfigError
from weber.results.condition import read_condition
from weber.serve.desk import Desk, find_desk
from weber.serve.paths import clean_name, resolve_path, shorten
from weber.serve.queue import Job
from weber.serve.reply import go, read_text, refuse, render, take_form
from weber.serve.site import Site
from weber.serve.telling import tell_run
from weber.serve.workers import stop_process

FORMATS = ("comfyui", "kohya", "diffusers", "merged-bfl", "merged-diffusers")
REPORT_NAME = "report.html"
_REPORT_POLICY = "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
_PLACE = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*|[a-z0-9]{2,10}://[\w./-]+")
_DOWNLOADS = (".safetensors", ".toml", ".html", ".md", ".jsonl", ".json", ".png")
_SECRETS = ("webhooks", "text_encoder_url")
_MOST_PICTURES, _MOST_SEED = 64, 2**62


def routes(site: Site) -> list[Route]:
    """The pages of this file."""
    posts = {
        "stop": stop,
        "resume": resume,
        "delete": delete,
        "sample": sample,
        "export": export,
        "check": check,
        "merge": merge,
        "publish": publish,
        "report": report,
        "checkpoint/delete": delete_checkpoint,
    }
    return [
        Route("/run/delete", ask_delete, methods=["GET"]),
        Route("/run/report", show_report, methods=["GET"]),
        Route("/run/download", download, methods=["GET"]),
        *(Route(f"/run/{name}", take_form(work), methods=["POST"]) for name, work in posts.items()),
    ]


def stop(request: Request, form: FormData) -> Response:
    """Save and stop, whoever started it."""
    desk, folder = _find(request, form)
    job = _find_job(desk, folder)
    if job is not None and job.is_open:
        desk.workers.stop(job, at_once=read_text(form, "at_once") == "1")
    else:
        stop_process(folder)
    return _go_back(request, desk, folder)


def resume(request: Request, form: FormData) -> Response:
    """Go on from the latest good checkpoint."""
    desk, folder = _find(request, form)
    config = load_config(folder / CONFIG_NAME)
    moved = () if config.output.folder == folder else (f"output.folder={folder}",)
    steps = read_text(form, "steps")
    more = (f"train.steps={_read_number(steps, least=1, most=10**9, what='steps')}",) if steps else ()
    job = desk.train(folder / CONFIG_NAME, run=folder, is_resumed=True, overrides=(*moved, *more))
    return go(request, f"/job?id={job.id}")


def ask_delete(request: Request) -> Response:
    """Which files would be deleted."""
    desk = find_desk(request)
    folder = desk.find_run(request.query_params.get("at", ""))
    files = sorted(folder.iterdir())
    sized = [(one.name + ("/" if one.is_dir() else ""), _measure(one)) for one in files]
    return render(request, "delete.html", row=tell_run(desk, folder), folder=folder, files=sized, total=sum(size for _, size in sized))


def delete(request: Request, form: FormData) -> Response:
    """Delete a run's folder, after its files were shown."""
    desk, folder = _find(request, form)
    job = _find_job(desk, folder)
    if read_condition(folder).is_running or (job is not None and job.is_open):
        raise ConfigError("This run is at work, or waits for it.", got=shorten(desk.site, folder), fix="stop it first")
    if folder in desk.site.roots:
        raise ConfigError("This folder is where the pages begin.", got=str(folder), fix="delete it elsewhere, or delete single checkpoints")
    if read_text(form, "name") != folder.name:
        raise ConfigError("This was not confirmed.", got=shorten(desk.site, folder), fix="use the button on the page that lists the files")
    doomed = folder.with_name(f".{folder.name}.deleted")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.replace(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
    return go(request, "/?all=1")


def delete_checkpoint(request: Request, form: FormData) -> Response:
    """Delete one checkpoint, or one that was put aside."""
    desk, folder = _find(request, form)
    name = read_text(form, "name")
    places = [path for path in folder.glob("checkpoint-*") if path.is_dir() and path.name == name]
    if not places:
        raise ConfigError("There is no such checkpoint.", got=ascii(name[:60]), fix="look at the run's page")
    if read_condition(folder).is_running:
        raise ConfigError("This run is at work, and looks after its checkpoints itself.", got=name, fix="stop it first")
    if read_text(form, "sure") != "1":
        return render(request, "delete_checkpoint.html", row=tell_run(desk, folder), name=name, size=_measure(places[0]))
    doomed = places[0].with_name(f".{name}.deleted")
    places[0].replace(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
    return _go_back(request, desk, folder)


def sample(request: Request, form: FormData) -> Response:
    """Paint with what was learned, at any strength."""
    desk, folder = _find(request, form)
    place = _find_place(desk, folder, form)
    prompts = [line.strip() for line in read_text(form, "prompt").splitlines() if line.strip()]
    if not prompts:
        raise ConfigError("There is nothing to paint.", got="no prompt", fix="say what to paint, a prompt on each line")
    number = _read_number(read_text(form, "num", default="1") or "1", least=1, most=_MOST_PICTURES, what="pictures")
    words = ["sample", str(place), *(f"--prompt={prompt}" for prompt in prompts), f"--num={number}", f"--strength={_read_strength(form)}"]
    if seed := read_text(form, "seed"):
        words.append(f"--seed={_read_number(seed, least=0, most=_MOST_SEED, what='seed')}")
    if steps := read_text(form, "steps"):
        words.append(f"--steps={_read_number(steps, least=1, most=1000, what='steps')}")
    return _start(request, desk, words, title=f"with {place.name}", run=folder, is_heavy=True)


def export(request: Request, form: FormData) -> Response:
    """Write what was learned in another format."""
    desk, folder = _find(request, form)
    place, chosen = _find_place(desk, folder, form), [one for one in form.getlist("format") if isinstance(one, str)]
    if not chosen or any(one not in FORMATS for one in chosen):
        raise ConfigError("There is no such format.", got=ascii(", ".join(chosen)[:80]), expected=", ".join(FORMATS), fix="choose of these")
    return _start(request, desk, ["export", str(place), *(f"--format={one}" for one in chosen)], title=place.name, run=folder)


def check(request: Request, form: FormData) -> Response:
    """Say what becomes of a file in other programs."""
    desk, folder = _find(request, form)
    place = _find_place(desk, folder, form)
    return _start(request, desk, ["check", str(place)], title=place.name, run=folder)


def merge(request: Request, form: FormData) -> Response:
    """Add adapters up, into one file beside the run's."""
    desk, folder = _find(request, form)
    parts = [(_find_place(desk, folder, form), _read_weight(form, "weight"))]
    parts.append((resolve_path(desk.site, read_text(form, "other")), _read_weight(form, "other_weight")))
    missing = next((path for path, _ in parts if not path.exists()), None)
    if missing is not None:
        raise ConfigError("There is no such file.", got=shorten(desk.site, missing), fix="name an adapter file or a run folder")
    name = clean_name(read_text(form, "name", default="merged.safetensors") or "merged.safetensors")
    out = folder / (name if name.endswith(".safetensors") else f"{name}.safetensors")
    if out.exists():
        raise ConfigError("There is a file of this name.", got=shorten(desk.site, out), fix="choose another name")
    words = ["merge", *(f"{path}:{weight:g}" for path, weight in parts), f"--out={out}"]
    return _start(request, desk, words, title=out.name, run=folder)


def publish(request: Request, form: FormData) -> Response:
    """Show others what was learned; a first time without sending anything."""
    desk, folder = _find(request, form)
    place, to = _find_place(desk, folder, form), read_text(form, "to")
    if to and not _PLACE.fullmatch(to):
        raise ConfigError("Nothing can be sent there.", got=ascii(to[:80]), expected="owner/name, or s3://bucket/folder", fix="correct it")
    words = ["publish", str(place), *([to] if to else [])]
    if read_text(form, "public") == "1":
        words += ["--public", *(["--consent"] if read_text(form, "consent") == "1" else [])]
    if trigger := read_text(form, "trigger"):
        words.append(f"--trigger={trigger}")
    words += ["--dry-run"] if read_text(form, "send") != "1" else []
    return _start(request, desk, words, title=to or folder.name, run=folder)


def report(request: Request, form: FormData) -> Response:
    """Write the page that needs no server; of two runs, if another is named."""
    desk, folder = _find(request, form)
    other = read_text(form, "other")
    words = ["report", str(folder), *([str(desk.find_run(other))] if other else [])]
    return _start(request, desk, words, title=folder.name, run=folder)


def show_report(request: Request) -> Response:
    """The report as it was written: a page that may do nothing but show itself."""
    folder = find_desk(request).find_run(request.query_params.get("at", ""))
    file = folder / REPORT_NAME
    if not file.is_file():
        return refuse(request, "There is no report yet.", status=404, fix="write it, with the button on the run's page")
    return FileResponse(file, media_type="text/html", headers={"Content-Security-Policy": _REPORT_POLICY})


def download(request: Request) -> Response:
    """A file of a run, to be kept."""
    desk = find_desk(request)
    file = resolve_path(desk.site, request.query_params.get("at", ""))
    if not file.is_file() or file.suffix.lower() not in _DOWNLOADS or file.name.startswith("."):
        return refuse(request, "This file is not given out.", status=404, got=shorten(desk.site, file), expected=", ".join(_DOWNLOADS))
    text = file.read_text(encoding="utf-8", errors="replace") if file.suffix.lower() == ".toml" else ""
    if any(name in text for name in _SECRETS):
        return refuse(request, "This file holds what is secret, and stays where it is.", status=403, got=shorten(desk.site, file))
    return FileResponse(file, media_type="application/octet-stream", filename=file.name)


def _find(request: Request, form: FormData) -> tuple[Desk, Path]:
    desk = find_desk(request)
    return desk, desk.find_run(read_text(form, "at"))


def _find_job(desk: Desk, folder: Path) -> Job | None:
    """The last that trains a run."""
    return next((job for job in desk.queue.list_of_run(folder) if job.kind == "train"), None)


def _find_place(desk: Desk, folder: Path, form: FormData) -> Path:
    """What is worked with: the run, one of its checkpoints or a result in it."""
    name = read_text(form, "place")
    if not name or name == folder.name:
        return folder
    known = [path for _, path in list_checkpoints(folder)] + [path for path in folder.iterdir() if path.suffix == ".safetensors"]
    found = next((path for path in known if path.name == name), None)
    if found is None:
        raise ConfigError("There is no such checkpoint or file.", got=ascii(name[:80]), fix="look at the run's page")
    return found


def _read_number(text: str, *, least: int, most: int, what: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
    if number is None or not least <= number <= most:
        raise ConfigError(f"This is no number of {what}.", got=ascii(text[:30]), expected=f"{least} to {most}", fix="correct it")
    return number


def _read_strength(form: FormData) -> str:
    return f"{_read_weight(form, 'strength'):g}"


def _read_weight(form: FormData, name: str) -> float:
    text = read_text(form, name, default="1") or "1"
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not -100 <= number <= 100:
        raise ConfigError("This is no strength.", got=ascii(text[:30]), expected="a number, such as 0.8", fix="correct it")
    return number


def _start(request: Request, desk: Desk, words: list[str], *, title: str, run: Path, is_heavy: bool = False) -> Response:
    job = desk.start_weber(words, title=title, run=run, is_heavy=is_heavy)
    return go(request, f"/job?id={job.id}")


def _go_back(request: Request, desk: Desk, folder: Path) -> Response:
    return go(request, f"/run?at={desk.site.templates.filters['urlencode'](shorten(desk.site, folder))}")


def _measure(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)
