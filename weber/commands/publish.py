"""`weber publish`: what a run has learned, shown to others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weber.commands.terminal import Texts, build_watcher, say


def publish(
    run: Path,
    to: str | None = None,
    /,
    *,
    format: Texts | None = None,
    public: Annotated[bool, Parameter(negative="")] = False,
    consent: Annotated[bool, Parameter(negative="")] = False,
    trigger: str | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
) -> None:
    """Send what a run has learned, with a page that tells of it, to the hub or to a storage: private, unless it is said otherwise.

    Parameters
    ----------
    run
        A run folder, one of its checkpoints, or a result in it.
    to
        owner/name on the hub, or a folder in a storage, such as s3://bucket/folder; publish.to of the run if left out.
    format
        diffusers, kohya, comfyui, merged-diffusers or merged-bfl, may be given several times; publish.formats of the run if left out.
    public
        Everyone may see it; needs --consent.
    consent
        You have the rights to what was learned, those who can be recognized agree, and the license of the base model allows it.
    trigger
        The words that call up what was learned, for the page.
    dry_run
        Write the folder that would be sent, and send nothing.
    out
        The folder of --dry-run; `publish` in the run folder if left out.
    """
    from weber.sharing.once import Asked
    from weber.sharing.once import publish as show

    watcher = build_watcher()
    asked = Asked(to, formats=format, public=public, consent=consent, trigger=trigger)
    with watcher.shown():
        told = show(run, asked, is_dry=dry_run, out=out, progress=watcher.report)
    say("\n".join([told.place, *(f"note: {note}" for note in told.notes)]))
