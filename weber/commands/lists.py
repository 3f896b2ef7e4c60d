"""`weber variants`, `weber schema`: what there is."""

from __future__ import annotations

import json

from weber.commands.terminal import say


def variants() -> None:
    """List the models and the target sets that are known by name."""
    from weber.families.table import FAMILIES

    for family in FAMILIES:
        for name, (home, summary) in family.variants.items():
            say(f"{name:20} {summary} ({home})")
        say("target sets: " + ", ".join(family.targets))


def schema() -> None:
    """Print the JSON Schema of the settings, for editors and forms."""
    from weber.config.surface import build_schema

    say(json.dumps(build_schema(), indent=1))
