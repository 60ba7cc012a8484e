"""All commands under one name, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence

import click

from narrowboat.cli.backends import backends
from narrowboat.cli.command import Settings
from narrowboat.cli.completion import completion
from narrowboat.cli.consume import consume
from narrowboat.cli.demo import demo
from narrowboat.cli.exits import EPILOG, Exit, code_of
from narrowboat.cli.holders import evict, holders
from narrowboat.cli.lock import lock
from narrowboat.cli.output import complain
from narrowboat.cli.publish import publish
from narrowboat.cli.queues import dead, depth
from narrowboat.cli.verify import verify
from narrowboat.errors import NarrowboatError


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"narrowboat {version('narrowboat')}")
    ctx.exit()


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def app() -> None:
    """Distributed locks and message queues behind one URL.

    Every URL may be written as "-": then NARROWBOAT_LOCKS_URL or NARROWBOAT_BROKER_URL gives it.
    """


for _command in (lock, publish, consume, depth, dead, holders, evict, backends, verify, demo, completion):
    app.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. No error leaves this function, and none shows a traceback without --debug."""
    settings = Settings()
    try:
        return int(app.main(arguments, prog_name="narrowboat", standalone_mode=False, obj=settings) or 0)
    except click.Abort as abort:
        # Ctrl-C, or another signal that a command turned into an orderly end
        return Exit.SIGNALLED + getattr(abort.__cause__, "signum", signal.SIGINT)
    except click.UsageError as error:
        _show(error, settings)
        complain(f"{error.format_message()}{_help_hint(error)}")
        return Exit.USAGE
    except click.ClickException as error:
        _show(error, settings)
        complain(error.format_message())
        return Exit.FAILED
    except NarrowboatError as error:
        _show(error, settings)
        complain(str(error))
        return code_of(error)
    except OSError as error:
        _show(error, settings)
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return Exit.FAILED
    except Exception as error:
        _show(error, settings)
        complain(f"a fault of Narrowboat itself: {type(error).__name__}: {error} (--debug shows where)")
        return Exit.BUG


def _show(error: BaseException, settings: Settings) -> None:
    if settings.debug:
        traceback.print_exception(error, file=sys.stderr)


def _help_hint(error: click.UsageError) -> str:
    return f" (see: {error.ctx.command_path} --help)" if error.ctx else ""
