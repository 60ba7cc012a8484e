"""All commands under one name, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Sequence

import click

from narrowboat.cli.command import Settings
from narrowboat.cli.exits import EPILOG, Exit, code_of
from narrowboat.cli.output import complain, escape_what_cannot_be_written, print_traceback
from narrowboat.dsn import unknown
from narrowboat.errors import NarrowboatError

#: Command to the module that has it, in the order in which `--help` lists them. Each is imported when it is asked for:
#: `narrowboat lock` in a cron job must not pay for what the others need.
_MODULES = {
    "lock": "lock",
    "holders": "holders",
    "evict": "holders",
    "publish": "publish",
    "consume": "consume",
    "queues": "queues",
    "declare": "declare",
    "depth": "depth",
    "dead": "dead",
    "show": "dead",
    "redrive": "dead",
    "purge": "queues",
    "delete": "queues",
    "top": "top",
    "web": "web",
    "run": "run",
    "asyncapi": "asyncapi",
    "relay": "outbox",
    "ping": "ping",
    "serve": "serve",
    "keys": "keys",
    "backends": "backends",
    "verify": "verify",
    "demo": "demo",
    "completion": "completion",
}


class Commands(click.Group):
    """The commands, each loaded when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them."""
        return list(_MODULES)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find it; a word that is no command is told with the nearest one."""
        if args and args[0] not in _MODULES and not args[0].startswith("-"):
            ctx.fail(unknown("command", args[0], list(_MODULES)))
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them."""
        if cmd_name not in _MODULES:
            return None
        module = importlib.import_module(f"narrowboat.cli.{_MODULES[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"narrowboat {version('narrowboat')}")
    ctx.exit()


@click.group(
    cls=Commands,
    epilog=EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.pass_context
def app(ctx: click.Context) -> int | None:
    """Distributed locks and message queues behind one URL.

    Every URL may be written as "-": then NARROWBOAT_LOCKS_URL or NARROWBOAT_BROKER_URL gives it.
    """
    if ctx.invoked_subcommand is not None:
        return None
    click.echo(ctx.get_help())
    return Exit.USAGE


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. No error leaves this function, and none shows a traceback without --debug."""
    settings = Settings()
    escape_what_cannot_be_written()
    try:
        return int(app.main(arguments, prog_name="narrowboat", standalone_mode=False, obj=settings) or 0)
    except click.Abort as abort:
        # Ctrl-C, or another signal that a command turned into an orderly end
        return Exit.SIGNALLED + getattr(abort.__cause__, "signum", signal.SIGINT)
    except click.UsageError as error:
        _show(error, settings)
        complain(" ".join(f"{error.format_message()}{_help_hint(error)}".split()))  # click puts choices into lines
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
        print_traceback(error)


def _help_hint(error: click.UsageError) -> str:
    return f" (see: {error.ctx.command_path} --help)" if error.ctx else ""
