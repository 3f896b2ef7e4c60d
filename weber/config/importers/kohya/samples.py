"""Prompts that kohya's scripts paint on the way: text with `--w 1024 --d 1` behind a prompt, JSON, TOML, or the text itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from weber.config.importers.answers import Call, Table, ignored, refused, translated
from weber.config.importers.draft import NO_EFFECT, Draft, Keys
from weber.config.importers.kohya.read import build_missing
from weber.config.importers.outcome import Given
from weber.config.importers.texts import read_text, read_tree
from weber.config.importers.tool import find_file
from weber.config.importers.values import read_float, read_int

SAMPLE_DEFAULTS: Mapping[str, Any] = {"width": 512, "height": 512, "sample_steps": 20}
"""What the scripts paint with if a prompt says nothing else."""

_FLAGS = {
    "w": "width", "h": "height", "d": "seed", "s": "sample_steps", "l": "scale", "g": "guidance_scale", "n": "negative_prompt",
    "ss": "sample_sampler", "cn": "controlnet_image", "ctr": "cfg_trunc_ratio", "rcfg": "renorm_cfg", "fs": "flow_shift",
}
_SPELLED = {name: f"--{flag}" for flag, name in _FLAGS.items()}
_FILES = (".txt", ".json", ".toml")
_STEP_PIXELS, _SMALLEST = 16, 64


def paints(keys: Keys) -> bool:
    """Whether pictures are painted at all there."""
    often = any((keys.read_int(name) or 0) > 0 for name in ("sample_every_n_steps", "sample_every_n_epochs"))
    return "sample_prompts" in keys and (often or keys.read_bool("sample_at_first"))


def read_samples(given: Given, draft: Draft, *, beside: Path) -> list[Given]:
    """Prompts and what stands behind them: each kind a key, with one value or, where prompts differ, a list. Raises ConfigError."""
    text = str(given.value)
    if not text.lower().endswith(_FILES) or "\n" in text or " --" in text:
        prompts, where = list(_read_lines(text)), given.where
    else:
        path = find_file(text, beside=beside)
        if path is None:
            raise build_missing(given, "holds the prompts of pictures")
        draft.files.append(str(path))
        where = path.name
        prompts = list(_read_lines(read_text(path)) if path.suffix.lower() == ".txt" else _read_prompts(read_tree(path)))
    prompts = [one for one in prompts if str(one.get("prompt", "")).strip()]
    names = dict.fromkeys(name for one in prompts for name in one)
    return [Given(name, _join([one.get(name) for one in prompts], name), _SPELLED.get(name, name), where) for name in names]


def _join(values: list[Any], name: str) -> Any:
    if name == "prompt":
        return [str(one).strip() for one in values]
    said = [one for one in values if one is not None]
    return said[0] if len(said) == len(values) and all(one == said[0] for one in said) else values


def _read_lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            yield _read_line(line.strip())


def _read_line(line: str) -> dict[str, Any]:
    prompt, *rest = re.split(r"(?:^|\s)--(?=[A-Za-z])", line)
    found: dict[str, Any] = {"prompt": prompt.strip()}
    for part in rest:
        flag, _, value = part.strip().partition(" ")
        found[_FLAGS.get(flag.lower(), flag.lower())] = value.strip()
    return found


def _read_prompts(tree: Any) -> Iterator[dict[str, Any]]:
    """JSON: a list of prompts or of texts. TOML: `[prompt]` with `[[prompt.subset]]`."""
    if isinstance(tree, Mapping):
        shared = tree.get("prompt", {})
        shared = shared if isinstance(shared, Mapping) else {"prompt": shared}
        common = {name: value for name, value in shared.items() if name != "subset"}
        yield from ({**common, **one} for one in shared.get("subset", [{}]))
        return
    for one in tree if isinstance(tree, list) else []:
        yield dict(one) if isinstance(one, Mapping) else _read_line(str(one))


# ---- what becomes of them


def _put_first(name: str, key: str, *, is_pixels: bool = False) -> Call:
    """A number of the first prompt, which holds for all."""

    def put(draft: Draft, keys: Keys, value: Any) -> str:
        first = next((one for one in value if one is not None), None) if isinstance(value, list) else value
        if first is None:
            return NO_EFFECT + "asks for nothing"
        number: float = read_float(first, name=name) if key in ("guidance", "cfg") else read_int(first, name=name)
        if is_pixels:
            number = max(_SMALLEST, int(number) - int(number) % _STEP_PIXELS)
        line = draft.set(f"sampling.{key}", number, origin=keys.find(name))
        return line + (": of the first prompt that says it, for all" if isinstance(value, list) else "")

    return put


def _put_prompts(draft: Draft, keys: Keys, value: Any) -> str:
    """The prompts."""
    return draft.set("sampling.prompts", list(value), origin=keys.find("prompt"))


def _put_scale(draft: Draft, keys: Keys, value: Any) -> str:
    """`--l`: classifier-free guidance."""
    number = _read_scale(keys)
    if number <= 1:
        return NO_EFFECT + "1 asks the model once, as here if nothing is said"
    line = draft.set("sampling.cfg", number, origin=keys.find("scale"))
    return line + "; the first versions of the scripts for FLUX took it for the guidance, sampling.guidance"


def _read_scale(keys: Keys) -> float:
    value = keys["scale"]
    first = next((one for one in value if one is not None), None) if isinstance(value, list) else value
    return 1.0 if first is None else read_float(first, name="scale")


def _put_negative(draft: Draft, keys: Keys, value: Any) -> str:
    """`--n`: read with classifier-free guidance."""
    first = next((one for one in value if one), None) if isinstance(value, list) else value
    if _read_scale(keys) <= 1 or not str(first or "").strip():
        return NO_EFFECT + "is read with --l above 1 alone"
    return draft.set("sampling.negative_prompt", str(first).strip(), origin=keys.find("negative_prompt"))


def _put_guidance(draft: Draft, keys: Keys, value: Any) -> str:
    """`--g`."""
    if keys["run.is_schnell"]:
        return NO_EFFECT + "schnell has no guidance input"
    return _put_first("guidance_scale", "guidance")(draft, keys, value)


def _put_seed(draft: Draft, keys: Keys, value: Any) -> str:
    """`--d`: the first prompt's; each further one adds 1 here."""
    line = _put_first("seed", "seed")(draft, keys, value)
    return line if line.startswith(NO_EFFECT) else f"{line}; each further prompt adds 1"


