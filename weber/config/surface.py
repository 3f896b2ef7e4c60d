"""The settings' three faces: JSON Schema for editors, `docs/config.md`, and the list in `--help`. One source: the fields."""

from __future__ import annotations

import textwrap
from typing import Any

from weber.config.run import RunConfig
from weber.config.settings import Setting, list_sections
from weber.config.toml import write_value

_SHORTEST = """\
[[data]]
path = "pictures"        # a folder of pictures, each with its caption in a text file of the same name
"""

_LONGER = """\
#:schema config.schema.json

[[data]]
path = "pictures/cat"
repeats = 4

[[data]]
path = "pictures/street"
resolution = 768
captions = "filename"

[adapter]
rank = 32

[train]
steps = 3000

[sampling]
prompts = ["a cat asleep on a blue sofa"]

[output]
folder = "runs/cat"
"""

_INTRO = f"""\
# Settings

A run is one TOML file. The shortest one names a folder of pictures; the defaults do the rest:

```toml
{_SHORTEST}```

`weber train run.toml` starts it, `weber plan run.toml` says what it would do. Every key can also be given or changed on the command
line: `weber train run.toml train.steps=500 data.0.resolution=768`. `data.0` is the first set of pictures, `data.1` the second;
a value that is not TOML is taken as text, so that quotes may be left out; lists need them, and then a shell needs both kinds:
`"adapter.targets=['attn.to_q', 'attn.to_k']"`. `optim.lr=null` leaves out what the file says. A setting that cannot
take effect is an error.

A longer one:

```toml
{_LONGER}```

The first line gives completion and checks in editors that know TOML schemas (`weber schema > config.schema.json` writes the file).
The resolved settings of a run, defaults included, are written into its folder.

*Default* `-`: left out; what happens then is in the last column. This page is written by `make docs` from the fields themselves.
"""


def build_schema() -> dict[str, Any]:
    """The settings as a JSON Schema; TOML has no null, so a setting that may be left out is only not required."""
    schema: dict[str, Any] = _tidy(RunConfig.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "weber run", **schema}


def build_docs() -> str:
    """The page `docs/config.md`: a table per section."""
    blocks = [_INTRO]
    for section in list_sections():
        rows = [
            f"| `{setting.name}` | {_escape(setting.expected)} | {_name_default(setting)} | {_escape(setting.doc)} |"
            for setting in section.settings
        ]
        head = f"## `{section.header}`\n\n{section.doc}\n\n| key | value | default | what it does |\n|---|---|---|---|"
        blocks.append("\n".join([head, *rows, ""]))
    return "\n".join(blocks)


def build_help() -> str:
    """Plain text: every key with its default and the first sentence of its documentation."""
    lines = []
    for section in list_sections():
        lines.append(textwrap.fill(f"{section.header} {section.doc}", 80, subsequent_indent="  "))
        for setting in section.settings:
            default = "" if setting.default is None else f" = {write_value(setting.default)}"
            head = f"  {setting.key}{default}{' (required)' if setting.required else ''}"
            text = f"{setting.summary}."
            if setting.choices:
                text += f" ({setting.expected})"
            lines += [head, textwrap.fill(text, 78, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)]
        lines.append("")
    return "\n".join(lines)


def _name_default(setting: Setting) -> str:
    if setting.required:
        return "required"
    return "-" if setting.default is None else f"`{write_value(setting.default)}`"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _tidy(node: Any) -> Any:
    """Docstrings as one line, no titles made from names, no null, no section as a default."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    dropped = {"title"} | ({"default"} if isinstance(node.get("default"), dict | None) else set())
    tidy = {key: _tidy(value) for key, value in node.items() if key not in dropped}
    if isinstance(tidy.get("description"), str):
        tidy["description"] = " ".join(tidy["description"].split())
    choices = [choice for choice in tidy.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        del tidy["anyOf"]
        tidy |= choices[0]
    elif choices:
        tidy["anyOf"] = choices
    return tidy
