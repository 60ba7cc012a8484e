"""A queue, or a group's subscription of a topic: what `consume`, `depth` and `dead` read from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from narrowboat.cli.options import Seconds
from narrowboat.errors import Conflict
from narrowboat.messaging import Messages, Messaging, Queue, Subscription

Command = TypeVar("Command", bound=Callable[..., object])


def source_of(broker: Messaging, name: str, group: str | None, **properties: Any) -> Queue[bytes] | Subscription[bytes]:
    """The queue `name`; with a group, that group's subscription of the topic `name`. Properties of None are left out."""
    given = {key: value for key, value in properties.items() if value is not None}
    return broker.queue(name, **given) if group is None else broker.topic(name).subscription(group, **given)


def consume_from(
    broker: Messaging,
    name: str,
    group: str | None,
    properties: Mapping[str, float | bool | None],
    *,
    prefetch: int,
    idle: float | None,
) -> Messages[bytes]:
    """Start consuming. What it was made with counts, where nothing else is asked for: a person at a terminal should not
    have to repeat it. What is asked for and differs is still refused.
    """
    given = {key: value for key, value in properties.items() if value is not None}
    try:
        return source_of(broker, name, group, **given).consume(prefetch=prefetch, idle=idle)
    except Conflict as conflict:
        if conflict.stored is None:
            raise
        return source_of(broker, name, group, **{**conflict.stored, **given}).consume(prefetch=prefetch, idle=idle)


def properties_options(command: Command) -> Command:
    """The properties of a source. They are stored with it when it is made; a later consumer that asks for others is refused."""
    for option in reversed(
        (
            click.option("--lease", type=Seconds(), help="Seconds until an unacknowledged message comes again.  [default: 30]"),
            click.option("--max-deliveries", type=click.IntRange(min=0), metavar="N", help="Then a dead letter.  [default: 5]"),
            click.option("--ordered", is_flag=True, default=None, help="One message of a key at a time, in order."),
            click.option("--priorities", type=click.IntRange(min=0), metavar="N", help="Levels of priority.  [default: 0]"),
        )
    ):
        command = option(command)
    return command
