"""`weber import`: the settings of another trainer, as those of weber."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weber.commands.terminal import build_watcher, check_plot, say
from weber.errors import ConfigError, WeberError


def import_settings(
    path: Path,
    /,
    *overrides: str,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    tool: str | None = None,
    weber_defaults: Annotated[bool, Parameter(negative="")] = False,
    plot: Path | None = None,
) -> None:
    """Say what becomes of the settings of another trainer, key by key, and write them as a file of weber.

    Parameters
    ----------
    path
        A file that another trainer is started with, or a folder with one: settings of SimpleTuner (config.json, .toml, .env), a script
        that starts kohya's or diffusers' trainers (.sh, .bat, .ps1, .ipynb), a job of ai-toolkit (.yaml, .json), settings of OneTrainer.
        Nothing in it is run.
    overrides
        `section.key=value`, for example `model.path=/models/dev`.
    out
        The TOML file to write; left out: nothing is written.
    tool
        Whose file it is: simpletuner, kohya, diffusers, ai-toolkit or onetrainer; left out: as it looks.
    weber_defaults
        What the file leaves out is as weber has it, not as the other trainer has it.
    plot
        Write a picture of the noise levels that were trained: a PNG file.
    """
    from weber.config.importers.commented import write_commented
    from weber.config.importers.load import import_run
    from weber.config.importers.report import write_report
    from weber.config.load import choose_mode

    if out is not None and (out.suffix.lower() != ".toml" or out.exists()):
        got = "a file that is there" if out.exists() else "no TOML file"
        expected, fix = "the name of a new TOML file", "write --out run.toml, or another name"
        raise ConfigError(f"{out} cannot be written.", got=got, expected=expected, fix=fix)
    check_plot(plot)
    imported = import_run(path, overrides, tool=tool, weber_defaults=weber_defaults)
    say(write_report(imported))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.touch(mode=choose_mode(imported.config))
        out.write_text(write_commented(imported), encoding="utf-8")
    from weber.planning.old_run import describe_old_run
    from weber.planning.plan import build_plan
    from weber.planning.plot import build_plot
    from weber.sampling.validate import save_picture

    watcher = build_watcher()
    try:
        with watcher.shown():
            built = build_plan(imported.config, watcher.report)
            lines = describe_old_run(imported, built)
        if plot is not None:
            save_picture(build_plot(built), plot)
            lines.append(f"its noise levels are drawn in {plot}")
    except WeberError as error:
        lines = [f"not measured, because the run cannot be planned here yet: {error.what}"]
    say("\n".join(["", "What the old run really did:", *(f"  {line}" for line in lines)]))
    say(f"\nWritten: {out}. To start: weber train {out}" if out is not None else f"\nTo write it: weber import {path} -o run.toml")
