"""`narrowboat demo`: the flash sale, with a progress bar while it runs and the audit at its end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

import click

from narrowboat.cli.command import Command
from narrowboat.cli.exits import Exit
from narrowboat.cli.options import BROKER_URL, LOCKS_URL, as_json, from_environment
from narrowboat.cli.output import print_json, print_table, printable, progress_bar
from narrowboat.cli.relay import interruptible
from narrowboat.demo.audit import Audit, Fault
from narrowboat.demo.plan import Plan


@click.command("demo", cls=Command)
@click.option("--locks", metavar="URL", help="Where the locks are.  [default: SQLite in a temporary folder]")
@click.option("--broker", metavar="URL", help="Where the orders are.  [default: SQLite in a temporary folder]")
@click.option("--buyers", type=click.IntRange(2, 1_000_000), default=400, show_default=True, help="Orders.")
@click.option("--items", type=click.IntRange(1, 100_000), default=8, show_default=True, help="Different items.")
@click.option("--stock", type=click.IntRange(0, 1_000_000), default=20, show_default=True, help="Pieces of each item.")
@click.option("--workers", type=click.IntRange(1, 64), default=4, show_default=True, help="Worker processes.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses who orders what, and which orders are poison.")
@click.option("--no-lock", is_flag=True, help="Sell without the lock. The audit must then fail, which shows that it can.")
@click.option("--no-kill", is_flag=True, help="Neither kill nor stop a worker.")
@as_json
def demo(
    locks: str | None,
    broker: str | None,
    buyers: int,
    items: int,
    stock: int,
    workers: int,
    seed: int,
    no_lock: bool,
    no_kill: bool,
    as_json: bool,
) -> int:
    """Hold a flash sale: many buyers, few items, several worker processes; and audit it. It needs no server.

    Every buyer's order is published to a queue. The workers take an order, lock the item, read the stock, think, write
    the stock and acknowledge. Orders that always fail go to the dead letters. Half way one worker is killed with SIGKILL
    while it holds a lock and an order, and another is stopped until its lease is over: when it goes on it still believes
    that it holds the lock, and the stock record refuses its write, for its fencing token is stale.

    Exit code 0 when the audit is clean, 1 when it is not. With --no-lock it must be 1.
    """
    from narrowboat.demo import sale  # the library and its backends are only loaded when there is work for them

    if workers == 1 and not no_kill:
        raise click.UsageError("--workers 1 leaves nobody to take over from the one that is killed: add --no-kill")
    locks, broker = from_environment(locks, LOCKS_URL), from_environment(broker, BROKER_URL)
    with interruptible(), tempfile.TemporaryDirectory(prefix="narrowboat-demo-") as folder:
        plan = sale.prepare(
            Plan(
                run=os.urandom(4).hex(),
                locks=locks or f"sqlite:///{folder}/locks.db",
                broker=broker or f"sqlite:///{folder}/orders.db",
                folder=folder,
                buyers=buyers,
                items=items,
                stock=stock,
                workers=workers,
                seed=seed,
                lock=not no_lock,
                faults=not no_kill,
            )
        )
        with progress_bar() as bar:
            task = bar.add_task("orders settled", total=buyers)
            show: Callable[[int], None] = lambda settled: bar.update(task, completed=settled)  # noqa: E731  # one line of glue
            found = sale.hold(plan, progress=show)
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
    return Exit.OK if found.clean else Exit.FAILED


def _print(found: Audit) -> None:
    print_table(("the flash sale", "number", "audit"), _rows(found), right=("number",))
    for trouble in found.troubles:
        click.echo(f"trouble: {printable(trouble)}")
    click.echo("clean" if found.clean else "NOT CLEAN")


def _rows(found: Audit) -> list[tuple[str, str, str]]:
    """What, how much, and whether that is right."""
    settled = found.published - found.lost
    pieces = found.items * found.stock
    waits = ", ".join(f"{name} {seconds * 1000:.1f}" for name, seconds in found.waits.items())
    rows = [
        ("orders published", str(found.published), ""),
        ("orders settled", str(settled), _verdict(found.lost == 0)),
        ("  sold", str(found.sold), f"of {pieces} pieces, {found.stock} of each of {found.items} items"),
        ("  sold out", str(found.sold_out), ""),
        ("  dead letters", str(found.dead), ""),
        ("lost", str(found.lost), _verdict(found.lost == 0)),
        ("settled in two ways", str(found.twice), _verdict(found.twice == 0)),
        ("oversold", str(found.oversold), _verdict(found.oversold == 0)),
        ("overlapping holders", str(found.overlaps), _verdict(found.overlaps == 0)),
        ("journals and stock record disagree", str(found.disagreements), _verdict(found.disagreements == 0)),
        ("stale writes refused", str(found.refused), ""),
        ("came again, recognised as sold", str(found.again), ""),
        ("orders a second", f"{found.per_second:.0f}", f"{found.seconds:.1f} s"),
        ("waiting for a lock, ms", "", waits),
    ]
    return rows + [
        (what, "1", _story(fault))
        for what, fault in (("workers killed with SIGKILL", found.killed), ("workers stopped past their lease", found.stopped))
        if fault is not None
    ]


def _verdict(right: bool) -> str:
    return "ok" if right else "WRONG"


def _story(fault: Fault) -> str:
    after = "settled by nobody" if fault.after is None else f"settled by another worker {fault.after:.1f} s later"
    return f"worker {fault.worker}, holding the lock of item {fault.item}; its order was {after}"
