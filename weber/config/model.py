"""`[model]`: which base model is trained."""

from __future__ import annotations

from weber.config.section import PathText, Section


class ModelConfig(Section):
    """Which base model is trained."""

    variant: str | None = None
    """A row of the table of variants (`weber variants` lists them). Left out: recognized from the folder's configuration
    files, or the table's first row where no path is given either."""

    path: PathText | None = None
    """A local folder in diffusers layout, or a hub id such as `owner/name`. Left out: the variant's own hub id."""

    revision: str | None = None
    """Branch, tag or commit of a hub id. Refused for a local folder."""
