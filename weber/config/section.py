"""The one base of every section: frozen, nothing is converted in silence, and an unknown key is an error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

_VARIABLE = re.compile(r"\$\{?[A-Za-z_]\w*\}?|%[A-Za-z_]\w*%")


def _refuse_escapes(value: object) -> object:
    # In "C:\train" TOML reads \t as a tab: without this check the folder would be searched under a name nobody wrote.
    if isinstance(value, str) and any(ord(character) < 32 for character in value):
        raise ValueError("a path holds a tab or a line break; write paths with / or in single quotes: 'C:\\train'")
    variable = _VARIABLE.search(value) if isinstance(value, str) else None
    if variable is not None and not Path(str(value)).exists():
        raise ValueError(f"only a shell puts something in place of {variable[0]}; write the folder itself, or ~ for your home folder")
    return value


FolderPath = Annotated[Path, Field(strict=False), BeforeValidator(_refuse_escapes)]
"""A folder on this machine; text is converted."""

PathText = Annotated[str, BeforeValidator(_refuse_escapes)]
"""A path that may be something else too, such as a hub id."""


@dataclass(frozen=True)
class Words:
    """What a value is called, where its type does not say it."""

    text: str


HIDDEN = "(not shown)"
"""What stands for a value that is secret."""


class Secret:
    """Marks a setting whose value is in no message."""


class Section(BaseModel):
    """A group of settings. Fields carry their documentation; see `surface.py` for its three faces."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    may_be_blank: ClassVar[tuple[str, ...]] = ()
    """Settings of which a space, or no text at all, is a value."""

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_empty(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, str) and not value.strip() and info.field_name not in cls.may_be_blank:
            raise ValueError("an empty text is not a value; set it or remove the line (on the command line: null)")
        return value
