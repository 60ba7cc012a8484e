"""`narrowboat depth`: how many messages a queue or subscription has, and for how long the oldest has waited."""

from __future__ import annotations

import dataclasses

import click

from narrowboat.cli.command import Command
from narrowboat.cli.exits import Exit
from narrowboat.cli.options import as_json, broker_url, group_option
from narrowboat.cli.output import print_json, print_table
from narrowboat.cli.reach import check_there, open_broker
from narrowboat.cli.snapshot import age_text
from narrowboat.cli.source import source_of

_COLUMNS = ("ready", "in flight", "delayed", "dead", "oldest")


@click.command("depth", cls=Command)
@broker_url
@click.argument("queue")
@group_option
@as_json
def depth(url: str | None, queue: str, group: str | None, as_json: bool) -> int:
    """Show how many messages QUEUE has: ready, in flight, delayed, dead. And for how long the oldest ready one has waited.

    Exit code 1 when there is no such queue, as far as the backend can tell that from an empty one.
    """
    with open_broker(url) as broker:
        source = source_of(broker, queue, group)
        found = source.depth()
        told = dataclasses.asdict(found)
        if not any(told.values()):
            check_there(url, broker, queue, group)
    if as_json:
        print_json(told)
    else:
        *counts, _ = told.values()
        row = ["unknown" if count is None else count for count in counts]
        print_table(_COLUMNS, [[*row, age_text(found)]], right=_COLUMNS)
    return Exit.OK
