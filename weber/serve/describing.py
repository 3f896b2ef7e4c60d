"""Captions and tags for the pictures of a set, by a model that looks at them: a job of the queue."""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from weber.errors import ConfigError
from weber.serve.desk import find_desk
from weber.serve.files import find_file
from weber.serve.gallery import check_local, list_sets
from weber.serve.reply import find_site, go, read_text, take_form
from weber.serve.site import Site

DESCRIBERS = {
    "caption": ("florence2", "blip", "blip2", "git", "qwen-vl", "joycaption", "llava"),
    "tag": ("wd-v3", "wd-v3-vit", "wd-v3-large", "wd14", "wd14-moat", "wd14-swinv2", "wd14-vit", "cl"),
}
"""What each verb takes: those of `captioners/table` and `captioners/tagger`, which import PyTorch; the first is proposed."""
_MOST_LETTERS = 200


def routes(site: Site) -> list[Route]:
    """The pages of this file."""
    return [Route("/data/describe", take_form(describe), methods=["POST"])]


def describe(request: Request, form: FormData) -> Response:
    """Have texts written for the pictures of a set that have none, or for all."""
    site = find_site(request)
    sets = list_sets(site, find_file(site, read_text(form, "file")))
    number, name = read_text(form, "set"), read_text(form, "with")
    one = next((one for one in sets if str(one.number) == number), sets[0])
    check_local(one)
    verb = next((verb for verb, names in DESCRIBERS.items() if name in names), None)
    if verb is None:
        known = ", ".join(name for names in DESCRIBERS.values() for name in names)
        raise ConfigError("There is no such model that looks at pictures.", got=ascii(name[:80]), expected=known, fix="choose one of them")
    prefix = read_text(form, "prefix")
    if len(prefix) > _MOST_LETTERS:
        raise ConfigError("The beginning is too long.", got=f"{len(prefix)} letters", expected=f"at most {_MOST_LETTERS}", fix="shorten it")
    ending = next(iter(one.config.caption_endings), ".txt")
    words = [verb, str(one.folder), "--with", name, f"--ending={ending}", *([f"--prefix={prefix} "] if prefix else [])]
    words += ["--overwrite"] if read_text(form, "overwrite") == "1" else []
    job = find_desk(request).start_weber(words, title=f"{name}: {one.name}", is_heavy=True)
    return go(request, f"/job?id={job.id}")
