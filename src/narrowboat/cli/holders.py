"""`narrowboat holders` and `narrowboat evict`: who holds a lock, and breaking one holder's lease."""

from __future__ import annotations

import dataclasses
import datetime

import click

from narrowboat.cli.command import Command
from narrowboat.cli.exits import Exit
from narrowboat.cli.options import as_json, locks_url
from narrowboat.cli.output import complain, print_json, print_table
from narrowboat.cli.reach import open_locks
from narrowboat.contract.locks import Holder

_COLUMNS = ("name", "token", "mode", "label", "since", "expires in", "waiting")


@click.command("holders", cls=Command)
@locks_url
@click.argument("name", required=False)
@as_json
def holders(url: str | None, name: str | None, as_json: bool) -> None:
    """Show who holds NAME, or every lock that is held.

    The mode "foreign" says that another program wrote the record, or damaged it. The lock is not granted until it is evicted.
    """
    with open_locks(url) as locks:
        found = locks.holders(name)
    if as_json:
        print_json([to_json(holder) for holder in found])
    elif found:
        print_table(_COLUMNS, [_row(holder) for holder in found], right=("token", "expires in", "waiting"))
    else:
        click.echo(f"nobody holds {name!r}" if name else "nothing is held")


@click.command("evict", cls=Command)
@locks_url
@click.argument("name")
@click.option("--token", type=int, required=True, help="The holder's fencing token, as `narrowboat holders` shows it.")
@as_json
def evict(url: str | None, name: str, token: int, as_json: bool) -> int:
    """Break the lease of the holder of NAME that has this token, and let the next waiter in.

    Only that very holder is evicted: one that came after it has another token. Exit code 1 when it is not there.
    """
    with open_locks(url) as locks:
        done = locks.evict(name, token)
    if as_json:
        print_json({"evicted": done})
    elif done:
        click.echo(f"evicted token {token} from {name!r}")
    else:
        complain(f"nobody holds {name!r} with token {token}")
    return Exit.OK if done else Exit.FAILED


def to_json(holder: Holder) -> dict[str, object]:
    """A holder for programs."""
    return {**dataclasses.asdict(holder), "mode": holder.mode.value}


def _row(holder: Holder) -> tuple[object, ...]:
    mode = "foreign" if holder.foreign else f"{holder.mode.value} of {holder.limit}" if holder.limit else holder.mode.value
    expires = "" if holder.expires_in is None else f"{max(0.0, holder.expires_in):.1f} s"
    return holder.name, holder.token, mode, holder.label, _since(holder), expires, holder.waiters


def _since(holder: Holder) -> str:
    if holder.foreign and not holder.acquired_at:
        return ""
    try:
        return datetime.datetime.fromtimestamp(holder.acquired_at).astimezone().isoformat(" ", "seconds")
    except (OverflowError, ValueError, OSError):  # what another program wrote need not be a time
        return ""
