"""The page of a repository: README.md with the table in front of it that the hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from weber.adapters.readers import Reading
from weber.config.publish import PublishConfig
from weber.config.run import RunConfig
from weber.sharing.shown import Base, Picture, list_settings

CARD = "README.md"
CURVE = "loss.png"
_HOME = "https://huggingface.co"


@dataclass(frozen=True)
class Shown:
    """What a page tells. `facts`: those of the file; `files` in the folder with their SHA-256; `readings` of the adapter files among them;
    `loads`: the file that diffusers loads, if there is one; `captions`: those that may be told."""

    title: str
    config: RunConfig
    publish: PublishConfig
    base: Base
    facts: Mapping[str, object]
    files: Mapping[Path, str]
    readings: Mapping[str, Sequence[Reading]]
    pictures: Sequence[Picture]
    loads: str | None
    has_curve: bool
    captions: Sequence[str]


def build_card(shown: Shown, *, folder: Path) -> str:
    """The whole text of README.md."""
    front = yaml.safe_dump(build_front(shown, folder=folder), sort_keys=False, allow_unicode=True, width=1000)
    sections = [
        f"# {shown.title}",
        "<Gallery />" if shown.pictures else "",
        _describe(shown),
        _build_trigger(shown),
        _build_files(shown, folder),
        _build_use(shown),
        _build_loading(shown),
        _build_settings(shown),
        _build_captions(shown.captions),
        f"## Loss\n\n![Loss by step]({CURVE})" if shown.has_curve else "",
        _build_base(shown),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(one for one in sections if one) + "\n"


def build_front(shown: Shown, *, folder: Path) -> dict[str, object]:
    """The table that the hub reads."""
    base, is_model = shown.base, shown.config.adapter.kind == "full"
    license_lines = {} if base.row is None or base.variant is None else base.row.licenses[base.variant].build_lines()
    front: dict[str, object] = {}
    if base.hub_id is not None:
        front |= {"base_model": base.hub_id, "base_model_relation": "finetune" if is_model else "adapter"}
    front |= {"library_name": "diffusers", **license_lines, "pipeline_tag": _choose_task(shown.facts)}
    front |= {} if shown.publish.trigger_words is None else {"instance_prompt": shown.publish.trigger_words}
    front["tags"] = _list_tags(shown, is_model=is_model)
    if shown.pictures:
        front["widget"] = [
            {
                "text": one.prompt or "-",
                "output": {"url": one.file.relative_to(folder).as_posix()},
                **({"parameters": {"negative_prompt": one.negative}} if one.negative else {}),
            }
            for one in shown.pictures
        ]
    return front


def _choose_task(facts: Mapping[str, object]) -> str:
    return "image-to-image" if facts.get("references") or facts.get("masks") else "text-to-image"


def _list_tags(shown: Shown, *, is_model: bool) -> list[str]:
    """As trainers of the library tag them: `template:sd-lora` is how the hub knows the page of a LoRA."""
    found = re.match(r"([a-z]+)-(\d+)", str(shown.facts.get("architecture", "")))
    family = [] if found is None else [found[1] + ("" if found[2] == "1" else found[2])]
    kinds = ["full"] if is_model else ["lora", "template:sd-lora"]
    kinds += ["lycoris"] if shown.config.adapter.kind == "lycoris" else []
    return [_choose_task(shown.facts), "diffusers", "weber", *kinds, *family, *(f"{one}-diffusers" for one in family)]


def _describe(shown: Shown) -> str:
    facts, form = shown.facts, shown.config.adapter.form
    kind = {"lora": "LoRA", "full": "fine-tune"}.get(form, f"LyCORIS ({form})")
    name = f"[{shown.base.hub_id}]({_HOME}/{shown.base.hub_id})" if shown.base.hub_id else str(facts.get("model", "a model"))
    steps = f", trained for {facts['steps']} steps" if "steps" in facts else ", trained"
    pictures = f" on {_count(facts['num_pictures'], 'picture')}" if "num_pictures" in facts else ""
    captions = f" with {_count(facts['num_captions'], 'caption')}" if facts.get("num_captions") else ""
    return f"A {kind} of {name}{steps}{pictures}{captions}. Made with weber {facts.get('version', '')}".rstrip() + "."


def _build_trigger(shown: Shown) -> str:
    trigger = shown.publish.trigger_words
    return "" if trigger is None else f"## Trigger words\n\nWrite {_code(trigger)} into the prompt."


def _build_files(shown: Shown, folder: Path) -> str:
    rows = [[_code(path.relative_to(folder).as_posix()), f"{path.stat().st_size:,}", _code(digest)] for path, digest in shown.files.items()]
    return "## Files\n\n" + _build_table(["file", "bytes", "SHA-256"], rows)


def _build_use(shown: Shown) -> str:
    """How diffusers loads it, where it does."""
    if shown.loads is None or shown.base.hub_id is None:
        return ""
    place = shown.publish.to if shown.publish.is_to_hub else "."
    prompt = shown.publish.trigger_words or (shown.pictures[0].prompt if shown.pictures else "a photo")
    lines = [
        "from diffusers import DiffusionPipeline",
        "",
        f"pipeline = DiffusionPipeline.from_pretrained({_quote(shown.base.hub_id)})",
        f"pipeline.load_lora_weights({_quote(str(place))}, weight_name={_quote(shown.loads)})",
        f"picture = pipeline({_quote(prompt)}).images[0]",
    ]
    return "## Use\n\n```python\n" + "\n".join(lines) + "\n```"


def _build_loading(shown: Shown) -> str:
    if not shown.readings:
        return ""
    programs = list(dict.fromkeys(one.program for some in shown.readings.values() for one in some))
    rows = []
    for program in programs:
        told = [next((str(one) for one in some if one.program == program), "") for some in shown.readings.values()]
        rows.append([program, *told])
    table = _build_table(["program", *(_code(name) for name in shown.readings)], rows)
    return f"## Loads in\n\nBy the names of the tensors, as `weber check` reads them.\n\n{table}"


def _build_settings(shown: Shown) -> str:
    facts, config = shown.facts, shown.config
    named = {
        "steps": facts.get("steps"),
        "pictures in a step": facts.get("batch_size"),
        "learning rate": facts.get("lr"),
        "optimizer": facts.get("optimizer"),
        "sizes": ", ".join(map(str, _list(facts.get("resolutions")))),
        "noise levels": facts.get("timesteps"),
        "guidance": facts.get("guidance"),
        "seed": facts.get("seed"),
        "kind": config.adapter.form,
    }
    table = _build_table(["setting", "value"], [[name, str(value)] for name, value in named.items() if value not in (None, "")])
    changes = [[_code(key), _code(value), _code(default) if default else ""] for key, value, default in list_settings(config)]
    others = "\n\nWhat differs from weber's defaults:\n\n" + _build_table(["key", "value", "default"], changes) if changes else ""
    return f"## Settings\n\n{table}{others}"


def _build_captions(captions: Sequence[str]) -> str:
    return "## Captions\n\n" + "\n".join(f"- {_code(text)}" for text in captions) if captions else ""


def _build_base(shown: Shown) -> str:
    base, identity = shown.base, shown.facts.get("base_identity")
    license_lines = {} if base.row is None or base.variant is None else base.row.licenses[base.variant].build_lines()
    name = license_lines.get("license_name", license_lines.get("license", ""))
    link = license_lines.get("license_link")
    lines = []
    if name:
        lines.append(f"The base is given under {f'[{name}]({link})' if link else name}, which holds for what is made from it too.")
    if identity:
        model = shown.facts.get("model", "the base")
        lines.append(f"Identity of the transformer that was trained on ({model}): {_code(str(identity))}, a hash of headers and samples.")
    return "## Base\n\n" + "\n\n".join(lines) if lines else ""


def _build_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(_clean(cell) for cell in line) + " |" for line in lines)


def _clean(cell: str) -> str:
    return re.sub(r"\s+", " ", cell).replace("|", "\\|").strip()


def _code(text: str) -> str:
    """As it is written, with marks around it that it does not hold itself."""
    marks = "``" if "`" in text else "`"
    return f"{marks} {text} {marks}" if "`" in text else f"{marks}{text}{marks}"


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def _count(number: object, name: str) -> str:
    return f"{number} {name}" + ("" if number == 1 else "s")


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []
