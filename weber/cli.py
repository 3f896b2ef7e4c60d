"""The command line: which verbs there are, and what becomes of a mistake. What a verb needs is imported when it is called."""

from __future__ import annotations

import sys
from typing import NoReturn

from cyclopts import App, CycloptsError
from rich.console import Console

from weber.commands import bench, cache, files, lists, plan, sample, train
from weber.errors import WeberError
from weber.imports import start_command
from weber.version import VERSION

USER_ERROR = 2
INTERRUPTED = 130

app = App(
    name="weber", help="Fine-tune image models: a LoRA from a folder of pictures.", version=VERSION, result_action="return_value"
)
app.command(train.train, help_format="plaintext")
for _verb in (
    plan.plan,
    cache.app,
    sample.sample,
    files.inspect,
    files.export,
    files.merge,
    files.extract,
    bench.app,
    train.demo,
    lists.schema,
    lists.variants,
):
    app.command(_verb)


def main() -> None:
    """Entry point of the `weber` command: problems that a person can fix are one message and exit code 2."""
    arguments = sys.argv[1:]
    start_command()
    try:
        _write_settings_help(arguments)
        app(arguments, exit_on_error=False, print_error=False)
    except (WeberError, CycloptsError) as error:
        _fail(str(error))
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        fix = "check the path, the disk's space and permissions (a run goes on with --resume)"
        _fail(f"The disk refused.\n  got: {error.strerror or error}{where}\n  fix: {fix}")
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted.")
        sys.exit(INTERRUPTED)


def _write_settings_help(arguments: list[str]) -> None:
    """`weber train --help` ends with all settings. Only then are they read."""
    if arguments[:1] == ["train"] and {"-h", "--help"} & set(arguments):
        from weber.config.surface import build_help

        app["train"].help_epilogue = build_help()


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(USER_ERROR)
