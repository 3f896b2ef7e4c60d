"""What is wrong with a command line, in words: what was got, what was expected, what to write instead."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from cyclopts import CoercionError, CycloptsError, MissingArgumentError, UnknownCommandError, UnknownOptionError
from cyclopts.exceptions import UnusedCliTokensError

from weber.config.near import find_near
from weber.config.propose import propose_key
from weber.config.settings import is_known
from weber.errors import ConfigError

EXAMPLES: dict[str, str] = {
    "new": "weber new pictures --word zorb",
    "train": "weber train run.toml",
    "launch": "weber launch run.toml --nodes 2 --at gpu1:29400 --resume",
    "plan": "weber plan run.toml",
    "cache": "weber cache run.toml",
    "cache gc": "weber cache gc run.toml",
    "cache verify": "weber cache verify cache",
    "caption": "weber caption pictures --with florence2",
    "tag": "weber tag pictures --with wd14",
    "tags": "weber tags count pictures",
    "tags add": 'weber tags add pictures "red hair"',
    "tags first": "weber tags first pictures zorb",
    "tags remove": 'weber tags remove pictures "*hair"',
    "tags replace": "weber tags replace pictures old new",
    "tags count": "weber tags count pictures",
    "metadata": "weber metadata build pictures pictures/metadata.jsonl",
    "metadata build": "weber metadata build pictures pictures/metadata.jsonl",
    "metadata merge": "weber metadata merge a.jsonl b.jsonl --out all.jsonl",
    "metadata split": "weber metadata split metadata.jsonl pictures",
    "data": "weber data check pictures",
    "data check": "weber data check pictures --html check.html",
    "data resize": "weber data resize pictures --edge 2048 --out smaller",
    "data convert": "weber data convert pictures --format png --out png",
    "data masks": "weber data masks pictures --out masks",
    "data class-images": 'weber data class-images pocket dogs --prompt "a dog"',
    "data download": "weber data download owner/name pictures",
    "data undo": "weber data undo pictures/set-aside/undo-0001.json",
    "sample": 'weber sample runs/lora --prompt "a cat"',
    "grid": 'weber grid runs/lora --prompt "a cat" --strengths 0.5,1 --seeds 1,2',
    "import": "weber import config.json -o run.toml",
    "report": "weber report runs/lora",
    "inspect": "weber inspect adapter.safetensors",
    "export": "weber export runs/lora --format kohya",
    "merge": "weber merge a.safetensors b.safetensors --out sum.safetensors",
    "extract": "weber extract tuned.safetensors --base model.safetensors --out lora.safetensors",
    "check": "weber check adapter.safetensors",
    "diff": "weber diff runs/a runs/b",
    "resize": "weber resize adapter.safetensors --rank 8 --out small.safetensors",
    "scale": "weber scale adapter.safetensors 0.5 --out weak.safetensors",
    "publish": "weber publish runs/lora owner/name",
    "serve": "weber serve",
    "bench": "weber bench memory",
    "serve-text": "weber serve-text pocket --port 8002",
    "remote": "weber remote train run.toml user@host",
    "remote train": "weber remote train run.toml user@host -p 22",
    "remote attach": "weber remote attach runs/lora",
    "remote fetch": "weber remote fetch runs/lora",
    "remote stop": "weber remote stop runs/lora",
    "remote down": "weber remote down runs/lora",
    "cloud": "weber cloud train run.toml --gpu H100",
    "cloud up": "weber cloud up run.toml --gpu H100",
    "cloud train": "weber cloud train run.toml --gpu H100",
    "cloud logs": "weber cloud logs runs/lora",
    "cloud fetch": "weber cloud fetch runs/lora",
    "cloud down": "weber cloud down runs/lora",
    "demo": "weber demo",
    "schema": "weber schema",
    "variants": "weber variants",
}
_WITH_SETTINGS = ("train", "launch", "plan", "cache", "remote train", "cloud up", "cloud train")


def build_mistake(error: CycloptsError, arguments: Sequence[str]) -> ConfigError:
    """The message for words that mean nothing to the command line."""
    verb, got = _find_verb(arguments), shlex.join(["weber", *arguments])
    example = EXAMPLES.get(verb, "weber --help")
    match error:
        case MissingArgumentError():
            name = "" if error.argument is None else error.argument.name
            what = f"{name} needs a value" if name in arguments else f"weber {verb} needs {name}"
            return ConfigError(f"{what}.", got=got, expected=_describe(error, name), fix=f"write {example}")
        case UnknownOptionError():
            return _explain_option(error.token.keyword or error.token.value, arguments, verb=verb, near=str(error))
        case UnknownCommandError():
            return _explain_verb(arguments)
        case CoercionError() if error.argument is not None:
            value = error.token.value if error.token is not None else ""
            hint = error.argument.hint
            wanted = (hint.__name__ if isinstance(hint, type) else str(hint)).removesuffix(" | None")
            kinds = {"int": "a whole number", "float": "a number", "Path": "a path", "bool": "yes or no"}
            what = f"{error.argument.name} cannot be {value!r}."
            return ConfigError(what, got=got, expected=kinds.get(wanted, wanted), fix=f"`weber {verb} --help` says what it takes")
        case UnusedCliTokensError():
            surplus = shlex.join(error.unused_tokens or [])
            return ConfigError(f"weber {verb} takes less than that.", got=f"{surplus}, in {got}", fix=f"remove it, or write {example}")
    return ConfigError(str(error), got=got, fix=f"write {example}; `weber {verb} --help` says more")


def _explain_verb(arguments: Sequence[str]) -> ConfigError:
    """A verb that there is not, of weber or of a group of verbs."""
    group = next((f" {one}" for one in arguments[:1] if any(name.startswith(f"{one} ") for name in EXAMPLES)), "")
    start = group.strip() + " " if group else ""
    verbs = [name.removeprefix(start) for name in EXAMPLES if name.startswith(start) and " " not in name.removeprefix(start)]
    word = next((one for one in arguments[bool(group) :] if one not in verbs), "")
    near = find_near(word, verbs)
    fix = f"did you mean `weber{group} {near}`?" if near is not None else f"`weber{group} --help` says what each does"
    return ConfigError(f"weber{group} has no verb {word!r}.", got=shlex.join(["weber", *arguments]), expected=", ".join(verbs), fix=fix)


def _explain_option(option: str, arguments: Sequence[str], *, verb: str, near: str) -> ConfigError:
    """A setting with dashes is one of the file; anything else may be misspelled."""
    key, _, value = option.lstrip("-").partition("=")
    place = next((number for number, one in enumerate(arguments) if one.lstrip("-").partition("=")[0] == key), len(arguments))
    following = arguments[place + 1] if place + 1 < len(arguments) else "..."
    value = value or (following if not following.startswith("--") else "true")
    meant = near.partition("Did you mean ")[2].rstrip("?")
    meant = meant if find_near(key, [meant.lstrip("-")]) is not None else ""
    fix = f"did you mean {meant}?" if meant else f"`weber {verb} --help` lists what there is"
    if verb in _WITH_SETTINGS and not meant:
        if is_known(key) and "." in key:
            fix = f"settings have no dashes: write {shlex.quote(f'{key}={value}')}"
        else:
            fix = propose_key(key, None, got=value) or fix
    return ConfigError(f"weber {verb} has no option {option}.", got=shlex.join(["weber", *arguments]), fix=fix)


def _find_verb(arguments: Sequence[str]) -> str:
    """The longest that the words begin with."""
    words = list(arguments)
    return next((name for name in (" ".join(words[:2]), *words[:1]) if name in EXAMPLES), "")


def _describe(error: MissingArgumentError, name: str) -> str:
    """What the verb's documentation says of a parameter."""
    lines = [line.strip() for line in (error.target.__doc__ or "").splitlines()] if error.target is not None else []
    wanted = name.lstrip("-").replace("-", "_").lower()
    return next((text.rstrip(".") for one, text in zip(lines, lines[1:], strict=False) if one == wanted), "")
