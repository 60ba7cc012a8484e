"""The audit: what the journals and the stock record say about a sale. Pure functions; they trust nobody's counters.

It asks whether more was sold than there was, whether an order got lost, whether two workers ever believed at the same
time that they hold one item, and whether the journals and the record tell the same story.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from narrowboat.demo.journal import Entry, Event
from narrowboat.demo.plan import Order


class Belief(NamedTuple):
    """One worker believed from `start` to `end` that it holds `item`."""

    item: int
    worker: int
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A worker that was killed or stopped in the middle of an order. `after`: seconds until another settled the order."""

    worker: int
    order: str
    item: int
    after: float | None


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was found. `clean` is the verdict."""

    items: int
    stock: int
    published: int
    sold: int
    sold_out: int
    dead: int
    lost: int  #: orders that were published and never settled
    twice: int  #: orders that ended in two ways
    oversold: int  #: more sales than there was stock, summed over the items
    overlaps: int  #: pairs of workers that believed to hold one item at the same time
    disagreements: int  #: items and orders of which journals and stock record tell different stories
    refused: int  #: writes that the stock record refused, for their token was stale
    again: int  #: orders that came again and were recognised as sold
    waits: Mapping[str, float]  #: p50, p95, p99, max of the time that locks were waited for, in seconds
    seconds: float
    killed: Fault | None
    stopped: Fault | None
    troubles: tuple[str, ...]  #: faults that did not take place or were not recovered from, workers that ended on their own

    @property
    def clean(self) -> bool:
        """Nothing is wrong."""
        wrong = (self.lost, self.twice, self.oversold, self.overlaps, self.disagreements)
        return not any(wrong) and not self.troubles

    @property
    def per_second(self) -> float:
        """Orders settled a second."""
        return (self.published - self.lost) / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        fields = {name: value for name, value in vars(self).items() if name not in ("killed", "stopped")}
        faults = {name: vars(fault) if fault else None for name, fault in (("killed", self.killed), ("stopped", self.stopped))}
        rate = round(self.per_second, 1)
        return {"clean": self.clean, **fields, **faults, "waits": dict(self.waits), "orders_per_second": rate}


def audit(
    *,
    orders: Sequence[Order],
    entries: Iterable[Entry],
    items: int,
    stock: int,
    left: Mapping[int, int],
    sales: Mapping[str, int],
    seconds: float,
    faults: Mapping[str, Entry | None] | None = None,
    troubles: Sequence[str] = (),
) -> Audit:
    """Audit one sale.

    `entries`: all journals. `left`, `sales`: the stock record at the end. `faults`: of each fault that was asked for
    ("kill", "stop") the HOLD entry in whose middle it met a worker; None when it met nobody. `troubles`: what else went
    wrong while the sale ran.
    """
    entries = list(entries)
    ends = endings(entries)
    sold = {order for order, ways in ends.items() if Event.SOLD in ways}
    out = {order for order, ways in ends.items() if Event.SOLD_OUT in ways}
    dead = {order for order, ways in ends.items() if Event.DEAD in ways}
    published = {order.id for order in orders}
    story = {what: recovered(entries, hold) for what, hold in (faults or {}).items()}
    return Audit(
        items=items,
        stock=stock,
        published=len(published),
        sold=len(sold),
        sold_out=len(out),
        dead=len(dead),
        lost=len(published - set(ends)),
        twice=sum(len(ways) > 1 for ways in ends.values()),
        oversold=oversold(sales, stock),
        overlaps=overlaps(beliefs(entries)),
        disagreements=disagreements(orders, sold, out, left=left, sales=sales, stock=stock, items=items),
        refused=sum(entry.event is Event.STALE for entry in entries),
        again=sum(entry.event is Event.ALREADY for entry in entries),
        waits=percentiles([entry.waited for entry in entries if entry.event is Event.HOLD]),
        seconds=seconds,
        killed=story.get("kill"),
        stopped=story.get("stop"),
        troubles=(*troubles, *_missed(story)),
    )


def endings(entries: Iterable[Entry]) -> dict[str, set[Event]]:
    """Order to the ways in which it ended. Having been sold already is having been sold."""
    ends: dict[str, set[Event]] = defaultdict(set)
    for entry in entries:
        if entry.event in (Event.SOLD, Event.SOLD_OUT, Event.DEAD):
            ends[entry.order].add(entry.event)
        elif entry.event is Event.ALREADY:
            ends[entry.order].add(Event.SOLD)
    return dict(ends)


def oversold(sales: Mapping[str, int], stock: int) -> int:
    """How many more were sold than there were, item by item.

    >>> oversold({"a": 0, "b": 0, "c": 1}, 1)
    1
    """
    return sum(max(0, count - stock) for count in Counter(sales.values()).values())


def beliefs(entries: Iterable[Entry]) -> list[Belief]:
    """When which worker believed to hold which item.

    A belief ends with its FREE; with LOST at the end of the lease, as written down when it began, for the worker stood
    still in between; and at that same moment for a worker that wrote nothing any more, because it was killed.
    """
    found = []
    open_: dict[tuple[int, int], Entry] = {}
    for entry in entries:
        holder = (entry.worker, entry.item)
        if entry.event is Event.HOLD:
            open_[holder] = entry
        elif entry.event in (Event.FREE, Event.LOST) and (hold := open_.pop(holder, None)):
            end = entry.at if entry.event is Event.FREE else min(entry.at, hold.until)
            found.append(Belief(entry.item, entry.worker, hold.at, end))
    found += [Belief(hold.item, hold.worker, hold.at, hold.until) for hold in open_.values()]
    return found


def overlaps(beliefs: Iterable[Belief]) -> int:
    """How many pairs of beliefs about one item overlap.

    >>> overlaps([Belief(0, 1, 0.0, 2.0), Belief(0, 2, 1.0, 3.0), Belief(0, 3, 3.0, 4.0), Belief(1, 4, 0.0, 9.0)])
    1
    """
    count = 0
    running: dict[int, list[float]] = defaultdict(list)
    for belief in sorted(beliefs, key=lambda belief: belief.start):
        still = [end for end in running[belief.item] if end > belief.start]
        count += len(still)
        running[belief.item] = [*still, belief.end]
    return count


def disagreements(
    orders: Sequence[Order],
    sold: set[str],
    sold_out: set[str],
    *,
    left: Mapping[int, int],
    sales: Mapping[str, int],
    stock: int,
    items: int,
) -> int:
    """How many orders and items the journals and the record tell different stories of.

    An order must be sold in both or in neither; what is left of an item and what was sold of it must make up its stock;
    and an item that turned somebody away must have none left.
    """
    per_item = Counter(sales.values())
    turned_away = {order.item for order in orders if order.id in sold_out}
    wrong_items = sum(
        left.get(item, 0) + per_item[item] != stock or (item in turned_away and left.get(item, 0) != 0) for item in range(items)
    )
    return len(sold ^ set(sales)) + wrong_items


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The nearest-rank percentiles 50, 95 and 99, and the maximum; zeros where there is nothing.

    >>> percentiles([3.0, 1.0, 2.0, 4.0])
    {'p50': 2.0, 'p95': 4.0, 'p99': 4.0, 'max': 4.0}
    """
    ordered = sorted(values) or [0.0]
    ranks = {f"p{part}": ordered[max(0, math.ceil(len(ordered) * part / 100) - 1)] for part in (50, 95, 99)}
    return {**ranks, "max": ordered[-1]}


def recovered(entries: Iterable[Entry], fault: Entry | None) -> Fault | None:
    """What became of the order in whose middle a worker was killed or stopped."""
    if fault is None:
        return None
    settled = (Event.SOLD, Event.ALREADY, Event.SOLD_OUT, Event.DEAD)
    later = [entry.at - fault.at for entry in entries if entry.order == fault.order and entry.event in settled]
    return Fault(worker=fault.worker, order=fault.order, item=fault.item, after=min(later, default=None))


def _missed(story: Mapping[str, Fault | None]) -> list[str]:
    missed = [f"{what}: it did not take place" for what, fault in story.items() if fault is None]
    return missed + [
        f"{what}: the order {fault.order} was settled by nobody"
        for what, fault in story.items()
        if fault and fault.after is None
    ]
