"""The command line: what becomes of a mistake, and of a wish to stop. Nothing is imported before that is seen to."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn

from weber.imports import start_command

USER_ERROR = 2
INTERRUPTED = 130
CLOSED_PIPE = 141
"""As shells say it of a program that writes to nobody."""


def main() -> None:
    """Entry point of the `weber` command: problems that a person can fix are one message and exit code 2."""
    start_command()
    try:
        _call(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be closed
            sys.stderr.write("Interrupted.\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
        sys.exit(CLOSED_PIPE)


def _call(arguments: list[str]) -> None:
    from cyclopts import CycloptsError

    from weber.commands.verbs import call
    from weber.errors import WeberError

    try:
        call(arguments)
    except CycloptsError as error:
        from weber.commands.mistakes import build_mistake

        _fail(str(build_mistake(error, arguments)))
    except WeberError as error:
        _fail(str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        fix = "check the path, the disk's space and permissions (a run goes on with --resume)"
        _fail(f"The disk refused.\n  got: {error.strerror or error}{where}\n  fix: {fix}")


def _fail(message: str) -> NoReturn:
    from rich.console import Console

    Console(stderr=True).print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(USER_ERROR)
