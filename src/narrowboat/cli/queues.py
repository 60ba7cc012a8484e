"""`narrowboat queues`, `narrowboat purge` and `narrowboat delete`: which queues there are, and emptying or removing one."""

from __future__ import annotations

import sys

import click

from narrowboat.cli.command import Command
from narrowboat.cli.exits import Exit
from narrowboat.cli.options import as_json, broker_url, group_option, yes_option
from narrowboat.cli.output import complain, print_json, print_table
from narrowboat.cli.reach import check_there, open_broker
from narrowboat.cli.source import no_such, source_of
from narrowboat.contract.messages import Kind


@click.command("queues", cls=Command)
@broker_url
@as_json
def queues(url: str | None, as_json: bool) -> None:
    """List the queues, topics and subscriptions behind URL, without dead letters.

    Exit code 2 where the backend cannot tell them.
    """
    with open_broker(url) as broker:
        found = broker.sources()
    if as_json:
        print_json([{"kind": each.kind.value, "name": each.name, "group": each.group or None} for each in found])
    elif found:
        print_table(("kind", "name", "group"), [(each.kind.value, each.name, each.group) for each in found])
    else:
        click.echo("there is no queue and no topic")


@click.command("purge", cls=Command)
@broker_url
@click.argument("queue")
@group_option
@yes_option
@as_json
def purge(url: str | None, queue: str, group: str | None, yes: bool, as_json: bool) -> int:
    """Drop the messages of QUEUE that are ready or delayed, for good. Those in flight stay, and so do its dead letters.

    It asks first; without a terminal it wants --yes. Exit code 1 when there is no such queue.
    """
    with open_broker(url) as broker:
        check_there(url, broker, queue, group)
        source = source_of(broker, queue, group)
        if not agreed(f"drop all messages of {source.name!r} that are ready or delayed", yes):
            return Exit.FAILED
        dropped = source.purge()
    print_json({"purged": dropped}) if as_json else click.echo(f"purged: {dropped}")
    return Exit.OK


@click.command("delete", cls=Command)
@broker_url
@click.argument("queue")
@group_option
@click.option("--topic", is_flag=True, help="QUEUE is a topic; delete it with all its subscriptions.")
@click.option("--dead", is_flag=True, help="Delete its dead letters, and leave it.")
@yes_option
@as_json
def delete(url: str | None, queue: str, group: str | None, topic: bool, dead: bool, yes: bool, as_json: bool) -> int:
    """Delete QUEUE with all its messages, for good. Its dead letters stay, and go with --dead.

    It asks first; without a terminal it wants --yes. Exit code 1 when there is no such queue.
    """
    if topic and (dead or group is not None):
        raise click.UsageError("--topic deletes a topic with all its groups: leave out --group and --dead")
    with open_broker(url) as broker:
        source = broker.topic(queue) if topic else source_of(broker, queue, group)
        what = f"the topic {queue!r} with all its subscriptions and messages" if topic else f"{source.name!r} with its messages"
        if not agreed(f"delete {f'the dead letters of {source.name!r}' if dead else what}", yes):
            return Exit.FAILED
        done = source_of(broker, queue, group).dead_letters().delete() if dead else source.delete()
        if not done:
            kind = Kind.TOPIC if topic else Kind.QUEUE
            complain(f"there are no dead letters of {source.name!r}" if dead else no_such(broker, queue, group, kind))
    if as_json:
        print_json({"deleted": done})
    elif done:
        click.echo(f"deleted {f'the dead letters of {source.name!r}' if dead else what}")
    return Exit.OK if done else Exit.FAILED


def agreed(what: str, yes: bool) -> bool:
    """Whether that may be done: said with --yes, or asked and answered at the terminal."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would {what}, for good: say --yes")
    try:
        if click.confirm(f"This will {what}, for good. Go on?", err=True):
            return True
    except click.Abort as abort:
        if not isinstance(abort.__context__, EOFError):  # Ctrl-C; click makes one of both
            raise
        click.echo(err=True)  # Ctrl-D leaves the cursor behind the question
    complain("nothing was done")
    return False
