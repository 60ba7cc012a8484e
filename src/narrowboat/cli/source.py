"""A queue, or a group's subscription of a topic: what most commands about messages are about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

import click

from narrowboat.capabilities import Support
from narrowboat.cli.options import Seconds
from narrowboat.contract.messages import Kind
from narrowboat.driver.sources import FIXED
from narrowboat.errors import Conflict
from narrowboat.messaging import Messages, Messaging, Queue, Subscription

Command = TypeVar("Command", bound=Callable[..., object])
T = TypeVar("T")


def source_of(broker: Messaging, name: str, group: str | None, **properties: Any) -> Queue[bytes] | Subscription[bytes]:
    """The queue `name`; with a group, that group's subscription of the topic `name`. Properties of None are left out."""
    given = {key: value for key, value in properties.items() if value is not None}
    return broker.queue(name, **given) if group is None else broker.topic(name).subscription(group, **given)


def no_such(broker: Messaging, name: str, group: str | None, kind: Kind = Kind.QUEUE) -> str:
    """The sentence for what is not there, with the nearest name where the backend lists what there is.

    `kind`: a queue or a topic, where there is no group.
    """
    text = f"there is no {kind.value} {name!r}" if group is None else f"there is no subscription {group!r} of {name!r}"
    if broker.capabilities.listing is Support.ABSENT:
        return text
    there = broker.sources()
    if group is None:
        known = [each.name for each in there if each.kind is kind]
        near = get_close_matches(name, known, 1)
    else:
        known = [f"{each.name} --group {each.group}" for each in there if each.kind is Kind.SUBSCRIPTION]
        near = get_close_matches(f"{name} --group {group}", known, 1)
    return f"{text}. Did you mean {near[0]!r}?" if near else f"{text} (see: narrowboat queues)"


def consume_from(
    broker: Messaging,
    name: str,
    group: str | None,
    properties: Mapping[str, float | bool | None],
    *,
    prefetch: int,
    idle: float | None,
) -> Messages[bytes]:
    """Start consuming, as `as_stored` has it."""
    return as_stored(broker, name, group, properties, lambda source: source.consume(prefetch=prefetch, idle=idle))


def as_stored(
    broker: Messaging,
    name: str,
    group: str | None,
    properties: Mapping[str, float | bool | None],
    act: Callable[[Queue[bytes] | Subscription[bytes]], T],
) -> T:
    """`act` on the source. What it was made with counts, where nothing else is asked for: a person at a terminal should not
    have to repeat it. What is asked for and differs is still refused.
    """
    given = {key: value for key, value in properties.items() if value is not None}
    try:
        return act(source_of(broker, name, group, **given))
    except Conflict as conflict:
        if conflict.stored is None:
            raise
        # Where each consumer has its own lease and limit, they are not to be asked for: it follows what is stored.
        names = conflict.stored if broker.capabilities.alter is Support.ABSENT else FIXED
        known = {each: conflict.stored[each] for each in names if each in conflict.stored}
        return act(source_of(broker, name, group, **{**known, **given}))


def properties_options(command: Command) -> Command:
    """The properties of a source, which are stored with it when it is made. Its order and priorities never change."""
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
