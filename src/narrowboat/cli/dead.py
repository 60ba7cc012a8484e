"""`narrowboat dead`, `narrowboat redrive` and `narrowboat show`: the messages that could not be handled."""

from __future__ import annotations

import sys

import click

from narrowboat.cli.command import Command
from narrowboat.cli.exits import Exit
from narrowboat.cli.letters import describe, peek
from narrowboat.cli.options import as_json, broker_url, group_option
from narrowboat.cli.output import complain, print_json, print_table, printable, printable_lines
from narrowboat.cli.reach import check_there, open_broker
from narrowboat.cli.source import source_of
from narrowboat.messaging import Message

#: Dead letters that `show` looks through.
_MOST = 100_000


@click.command("dead", cls=Command)
@broker_url
@click.argument("queue")
@group_option
@click.option("--redrive", is_flag=True, help="Send them back to where they came from, instead of showing them.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="At most N.  [default: 50 shown, all redriven]")
@as_json
def dead(url: str | None, queue: str, group: str | None, redrive: bool, count: int | None, as_json: bool) -> int:
    """Show the dead letters of QUEUE: why, after how many attempts, from where. Or redrive them; see `redrive`.

    Showing them takes none away, but they are in our hands for that moment, and no other reader of the dead letters gets
    them then. Exit code 1 when there is no such queue.
    """
    with open_broker(url) as broker:
        letters = source_of(broker, queue, group).dead_letters()
        sent, found = (letters.redrive(count), []) if redrive else (0, peek(letters, count or 50))
        if not sent and not found:
            check_there(url, broker, queue, group)
    if redrive:
        _tell_redriven(sent, as_json)
    elif as_json:
        print_json([describe(message) for message in found])
    elif found:
        columns = ("id", "reason", "attempts", "origin", "key", "bytes", "body")
        print_table(columns, [_row(message) for message in found], right=("attempts", "bytes"))
    else:
        click.echo(f"no dead letters of {queue!r}")
    return Exit.OK


@click.command("redrive", cls=Command)
@broker_url
@click.argument("queue")
@group_option
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only the dead letter with this id; may be repeated.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="At most N, the oldest first.  [default: all]")
@as_json
def redrive(url: str | None, queue: str, group: str | None, ids: tuple[str, ...], count: int | None, as_json: bool) -> int:
    """Send dead letters of QUEUE back to where they came from, with the same id, body and headers.

    Exit code 1 when one of the ids is not among them; the others are sent back all the same. Also when there is no such queue.
    """
    with open_broker(url) as broker:
        sent = source_of(broker, queue, group).dead_letters().redrive(count, ids=ids or None)
        if not sent:
            check_there(url, broker, queue, group)
    _tell_redriven(sent, as_json)
    missing = min(len(set(ids)), count or len(ids)) - sent
    if missing > 0:
        complain(f"{missing} of the ids given are not among the dead letters of {queue!r} (see: narrowboat dead)")
    return Exit.FAILED if missing > 0 else Exit.OK


@click.command("show", cls=Command)
@broker_url
@click.argument("queue")
@click.argument("id")
@group_option
@as_json
def show(url: str | None, queue: str, id: str, group: str | None, as_json: bool) -> int:
    """Show one dead letter of QUEUE with its whole body, and why it is one. It stays where it is.

    Exit code 1 when there is none with that id. All dead letters are in our hands for that moment; see `dead`.
    """
    with open_broker(url) as broker:
        found = peek(source_of(broker, queue, group).dead_letters(), _MOST, id)
        if not found:
            check_there(url, broker, queue, group)
    if not found:
        complain(f"no dead letter of {queue!r} has the id {id!r} (see: narrowboat dead)")
        return Exit.FAILED
    fields = describe(found[-1])
    if as_json:
        print_json(fields)
        return Exit.OK
    body = fields.pop("body", None)
    for name, value in fields.items():
        text = ", ".join(f"{each}={said}" for each, said in value.items()) if isinstance(value, dict) else value
        click.echo(f"{name.replace('_', ' ')}: {printable(text)}")
    if body is not None:
        click.echo()
        click.echo(printable_lines(body) if sys.stdout.isatty() else body)
    return Exit.OK


def _tell_redriven(sent: int, as_json: bool) -> None:
    print_json({"redriven": sent}) if as_json else click.echo(f"redriven: {sent}")


def _row(message: Message[bytes]) -> tuple[object, ...]:
    fields = describe(message)
    body = fields.get("body", fields.get("body_base64", ""))
    shown = body if len(body) <= 60 else f"{body[:57]}..."
    return fields["id"], fields["reason"], fields["attempts"], fields["origin"], fields.get("key"), len(message.body), shown
