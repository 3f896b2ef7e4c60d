"""Under which license a model is given, as cards of the hub say it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class License:
    """`id`: one that the hub knows, else `other` with a `name` of its own and the `link` to its text."""

    id: str
    name: str | None = None
    link: str | None = None

    def build_lines(self) -> dict[str, str]:
        """What a card says of it."""
        lines = {"license": self.id, "license_name": self.name, "license_link": self.link}
        return {key: text for key, text in lines.items() if text is not None}


APACHE = License("apache-2.0")


def build_own(name: str, home: str, *, file: str = "LICENSE.md") -> License:
    """A license of the makers, whose text lies beside their model."""
    return License("other", name, f"https://huggingface.co/{home}/blob/main/{file}")
