"""`narrowboat run`: a worker from a module of the user's, until SIGTERM."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import click

from narrowboat.cli.command import Command, Settings
from narrowboat.cli.exits import Exit


@click.command("run", cls=Command)
@click.argument("target", metavar="MODULE:ATTRIBUTE")
@click.option("--only", multiple=True, metavar="NAME", help="Only this handler, by its function or its source; repeatable.")
@click.option("--health", metavar="ADDRESS", help="Answer /live, /ready and /metrics there: HOST:PORT, or a port on loopback.")
@click.option("--reload", is_flag=True, help="For development: start it again when a Python file of this folder changes.")
@click.option("--quiet", is_flag=True, help="Only warnings and errors; not that it starts, drains and has stopped.")
@click.option("--until-closed", type=int, hidden=True, help="End when this file is closed: by a --reload that has ended.")
@click.pass_obj
def run(
    settings: Settings,
    target: str,
    only: tuple[str, ...],
    health: str | None,
    reload: bool,
    quiet: bool,
    until_closed: int | None,
) -> int:
    r"""Run the worker that MODULE:ATTRIBUTE names.

    \b
      narrowboat run shop.worker:worker
      narrowboat run shop.worker:worker --only ship
      narrowboat run shop.worker:worker --health 127.0.0.1:8080

    The module is looked for in this folder first. SIGTERM and Ctrl-C drain: running handlers finish, what was not begun
    goes back; the exit code is 0 after SIGTERM, 130 after Ctrl-C. A second one ends the wait. A backend that is away is
    waited for; a source that fails for good ends the worker with its error once the others have drained.

    What happens is told on standard error, unless the module has set up logging for itself.
    """
    if reload:
        from narrowboat.cli.reload import Reloading

        arguments = [word for name in only for word in ("--only", name)]
        arguments += ["--debug"] * settings.debug + ["--quiet"] * quiet
        arguments += [] if health is None else ["--health", health]
        return Reloading(os.getcwd(), [sys.executable, "-m", "narrowboat", "run", target, *arguments]).run()

    from narrowboat.cli.log import shown
    from narrowboat.working.loading import load

    if until_closed is not None:
        threading.Thread(target=_end_with, args=[until_closed], daemon=True).start()
    worker = load(target)
    with shown(quiet=quiet), answering(health, worker):
        _run(worker, only)
    return Exit.OK


def _end_with(file: int) -> None:
    """Drain once nobody has the other end of this pipe any more."""
    os.read(file, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _run(worker: Any, only: tuple[str, ...]) -> None:
    if inspect.iscoroutinefunction(worker.run):
        import asyncio

        asyncio.run(worker.run(only=only))
    else:
        worker.run(only=only)


def _metrics(worker: Any) -> Callable[[], bytes]:
    """What prometheus-client's registry has, ours among it; nothing where that library is not installed."""
    try:
        from prometheus_client import generate_latest

        from narrowboat.telemetry.prometheus import Metrics
    except ModuleNotFoundError:
        return bytes
    with contextlib.suppress(ValueError):  # the program's module has made some itself
        worker._listen(Metrics())
    return generate_latest


@contextlib.contextmanager
def answering(address: str | None, worker: Any) -> Iterator[None]:
    """Answer probes meanwhile. With prometheus-client, /metrics has all that listeners hear, and the program's own metrics."""
    if address is None:
        yield
        return
    from narrowboat.working.probes import Probes

    with Probes(address, worker.health, _metrics(worker)) as probes:
        click.echo(f"probes are answered at http://{probes.address}/ready", err=True)
        yield
