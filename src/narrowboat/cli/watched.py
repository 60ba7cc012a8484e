"""What `top` and `web` watch: the halves behind a URL, and the queues and subscriptions that were asked for, or all."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import click

from narrowboat import registry
from narrowboat.capabilities import Support
from narrowboat.cli.options import BROKER_URL, LOCKS_URL, Seconds
from narrowboat.cli.reach import check_there, open_broker, open_locks
from narrowboat.cli.snapshot import Snapshot, take
from narrowboat.cli.source import source_of
from narrowboat.contract.messages import Address, Kind
from narrowboat.dsn import Url
from narrowboat.locking import Locks
from narrowboat.messaging import Messaging

Command = TypeVar("Command", bound=Callable[..., object])


class Watched:
    """The faces of the halves that are there, and the sources that the last look found."""

    def __init__(self, url: str | None, broker: Messaging | None, locks: Locks | None, asked: Sequence[Address]) -> None:
        self.broker, self.locks = broker, locks
        self._url, self._asked = url, asked
        self.sources: Mapping[str, Address] = {}  #: by path, without topics

    def find(self) -> None:
        """Find the sources: those that were asked for once, all of them anew each time.

        Raises:
            click.ClickException: one that was asked for is not there.
            Unsupported: none was asked for, and the backend does not list what there is.
        """
        if self.broker is None or (self._asked and self.sources):
            return
        found = _found(self._url, self.broker, self._asked) if self._asked else self.broker.sources()
        self.sources = {each.path: each for each in found if each.kind is not Kind.TOPIC}

    def look(self) -> Snapshot:
        """The depth of each source, and all locks."""
        self.find()
        return take(time.monotonic(), self.broker, self.locks, self.sources.values())


@contextlib.contextmanager
def watching(url: str | None, half: str | None, queues: Sequence[str], subscriptions: Sequence[str]) -> Iterator[Watched]:
    """The halves that the URL's scheme has, or that the environment names, and that are wanted."""
    asked = [*(Address(Kind.QUEUE, name) for name in queues), *map(subscription_of, subscriptions)]
    wanted = {"messages": (BROKER_URL, registry.BROKERS), "locks": (LOCKS_URL, registry.LOCKS)}
    there = {
        name
        for name, (variable, group) in wanted.items()
        if half in (None, name)
        and (os.environ.get(variable) if url is None else Url.parse(url).scheme in registry.schemes(group))
    }
    if not there:
        raise click.UsageError(f"- takes the URLs from {BROKER_URL} and {LOCKS_URL}" if url is None else f"no {half} there")
    if asked and "messages" not in there:
        raise click.UsageError("--queue and --subscription name what has messages, and only locks are watched")
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(open_broker(url)) if "messages" in there else None
        locks = stack.enter_context(open_locks(url)) if "locks" in there else None
        yield Watched(url, broker, locks, asked)


def watched_options(command: Command) -> Command:
    """Which sources and halves, and how often."""
    for option in reversed(
        (
            click.option("--queue", "queues", multiple=True, metavar="NAME", help="Only this queue; may be repeated."),
            click.option(
                "--subscription",
                "subscriptions",
                multiple=True,
                metavar="TOPIC.GROUP",
                help="Only this subscription; may be repeated.",
            ),
            click.option(
                "--half", type=click.Choice(["locks", "messages"]), help="Only this half.  [default: both, where URL has them]"
            ),
            click.option("--interval", type=Seconds(0.1), default=2.0, show_default=True, help="Seconds between two looks."),
        )
    ):
        command = option(command)
    return command


def subscription_of(name: str) -> Address:
    """The address of TOPIC.GROUP.

    >>> subscription_of("prices.eu.dashboard").group
    'dashboard'
    """
    topic, _, group = name.rpartition(".")
    if not topic or not group:
        raise click.UsageError(f"--subscription {name!r}: expected TOPIC.GROUP, such as prices.dashboard")
    return Address(Kind.SUBSCRIPTION, topic, group)


def _found(url: str | None, broker: Messaging, asked: Sequence[Address]) -> list[Address]:
    """What is asked for as the backend lists it, where it does: a path alone does not say whether it is a subscription's."""
    listed = {} if broker.capabilities.listing is Support.ABSENT else {each.path: each for each in broker.sources()}
    addresses = [listed.get(each.path, each) for each in asked]
    for _, name, group in addresses:
        which = name, group or None
        counts = dataclasses.astuple(source_of(broker, *which).depth())
        if not any(counts):
            check_there(url, broker, *which)
    return addresses
