"""One worker process of the sale: `python -m narrowboat.demo.worker NUMBER`, with the plan on its standard input.

It talks to the process that started it in lines. It writes `done ORDER` when it has settled an order and `edge ENTRY`
when it stands in the middle of one, holding the lock, because it was asked to. It reads `edge`: stand still before the
next sale; `edge now`: in any case with the next order; `go`: go on; and the end of its input: finish.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import narrowboat
from narrowboat.demo.journal import Entry, Event, Journal, to_line
from narrowboat.demo.plan import Order, Plan
from narrowboat.demo.stock import Sale, Stock
from narrowboat.errors import LeaseLost, LockTimeout, NarrowboatError, StaleDelivery
from narrowboat.locking import Held, Locks
from narrowboat.messaging import Message, Messages, Messaging, Queue

#: Seconds after which a failed order is tried again. Short, for a visitor waits for the dead letters.
_AGAIN = 0.1


class Instructions:
    """What the starting process wants of us, read by a thread of its own."""

    def __init__(self) -> None:
        self.edge = threading.Event()
        self.edge_now = threading.Event()
        self.go = threading.Event()

    def follow(self, messages: Messages[bytes]) -> None:
        """Read until the input ends; then let `messages` end."""
        for line in sys.stdin:
            {"edge": self.edge, "edge now": self.edge_now, "go": self.go}[line.strip()].set()
        self.go.set()
        messages.stop()


class Worker:
    """Sells until it is told to finish."""

    def __init__(self, plan: Plan, journal: Journal, stock: Stock, locks: Locks, instructions: Instructions) -> None:
        self._plan = plan
        self._journal = journal
        self._stock = stock
        self._locks = locks
        self._instructions = instructions
        self._held_since: Entry
        self._stood = False

    def handle(self, message: Message[bytes]) -> None:
        """One delivery, from the message to its acknowledgement."""
        order = Order.from_bytes(message.body)
        # An acknowledgement that comes too late is the normal end of a worker that stood still: another has the order.
        with contextlib.suppress(StaleDelivery):
            if order.poison:
                self._journal.write(Event.FAILED, order.id, order.item)
                message.nack(delay=_AGAIN)
            elif self._sell(order):
                message.ack()
                print("done", order.id, flush=True)
            else:
                message.nack(delay=_AGAIN)

    def _sell(self, order: Order) -> bool:
        """Whether the order is settled."""
        try:
            with self._holding(order) as held:
                event = self._read_think_write(order, held)
        except (LockTimeout, LeaseLost):
            return False
        return event is not Event.STALE

    @contextlib.contextmanager
    def _holding(self, order: Order) -> Iterator[Held | None]:
        """Hold the item's lock, and write down from when to when we believe that we do."""
        asked = self._journal.now()
        if not self._plan.lock:
            self._hold(order, until=asked + self._plan.ttl, waited=0.0)
            yield None
            self._journal.write(Event.FREE, order.id, order.item)
            return
        held = self._locks.lock(self._plan.lock_name(order.item), ttl=self._plan.ttl).acquire(timeout=self._plan.wait)
        now = self._journal.now()
        self._hold(order, until=now + held.expires_in, waited=now - asked)
        try:
            yield held
        finally:
            with contextlib.suppress(LeaseLost):
                self._let_go(order, held)

    def _let_go(self, order: Order, held: Held) -> None:
        try:
            held.check()
        except LeaseLost:
            self._journal.write(Event.LOST, order.id, order.item)
        else:
            self._journal.write(Event.FREE, order.id, order.item)
        held.release()

    def _hold(self, order: Order, *, until: float, waited: float) -> None:
        self._held_since = self._journal.write(Event.HOLD, order.id, order.item, until=until, waited=waited)

    def _read_think_write(self, order: Order, held: Held | None) -> Event:
        view = self._stock.look(order.item, order.id)
        time.sleep(self._plan.think)
        selling = view.left > 0 and not view.sold
        if not self._stood and (self._instructions.edge_now.is_set() or (selling and self._instructions.edge.is_set())):
            self._stand_still()
        if view.sold:
            event = Event.ALREADY
        elif not selling:
            event = Event.SOLD_OUT
        else:
            # Not asking whether the lock is still ours: even who asks may stand still right after. The token protects.
            token = held.token if held else None
            sale = self._stock.sell(order.item, order.id, left=view.left - 1, token=token)
            event = {Sale.SOLD: Event.SOLD, Sale.ALREADY: Event.ALREADY, Sale.STALE: Event.STALE}[sale]
        self._journal.write(event, order.id, order.item)
        return event

    def _stand_still(self) -> None:
        """Between reading and writing, holding the lock: to be killed here, or stopped and told to go on."""
        self._stood = True
        print("edge", to_line(self._held_since).decode(), end="", flush=True)
        self._instructions.go.wait()


def main() -> None:
    """Work until the input ends."""
    number = int(sys.argv[1])
    plan = Plan.from_line(sys.stdin.readline())
    folder = Path(plan.folder)
    instructions = Instructions()
    with (
        Journal(folder / f"worker-{number}.jsonl", number) as journal,
        narrowboat.locks(plan.locks) as locks,
        narrowboat.broker(plan.broker) as broker,
        orders_queue(broker, plan).consume(prefetch=2) as messages,
    ):
        worker = Worker(plan, journal, Stock(folder / "stock.db"), locks, instructions)
        threading.Thread(target=instructions.follow, args=(messages,), daemon=True).start()
        for message in messages:
            worker.handle(message)


def orders_queue(broker: Messaging, plan: Plan) -> Queue[bytes]:
    """The queue of orders, with the same properties for everybody: whoever disagrees is refused."""
    if plan.lease is None:
        return broker.queue(plan.queue, max_deliveries=plan.max_deliveries)
    return broker.queue(plan.queue, max_deliveries=plan.max_deliveries, lease=plan.lease)


if __name__ == "__main__":
    try:
        main()
    except NarrowboatError as error:
        sys.exit(f"narrowboat: a worker of the sale cannot go on: {error}")