SAMPLES: Table = {
    "prompt": translated(_put_prompts, "sampling.prompts"),
    "width": translated(_put_first("width", "width", is_pixels=True), "sampling.width, in whole steps of 16"),
    "height": translated(_put_first("height", "height", is_pixels=True), "sampling.height, in whole steps of 16"),
    "seed": translated(_put_seed, "sampling.seed"),
    "sample_steps": translated(_put_first("sample_steps", "steps"), "sampling.steps"),
    "scale": translated(_put_scale, "sampling.cfg"),
    "guidance_scale": translated(_put_guidance, "sampling.guidance"),
    "negative_prompt": translated(_put_negative, "sampling.negative_prompt, with sampling.cfg"),
    "sample_sampler": ignored("FLUX is painted with Euler's steps, there as here"),
    "controlnet_image": refused("weber paints without a ControlNet"),
    "cfg_trunc_ratio renorm_cfg flow_shift": ignored("the scripts for FLUX do not read it"),
}
"""What stands behind a prompt."""


def _put_every(draft: Draft, keys: Keys, value: Any) -> str:
    """`sample_every_n_epochs`, else `sample_every_n_steps`."""
    number, epochs = read_int(value, name="sample_every_n_steps"), keys.read_int("sample_every_n_epochs") or 0
    if number < 1:
        return NO_EFFECT + "asks for nothing, here as there"
    if "sample_prompts" not in keys:
        return NO_EFFECT + "there are no sample_prompts"
    every = f"{epochs} epochs" if epochs > 0 else number
    if draft.get("sampling.every") is not None:
        return NO_EFFECT + "sample_every_n_epochs counts"
    return draft.set("sampling.every", every, origin=keys.find("sample_every_n_epochs" if epochs > 0 else "sample_every_n_steps"))


def _put_at_first(draft: Draft, keys: Keys, value: Any) -> str:
    """`sample_at_first`."""
    if not paints(keys):
        return NO_EFFECT + "there are no sample_prompts"
    if keys.read_bool("sample_at_first"):
        return "pictures are painted at the start, as here if nothing is said"
    return draft.set("sampling.at_start", False, origin=keys.find("sample_at_first"))


def _put_prompt_file(draft: Draft, keys: Keys, value: Any) -> str:
    """`sample_prompts`: the prompts in it are keys of their own."""
    if not paints(keys):
        return NO_EFFECT + "without sample_every_n_epochs, sample_every_n_steps and sample_at_first nothing is painted there"
    return "sampling.prompts"


SAMPLING: Table = {
    "sample_prompts": translated(_put_prompt_file, "sampling.prompts, with what stands behind them"),
    "sample_every_n_steps sample_every_n_epochs": translated(_put_every, "sampling.every"),
    "sample_at_first": translated(_put_at_first, "`sampling.at_start`, where it is said", off=(None,)),
    "sample_sampler": ignored("FLUX is painted with Euler's steps, there as here"),
}
"""Options of the scripts for pictures on the way."""

