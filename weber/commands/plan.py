"""`weber plan`: what a run will do."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weber.commands.terminal import build_watcher, check_plot, read_run, say


def plan(
    config: Path,
    /,
    *overrides: str,
    card: str | None = None,
    plot: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    pictures: Path | None = None,
) -> None:
    """Say what a run will do, without reading weights: pictures, buckets, steps, cache, files, settings.

    Parameters
    ----------
    config
        A TOML file of settings, or a file of another trainer (see `weber import`).
    overrides
        `section.key=value`, for example `optim.lr=2e-4`.
    card
        Plan for a machine with this GPU instead of this machine: `--card "RTX 4090"`, `--card 24GB`.
    plot
        Write a picture of the noise levels that are trained: a PNG file.
    json
        Print the plan as JSON, in bytes and seconds, for programs.
    pictures
        Write what becomes of each picture, a line of JSON for each: bucket, windows, captions and their tokens.
    """
    check_plot(plot)
    settings, imported = read_run(config, overrides)
    from weber.config.importers.report import write_report
    from weber.planning.data_report import save_list
    from weber.planning.facts import build_facts, write_pictures
    from weber.planning.old_run import describe_old_run
    from weber.planning.places import check_places
    from weber.planning.plan import build_plan
    from weber.planning.plot import build_plot
    from weber.planning.report import describe_plan
    from weber.planning.space import check_space
    from weber.sampling.validate import save_picture

    check_places(settings)
    watcher = build_watcher()
    with watcher.shown():
        built = build_plan(settings, watcher.report, card=card)
        save_list(built)
        report = describe_plan(built, watcher.report)
        if pictures is not None:
            write_pictures(built, pictures, progress=watcher.report)
    if json:
        say(dumps(build_facts(built, report)))
        return
    if built.machine.wish is None:  # of another machine the disk is another one
        check_space(built)
    if imported is not None:
        lines = describe_old_run(imported, built)
        say("\n".join([write_report(imported), "", "What the old run really did:", *(f"  {line}" for line in lines), ""]))
    say(str(report))
    if plot is not None:
        save_picture(build_plot(built), plot)
        say(f"\nThe noise levels that are trained are in {plot}.")
