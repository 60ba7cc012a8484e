"""`narrowboat depth` and `narrowboat dead`: how many messages there are, and those that could not be handled."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import click

from narrowboat._messages.checks import RESERVED_PREFIX
from narrowboat.cli.command import Command
from narrowboat.cli.exits import Exit
from narrowboat.cli.options import as_json, broker_url, group_option
from narrowboat.cli.output import complain, print_json, print_table
from narrowboat.cli.reach import is_missing, open_broker
from narrowboat.cli.records import to_json
from narrowboat.cli.source import source_of
from narrowboat.messaging import DeadLetters, Message

#: Seconds without a further dead letter after which the list is complete. Less, and a slow server shows half of it.
_IDLE = 1.0


@click.command("depth", cls=Command)
@broker_url
@click.argument("queue")
@group_option
@as_json
def depth(url: str | None, queue: str, group: str | None, as_json: bool) -> int:
    """Show how many messages QUEUE has: ready, in flight, delayed, dead.

    Exit code 1 when there is no such queue, as far as the backend can tell that from an empty one.
    """
    with open_broker(url) as broker:
        found = source_of(broker, queue, group).depth()
    if not any(dataclasses.astuple(found)) and is_missing(url, lambda broker: source_of(broker, queue, group)):
        complain(f"there is no queue {queue!r}" if group is None else f"there is no subscription {group!r} of {queue!r}")
        return Exit.FAILED
    counts = dataclasses.asdict(found)
    if as_json:
        print_json(counts)
    else:
        shown = ["unknown" if count is None else count for count in counts.values()]
        print_table(("ready", "in flight", "delayed", "dead"), [shown], right=("ready", "in flight", "delayed", "dead"))
    return Exit.OK


@click.command("dead", cls=Command)
@broker_url
@click.argument("queue")
@group_option
@click.option("--redrive", is_flag=True, help="Send them back to where they came from, instead of showing them.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="At most N.  [default: 50 shown, all redriven]")
@as_json
def dead(url: str | None, queue: str, group: str | None, redrive: bool, count: int | None, as_json: bool) -> None:
    """Show the dead letters of QUEUE: why, after how many attempts, from where. Or redrive them.

    Showing them takes none away, but they are in our hands for that moment, and no other reader of the dead letters gets
    them then.
    """
    with open_broker(url) as broker:
        letters = source_of(broker, queue, group).dead_letters()
        if redrive:
            sent = letters.redrive() if count is None else letters.redrive(count)
            print_json({"redriven": sent}) if as_json else click.echo(f"redriven: {sent}")
            return
        found = _peek(letters, count or 50)
    if as_json:
        print_json([describe(message) for message in found])
    elif found:
        columns = ("id", "reason", "attempts", "origin", "key", "bytes", "body")
        print_table(columns, [_row(message) for message in found], right=("attempts", "bytes"))
    else:
        click.echo(f"no dead letters of {queue!r}")


def _peek(letters: DeadLetters[bytes], count: int) -> list[Message[bytes]]:
    """Up to `count` letters. Leaving the block settles none of them, so all go back."""
    ready = letters.depth().ready  # where the backend knows it, there is no wait for a letter that does not come
    count = count if ready is None else min(count, ready)
    if count == 0:
        return []
    with letters.consume(prefetch=count, idle=_IDLE) as messages:
        return list(itertools.islice(messages, count))


def describe(message: Message[bytes]) -> dict[str, Any]:
    """A dead letter for programs: as published, and why it is here."""
    fields = to_json(message)
    del fields["attempt"]  # it counts the looks at the dead letter, not the deliveries of the message
    headers = {name: value for name, value in message.headers.items() if not name.startswith(RESERVED_PREFIX)}
    fields.pop("headers", None)
    dead = dataclasses.asdict(message.dead) if message.dead else {"reason": None, "attempts": None, "origin": None}
    return {**fields, **({"headers": headers} if headers else {}), **dead}


def _row(message: Message[bytes]) -> tuple[object, ...]:
    fields = describe(message)
    body = fields.get("body", fields.get("body_base64", ""))
    shown = body if len(body) <= 60 else f"{body[:57]}..."
    return fields["id"], fields["reason"], fields["attempts"], fields["origin"], fields.get("key"), len(message.body), shown
