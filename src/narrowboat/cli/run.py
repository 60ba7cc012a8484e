"""`narrowboat run`: a worker from a module of the user's, until SIGTERM."""

from __future__ import annotations

import inspect
import os
import sys

import click

from narrowboat.cli.command import Command
from narrowboat.cli.exits import Exit


@click.command("run", cls=Command)
@click.argument("target", metavar="MODULE:ATTRIBUTE")
@click.option("--only", multiple=True, metavar="NAME", help="Only this handler, by its function or its source; repeatable.")
@click.option("--reload", is_flag=True, help="For development: start it again when a Python file of this folder changes.")
def run(target: str, only: tuple[str, ...], reload: bool) -> int:
    r"""Run the worker that MODULE:ATTRIBUTE names.

    \b
      narrowboat run shop.worker:worker
      narrowboat run shop.worker:worker --only ship

    The module is looked for in this folder first. SIGTERM and Ctrl-C drain: running handlers finish, what was not begun
    goes back; the exit code is 0 after SIGTERM, 130 after Ctrl-C. A second one ends the wait. A backend that is away is
    waited for; a source that fails for good ends the worker with its error once the others have drained.
    """
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if reload:
        from narrowboat.cli.reload import Reloading

        arguments = [word for name in only for word in ("--only", name)]
        return Reloading(folder, [sys.executable, "-m", "narrowboat", "run", target, *arguments]).run()

    from narrowboat.working.loading import load

    worker = load(target)
    if inspect.iscoroutinefunction(worker.run):
        import asyncio

        asyncio.run(worker.run(only=only))
    else:
        worker.run(only=only)
    return Exit.OK
