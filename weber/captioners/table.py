"""Which captioners there are: a row for each, and for each kind of model a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from weber.captioners import chat, florence2, prefixed
from weber.captioners.wish import Describe, Wish, check_wish
from weber.config.memory import MemoryConfig
from weber.config.near import find_near
from weber.errors import ConfigError


class Build(Protocol):
    """Opens a model: a folder, a hub id, or what else its kind reads."""

    def __call__(self, place: str, wish: Wish, *, memory: MemoryConfig) -> Describe:
        """What describes pictures. Raises ModelError, and ConfigError for a wish that it cannot fulfill."""
        ...


@dataclass(frozen=True)
class Captioner:
    """A kind of model. `home`: the model that is taken if none is named, on the hub; `takes`: texts that it can be given."""

    home: str
    build: Build
    summary: str
    takes: tuple[str, ...] = ()


CAPTIONERS: Mapping[str, Captioner] = {
    "blip": Captioner(prefixed.BLIP_HOME, prefixed.build_blip, "one short sentence; --question is how it begins", ("question",)),
    "blip2": Captioner(
        "Salesforce/blip2-opt-2.7b", prefixed.build_blip2, 'one short sentence; --question "Question: what is this? Answer:"', ("question",)
    ),
    "git": Captioner("microsoft/git-large-coco", prefixed.build_git, "one short sentence; --question is how it begins", ("question",)),
    "florence2": Captioner(
        "florence-community/Florence-2-large",
        florence2.build,
        "a paragraph; --question short, detailed, long or text (what is written in the picture)",
        ("question",),
    ),
    "qwen-vl": Captioner("Qwen/Qwen2.5-VL-7B-Instruct", chat.build_qwen, "whatever it is asked for", ("question", "system")),
    "joycaption": Captioner(
        "fancyfeast/llama-joycaption-beta-one-hf-llava",
        chat.build_llava,
        "a long description, or what it is asked for",
        ("question", "system"),
    ),
    "llava": Captioner("llava-hf/llava-1.5-7b-hf", chat.build_llava, "whatever it is asked for", ("question", "system")),
}


def find_captioner(name: str, wish: Wish) -> Captioner:
    """The row of a name, for a wish that it can fulfill. Raises ConfigError."""
    row = CAPTIONERS.get(name)
    if row is None:
        near = find_near(name, list(CAPTIONERS))
        fix = f"did you mean {near}?" if near else "`weber caption --list` says what each is"
        raise ConfigError("There is no such captioner.", got=f"--with {name}", expected=", ".join(CAPTIONERS), fix=fix)
    check_wish(wish, takes=row.takes, name=name)
    return row
