"""What every command has: `--debug`, the exit codes under its help, and a quiet end when the reader goes away."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import dataclass
from typing import Any

import click

from narrowboat.cli.exits import EPILOG, Exit
from narrowboat.cli.output import complain


@dataclass
class Settings:
    """What `run` wants to know about the command after it has failed."""

    debug: bool = False


class Command(click.Command):
    """A command whose function returns the exit code; None means 0."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("epilog", EPILOG)
        if kwargs.get("help"):  # click's mark of lines to be left as they are; a docstring has it as two characters
            kwargs["help"] = kwargs["help"].replace("\\b\n", "\b\n")
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--debug"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_remember_debug,
                help="Show the traceback of an error. URLs lose their passwords in it; look before you post it.",
            )
        )

    def invoke(self, ctx: click.Context) -> int:
        """Run it."""
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            abandon_output()
            return Exit.SIGNALLED + 13  # as SIGPIPE ends other programs
        except OSError as error:
            if error.filename is not None or error.errno not in _FULL:
                raise
            abandon_output()
            complain(f"standard output: {error.strerror}; what was printed is cut. Make room, or write elsewhere")
            return Exit.FAILED
        return int(code or 0)


#: Why a file that a shell has opened for us cannot be written any more.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def abandon_output() -> None:
    """Let what is still buffered go nowhere, so that the interpreter does not complain about it on its way out."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _remember_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    settings = ctx.find_object(Settings)
    if value and settings is not None:
        settings.debug = True
