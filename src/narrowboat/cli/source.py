"""A queue, or a group's subscription of a topic: what `consume`, `depth` and `dead` read from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from narrowboat.cli.options import Seconds
from narrowboat.messaging import Messaging, Queue, Subscription

Command = TypeVar("Command", bound=Callable[..., object])


def source_of(broker: Messaging, name: str, group: str | None, **properties: Any) -> Queue[bytes] | Subscription[bytes]:
    """The queue `name`; with a group, that group's subscription of the topic `name`. Properties of None are left out."""
    given = {key: value for key, value in properties.items() if value is not None}
    return broker.queue(name, **given) if group is None else broker.topic(name).subscription(group, **given)


def properties_options(command: Command) -> Command:
    """The properties of a source. They are stored with it when it is made, and whoever disagrees later is refused."""
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
