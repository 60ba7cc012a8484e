"""`narrowboat top`: queues and locks as they stand, again and again."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from narrowboat.cli.command import Command
from narrowboat.cli.drain import Drain
from narrowboat.cli.exits import Exit
from narrowboat.cli.options import as_json, broker_url
from narrowboat.cli.output import make_table, print_json, printable, redact
from narrowboat.cli.portable import json_text
from narrowboat.cli.snapshot import LockLine, QueueLine, Snapshot, age_text, lock_lines, queue_lines, to_json
from narrowboat.cli.watched import watched_options, watching
from narrowboat.errors import NarrowboatError

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

_QUEUES = ("queue", "ready", "in flight", "delayed", "dead", "oldest", "backlog/s", "dead/s")
_LOCKS = ("lock", "holders", "waiting", "held by", "expires in")
_LOCKS_RIGHT = ("holders", "waiting", "expires in")
#: Lines of a table beside its rows: its head, what is around it, and how many more there are.
_BESIDE = 5


@click.command("top", cls=Command)
@broker_url
@watched_options
@click.option("--once", is_flag=True, help="Look once, and end.")
@as_json
def top(
    url: str | None,
    queues: tuple[str, ...],
    subscriptions: tuple[str, ...],
    half: str | None,
    interval: float,
    once: bool,
    as_json: bool,
) -> int:
    """Watch queues and locks: how many messages are ready, in flight, delayed and dead, for how long the oldest ready one has
    waited, who holds what, and who waits.

    backlog/s and dead/s are what changed between two looks, in a second: no throughput, which no backend counts. A backend that
    does not list its queues wants --queue or --subscription. With --json each look is a line. It ends with Ctrl-C or SIGTERM.
    A backend that goes away meanwhile does not end it: the lines have its error until it is back.
    Exit code 1 when there is no such queue, as far as the backend can tell that from an empty one.
    """
    if not (once or as_json or sys.stdout.isatty()):
        raise click.UsageError("without a terminal say --once, --json or both")
    ended = threading.Event()
    with watching(url, half, queues, subscriptions) as watched, Drain(ended.set):
        watched.find()  # refused before anything is shown, where names are wrong or cannot be told
        if once:
            _show_once(watched.look(), as_json)
        elif as_json:
            _show_lines(watched.look, lambda: ended.wait(interval))
        else:
            _show_live(watched.look, lambda: ended.wait(interval))
    return Exit.OK


def _show_once(now: Snapshot, as_json: bool) -> None:
    if as_json:
        print_json(to_json(now, None))
        return
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 10_000, highlight=False).print(_screen(now, None))


def _looks(
    look: Callable[[], Snapshot], wait: Callable[[], bool]
) -> Iterator[tuple[Snapshot | NarrowboatError, Snapshot | None]]:
    """Each look, and the one before it that saw something. One that saw nothing is its error: that may pass."""
    before = None
    while True:
        now: Snapshot | NarrowboatError
        try:
            now = look()
        except NarrowboatError as error:
            if not error.retryable:
                raise
            now = error
        yield now, before
        if isinstance(now, Snapshot):
            before = now
        if wait():
            return


def _show_lines(look: Callable[[], Snapshot], wait: Callable[[], bool]) -> None:
    for now, before in _looks(look, wait):
        seen = to_json(now, before) if isinstance(now, Snapshot) else {"queues": None, "locks": None}
        error = None if isinstance(now, Snapshot) else redact(str(now))
        print(json_text({**seen, "error": error}, separators=(",", ":")), flush=True)


def _show_live(look: Callable[[], Snapshot], wait: Callable[[], bool]) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    plain = console.is_dumb_terminal  # it cannot go back, so that one look comes below the other
    with contextlib.nullcontext() if plain else Live(console=console, auto_refresh=False, screen=True) as live:
        for now, before in _looks(look, wait):
            height = sys.maxsize if plain else console.height
            shown = _screen(now, before, height) if isinstance(now, Snapshot) else Text(printable(redact(str(now))))
            if live is None:
                console.print(shown)
            else:
                live.update(shown, refresh=True)


def _screen(now: Snapshot, before: Snapshot | None, height: int = sys.maxsize) -> Group:
    """Both tables, of as many rows as `height` lines have room for, where none of them is folded."""
    from rich.console import Group
    from rich.text import Text

    queues = None if now.depths is None else [*map(_queue_row, queue_lines(now, before))]
    locks = None if now.holders is None else [*map(_lock_row, lock_lines(now))]
    tables = [each for each in (queues, locks) if each is not None]
    rooms = share(height - _BESIDE * len(tables), len(queues or ()), len(locks or ()))
    shown: list[Table | Text] = []
    for columns, right, rows, room in ((_QUEUES, _QUEUES[1:], queues, rooms[0]), (_LOCKS, _LOCKS_RIGHT, locks, rooms[1])):
        if rows is not None:
            shown.append(make_table(columns, rows[:room], right=right))
            shown += [Text(f" and {len(rows) - room} more")] if len(rows) > room else []
    return Group(*shown)


def share(room: int, queues: int, locks: int) -> tuple[int, int]:
    """How many rows of each are shown: half of the room each, and what one does not need is the other's.

    >>> share(20, 100, 3), share(20, 3, 100), share(20, 100, 100), share(-5, 1, 1)
    ((17, 3), (3, 17), (10, 10), (0, 0))
    """
    room = max(0, room)
    of_locks = min(locks, max(room - queues, room // 2))
    return min(queues, room - of_locks), of_locks


def _queue_row(line: QueueLine) -> tuple[object, ...]:
    counts = ["unknown" if each is None else each for each in (line.ready, line.in_flight, line.delayed, line.dead)]
    rates = ["" if each is None else f"{each:+.1f}" for each in (line.backlog_per_s, line.dead_per_s)]
    return line.name, *counts, age_text(line), *rates


def _lock_row(line: LockLine) -> tuple[object, ...]:
    expires = "" if line.expires_in is None else f"{max(0.0, line.expires_in):.1f} s"
    return line.name, line.holders, line.waiters, ", ".join(line.held_by), expires
