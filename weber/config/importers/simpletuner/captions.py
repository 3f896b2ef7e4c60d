"""Captions of a set of SimpleTuner's multidatabackend.json: what each key becomes in its [[data]]."""

from __future__ import annotations

from typing import Any

from weber.config.importers.draft import NO_EFFECT, Draft, Keys
from weber.errors import ConfigError


def build_key(keys: Keys, name: str) -> str:
    """A setting of the set that is read."""
    return f"data.{keys.set_number}.{name}"


def read_kind(keys: Keys) -> str:
    """The type of a set, `local` where nothing is said."""
    return (keys.read_text("type") or "local").lower()


def read_texts_or_one(value: Any) -> Any:
    """A text, or a list of texts where there are several."""
    parts = [str(one) for one in value] if isinstance(value, list) else str(value).strip()
    return parts[0] if isinstance(parts, list) and len(parts) == 1 else parts


def find_captions(keys: Keys) -> str:
    """Where captions come from, in weber's word."""
    if keys.read_bool("only_instance_prompt"):
        return "instance"
    usual = {"huggingface": "huggingface", "csv": "csv"}.get(read_kind(keys))
    name = usual if usual and "caption_strategy" not in keys else (keys.read_text("caption_strategy") or "filename").lower()
    found = _CAPTIONS.get(name or "filename")
    if found is None:
        raise ConfigError(
            f"the set {keys.read_text('id')} has a caption_strategy that weber does not know.",
            got=keys.find("caption_strategy").text,
            expected=f"one of {', '.join(_CAPTIONS)}",
            fix="write caption_strategy = textfile",
        )
    return found


_CAPTIONS = {
    "textfile": "textfile",
    "filename": "filename",
    "instanceprompt": "instance",
    "instance_prompt": "instance",
    "parquet": "metadata",
    "csv": "metadata",
    "huggingface": "metadata",
}


def set_captions(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Where captions come from, with the prompt of the set."""
    captions = find_captions(keys)
    line = draft.set(build_key(keys, "captions"), captions, origin=keys.find("caption_strategy"))
    if captions == "instance":
        _set_instance(draft, keys)
    if captions == "textfile" and keys.read_bool("disable_multiline_split"):
        line += ", " + draft.set(build_key(keys, "caption_per"), "file", origin=keys.find("disable_multiline_split"))
    return line


def _set_instance(draft: Draft, keys: Keys) -> None:
    prompt = keys["instance_prompt"]
    if prompt is None:
        raise ConfigError(
            f"the set {keys.read_text('id')} takes its captions from instance_prompt, which is not there.",
            got=keys.find("caption_strategy").text,
            expected="instance_prompt with the caption of the set",
            fix="add instance_prompt to that set",
        )
    draft.set(build_key(keys, "instance_prompt"), read_texts_or_one(prompt), origin=keys.find("instance_prompt"))


def set_instance(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The caption of every picture, or what comes before it."""
    if find_captions(keys) == "instance":
        _set_instance(draft, keys)
        return f"{build_key(keys, 'instance_prompt')}"
    if keys.read_bool("prepend_instance_prompt"):
        return "in data.N.caption_steps, before each caption"
    return f"{NO_EFFECT}captions come from {find_captions(keys)}"


def set_only_instance(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The prompt of the set alone."""
    if not keys.read_bool("only_instance_prompt"):
        return f"{NO_EFFECT}asks for nothing, here as there"
    return f'{build_key(keys, "captions")} = "instance"'


def name_split_lines(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Whether each line of a caption file is a caption."""
    if find_captions(keys) != "textfile" or not keys.read_bool("disable_multiline_split"):
        return f"{NO_EFFECT}each line of a caption file is a caption of its own, as here by default"
    return f'{build_key(keys, "caption_per")} = "file"'


def set_steps(draft: Draft, keys: Keys, *, value: Any) -> str:
    """What is done to captions: the prompt before them, tags in another order."""
    steps = build_steps(keys)
    if not steps:
        return f"{NO_EFFECT}captions stay as they are"
    name = "prepend_instance_prompt" if "prepend_instance_prompt" in keys else "caption_shuffle.enable"
    draft.set(build_key(keys, "caption_steps"), steps, origin=keys.find(name))
    if any(step["kind"] == "shuffle" for step in steps):
        variants = (keys.read_int("caption_shuffle.count") or 1) + (keys["caption_shuffle.include_original"] is not False)
        draft.set(build_key(keys, "caption_variants"), variants, origin=keys.find("caption_shuffle.count"))
    return f"{build_key(keys, 'caption_steps')}: {', '.join(step['kind'] for step in steps)}"


def build_steps(keys: Keys) -> list[dict[str, Any]]:
    """The steps of a set, without those of filters."""
    steps: list[dict[str, Any]] = []
    prompt = keys["instance_prompt"]
    if keys.read_bool("prepend_instance_prompt") and prompt is not None and find_captions(keys) != "instance":
        listed = [str(one) for one in prompt] if isinstance(prompt, list) else [str(prompt)]
        steps.append({"kind": "prefix", "text": listed[0] if len(listed) == 1 else "{" + "|".join(listed) + "}"})
        steps += [{"kind": "wildcards"}] if len(listed) > 1 else []
    if keys.read_bool("caption_shuffle.enable"):
        step: dict[str, Any] = {"kind": "shuffle"}
        if keep := keys.read_int("caption_shuffle.position_start") or 0:
            step["keep"] = keep
        between = (keys.read_text("caption_shuffle.split_on") or "comma").lower()
        if between != "comma":
            step["separator"] = {"space": " ", "period": "."}.get(between, between)
        steps.append(step)
    return steps


def name_steps(draft: Draft, keys: Keys, *, value: Any) -> str:
    """A part of the steps."""
    acts = keys.read_bool("caption_shuffle.enable")
    return f"in {build_key(keys, 'caption_steps')}" if acts else f"{NO_EFFECT}tags stay in their order"
