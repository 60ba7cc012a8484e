"""`narrowboat top`: queues and locks as they stand, again and again."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from narrowboat import registry
from narrowboat.capabilities import Support
from narrowboat.cli.command import Command
from narrowboat.cli.drain import Drain
from narrowboat.cli.exits import Exit
from narrowboat.cli.options import BROKER_URL, LOCKS_URL, Seconds, as_json, broker_url
from narrowboat.cli.output import make_table, print_json, printable, redact
from narrowboat.cli.portable import json_text
from narrowboat.cli.reach import is_missing, open_broker, open_locks
from narrowboat.cli.snapshot import LockLine, QueueLine, Snapshot, age_text, lock_lines, queue_lines, take, to_json
from narrowboat.cli.source import no_such, source_of
from narrowboat.contract.messages import Address, Kind
from narrowboat.dsn import Url
from narrowboat.errors import NarrowboatError
from narrowboat.locking import Locks
from narrowboat.messaging import Messaging

if TYPE_CHECKING:
    from rich.console import Group

_QUEUES = ("queue", "ready", "in flight", "delayed", "dead", "oldest", "backlog/s", "dead/s")
_LOCKS = ("lock", "holders", "waiting", "held by", "expires in")


@click.command("top", cls=Command)
@broker_url
@click.option("--queue", "queues", multiple=True, metavar="NAME", help="Only this queue; may be repeated.")
@click.option(
    "--subscription", "subscriptions", multiple=True, metavar="TOPIC.GROUP", help="Only this subscription; may be repeated."
)
@click.option("--half", type=click.Choice(["locks", "messages"]), help="Only this half.  [default: both, where URL has them]")
@click.option("--interval", type=Seconds(0.1), default=2.0, show_default=True, help="Seconds between two looks.")
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
    Exit code 1 when there is no such queue, as far as the backend can tell that from an empty one.
    """
    if not (once or as_json or sys.stdout.isatty()):
        raise click.UsageError("without a terminal say --once, --json or both")
    asked = [*(Address(Kind.QUEUE, name) for name in queues), *map(subscription_of, subscriptions)]
    ended = threading.Event()
    with opened(url, half) as (broker, locks), Drain(ended.set):
        if broker is not None and asked:
            asked = found(url, broker, asked)
        elif broker is not None:
            broker.sources()  # refused before anything is shown, where they cannot be told

        def look() -> Snapshot:
            sources = [] if broker is None else asked or broker.sources()
            return take(time.monotonic(), broker, locks, sources)

        if once:
            _show_once(look(), as_json)
        elif as_json:
            _show_lines(look, lambda: ended.wait(interval))
        else:
            _show_live(look, lambda: ended.wait(interval))
    return Exit.OK


@contextlib.contextmanager
def opened(url: str | None, half: str | None) -> Iterator[tuple[Messaging | None, Locks | None]]:
    """The halves that the URL's scheme has, or that the environment names, and that are wanted."""
    wanted = {"messages": (BROKER_URL, registry.BROKERS), "locks": (LOCKS_URL, registry.LOCKS)}
    there = {
        name
        for name, (variable, group) in wanted.items()
        if half in (None, name)
        and (os.environ.get(variable) if url is None else Url.parse(url).scheme in registry.schemes(group))
    }
    if not there:
        raise click.UsageError(f"- takes the URLs from {BROKER_URL} and {LOCKS_URL}" if url is None else f"no {half} there")
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(open_broker(url)) if "messages" in there else None
        yield broker, stack.enter_context(open_locks(url)) if "locks" in there else None


def subscription_of(name: str) -> Address:
    """The address of TOPIC.GROUP.

    >>> subscription_of("prices.eu.dashboard").group
    'dashboard'
    """
    topic, _, group = name.rpartition(".")
    if not topic or not group:
        raise click.UsageError(f"--subscription {name!r}: expected TOPIC.GROUP, such as prices.dashboard")
    return Address(Kind.SUBSCRIPTION, topic, group)


def found(url: str | None, broker: Messaging, asked: Sequence[Address]) -> list[Address]:
    """What is asked for as the backend lists it, where it does: a path alone does not say whether it is a subscription's."""
    listed = {} if broker.capabilities.listing is Support.ABSENT else {each.path: each for each in broker.sources()}
    addresses = [listed.get(each.path, each) for each in asked]
    for _, name, group in addresses:
        which = name, group or None
        counts = dataclasses.astuple(source_of(broker, *which).depth())
        if not any(counts) and is_missing(url, broker, *which):
            raise click.ClickException(no_such(broker, *which))
    return addresses


def _show_once(now: Snapshot, as_json: bool) -> None:
    if as_json:
        print_json(to_json(now, None))
        return
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 10_000, highlight=False).print(_screen(now, None))


def _show_lines(look: Callable[[], Snapshot], wait: Callable[[], bool]) -> None:
    before = None
    while True:
        now = look()
        print(json_text(to_json(now, before), separators=(",", ":")), flush=True)
        before = now
        if wait():
            return


def _show_live(look: Callable[[], Snapshot], wait: Callable[[], bool]) -> None:
    from rich.live import Live
    from rich.text import Text

    before = now = None
    with Live(auto_refresh=False, screen=True) as live:
        while True:
            try:
                before, now = now, look()
                live.update(_screen(now, before), refresh=True)
            except NarrowboatError as error:  # it may pass, and who watches sees that it does
                if not error.retryable:
                    raise
                live.update(Text(printable(redact(str(error)))), refresh=True)
            if wait():
                return


def _screen(now: Snapshot, before: Snapshot | None) -> Group:
    from rich.console import Group

    tables = []
    if now.depths is not None:
        tables.append(make_table(_QUEUES, map(_queue_row, queue_lines(now, before)), right=_QUEUES[1:]))
    if now.holders is not None:
        tables.append(make_table(_LOCKS, map(_lock_row, lock_lines(now)), right=("holders", "waiting", "expires in")))
    return Group(*tables)


def _queue_row(line: QueueLine) -> tuple[object, ...]:
    counts = ["unknown" if each is None else each for each in (line.ready, line.in_flight, line.delayed, line.dead)]
    rates = ["" if each is None else f"{each:+.1f}" for each in (line.backlog_per_s, line.dead_per_s)]
    return line.name, *counts, age_text(line), *rates


def _lock_row(line: LockLine) -> tuple[object, ...]:
    expires = "" if line.expires_in is None else f"{max(0.0, line.expires_in):.1f} s"
    return line.name, line.holders, line.waiters, ", ".join(line.held_by), expires
