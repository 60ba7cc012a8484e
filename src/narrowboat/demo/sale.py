"""The sale itself: start the workers, publish the orders, kill one worker and stop another half way, wait for the end.

The workers are plain processes, so that a kill is a kill. Whatever happens here, they are gone when this returns, the
names on the backend are deleted, and the files belong to the caller's folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue as queues
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import narrowboat
from narrowboat.capabilities import LeaseNature, Scope
from narrowboat.demo.audit import Audit, audit
from narrowboat.demo.journal import Entry, Event, Journal, from_line, read
from narrowboat.demo.plan import Order, Plan, orders
from narrowboat.demo.stock import Stock
from narrowboat.demo.worker import orders_queue
from narrowboat.errors import Unsupported
from narrowboat.messaging import Messages, Outbound, Queue

#: The journal of this process, which buries the dead letters.
_OURS = 0
#: Seconds that a worker has to finish the order in its hands.
_PATIENCE = 20.0
#: Seconds without news after which a stopped worker may be what the others wait for: shorter than any backend waits.
_STALL = 1.0
#: Seconds in which a transaction ends that somebody was stopped in, on a busy machine too; nothing tells when it has.
_MOMENT = 0.25


class News(NamedTuple):
    """What a thread that listens to a worker, or to the dead letters, has heard. An empty `text`: the worker has ended."""

    worker: int
    text: str


class Crew:
    """The worker processes, numbered from 1."""

    def __init__(self, plan: Plan, news: queues.SimpleQueue[News]) -> None:
        self._plan = plan
        self._news = news
        self._workers: dict[int, subprocess.Popen[str]] = {}
        self._killed: set[int] = set()
        self._ears: list[threading.Thread] = []

    def __enter__(self) -> Crew:
        for number in range(1, self._plan.workers + 1):
            command = [sys.executable, "-m", "narrowboat.demo.worker", str(number)]
            # In a group of its own: Ctrl-C is for us, who then end them.
            worker = subprocess.Popen(  # noqa: S603  # our own program
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
            )
            self._workers[number] = worker
            self.tell(number, self._plan.to_line())
            self._ears.append(threading.Thread(target=self._listen, args=(number, worker), daemon=True))
            self._ears[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        """Whoever is still there is killed."""
        for worker in self._workers.values():
            worker.kill()
            worker.wait()
        for ear in self._ears:
            ear.join()
        for worker in self._workers.values():
            for pipe in (worker.stdin, worker.stdout):
                with contextlib.suppress(OSError):  # what was not flushed has nobody to go to
                    pipe.close()  # type: ignore[union-attr]  # both are pipes, as asked for above

    def tell(self, number: int, line: str) -> None:
        """Send a worker a line. One that is gone does not hear it; its end is news of its own."""
        pipe = self._workers[number].stdin
        assert pipe is not None
        with contextlib.suppress(OSError):
            pipe.write(line + "\n")
            pipe.flush()

    def kill(self, number: int) -> None:
        """Kill it, and wait until it is dead."""
        self._killed.add(number)
        self._workers[number].kill()
        self._workers[number].wait()

    def signal(self, number: int, signum: int) -> None:
        """Send it a signal."""
        self._workers[number].send_signal(signum)

    def finish(self) -> list[str]:
        """Let them all finish; what went wrong."""
        troubles = []
        for worker in self._workers.values():
            with contextlib.suppress(OSError):
                worker.stdin.close()  # type: ignore[union-attr]  # a pipe, as asked for above
        for number, worker in self._workers.items():
            try:
                code = worker.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                troubles.append(f"worker {number} did not finish within {_PATIENCE:g} s")
            else:
                if code and number not in self._killed:
                    troubles.append(f"worker {number} ended with exit code {code}")
        return troubles

    @property
    def alive(self) -> bool:
        """Whether any is left."""
        return any(worker.poll() is None for worker in self._workers.values())

    def _listen(self, number: int, worker: subprocess.Popen[str]) -> None:
        assert worker.stdout is not None
        for line in worker.stdout:
            self._news.put(News(number, line.strip()))
        self._news.put(News(number, ""))


class Faults:
    """The two faults, each in the middle of an order: worker 1 is killed, worker 2 is stopped until another has its order.

    The stopped one still believes that it holds the lock when it goes on, and writes: the stock record must refuse it.
    """

    def __init__(self, plan: Plan, crew: Crew) -> None:
        self._crew = crew
        self.met: dict[str, Entry | None] = {}
        self._stopped_at: str | None = None
        self._questions: list[tuple[int, str]] = []  # after how many orders, what to ask of the victims
        if plan.faults:
            # Whoever is killed or stopped needs somebody to take over.
            self.met = dict.fromkeys(["kill", "stop"] if plan.workers > 2 else ["kill"])
            pieces = plan.items * plan.stock
            self._questions = [(min(pieces, plan.buyers) // 2, "edge"), (plan.buyers // 2, "edge now")]

    def advance(self, settled: int) -> None:
        """So many orders are settled: is it time?

        Half way through the stock the victims are asked to stand still where it matters, between reading and writing.
        Half way through the orders, with their next order, whatever comes of it: perhaps there was nothing left to sell.
        """
        if self._questions and settled >= self._questions[0][0]:
            _, question = self._questions.pop(0)
            for number, _ in enumerate(self.met, start=1):
                self._crew.tell(number, question)

    def strike(self, hold: Entry) -> None:
        """A victim stands still."""
        if hold.worker == 1:
            self._crew.kill(hold.worker)
            self.met["kill"] = hold
        else:
            self._crew.signal(hold.worker, signal.SIGSTOP)
            self.met["stop"] = hold
            self._stopped_at = hold.order

    def stalled(self) -> None:
        """Nobody gets on: a worker stopped in a transaction keeps its database from all. It ends it, and stops again."""
        if self._stopped_at is not None:
            self._crew.signal(2, signal.SIGCONT)
            time.sleep(_MOMENT)
            self._crew.signal(2, signal.SIGSTOP)

    def settled(self, order: str) -> None:
        """Somebody has settled this order: if it is the stopped one's, it goes on."""
        if order == self._stopped_at:
            self.end()

    def end(self) -> None:
        """Let the stopped worker go on."""
        if self._stopped_at is not None:
            self._stopped_at = None
            self._crew.tell(2, "go")
            self._crew.signal(2, signal.SIGCONT)


def hold(plan: Plan, *, progress: Callable[[int], None]) -> Audit:
    """Hold the sale and audit it. `progress` is told how many orders are settled, from time to time."""
    folder = Path(plan.folder)
    stock = Stock.create(folder / "stock.db", items=plan.items, stock=plan.stock)
    wanted = orders(plan)
    news: queues.SimpleQueue[News] = queues.SimpleQueue()
    with contextlib.closing(stock), Journal(folder / "sale.jsonl", _OURS) as journal, narrowboat.broker(plan.broker) as broker:
        queue = orders_queue(broker, plan)
        with _names(queue), _burying(queue, journal, news), Crew(plan, news) as crew:
            start = journal.now()
            _publish(queue, wanted)
            faults = Faults(plan, crew)
            _follow(plan, crew, faults, news, progress)
            seconds = journal.now() - start
            faults.end()
            troubles = crew.finish()
        return audit(
            orders=wanted,
            entries=read(sorted(folder.glob("*.jsonl"))),
            items=plan.items,
            stock=plan.stock,
            left=stock.left(),
            sales=stock.sales(),
            seconds=seconds,
            faults=faults.met,
            troubles=troubles,
        )


def prepare(plan: Plan) -> Plan:
    """The plan as these backends need it, after a call to each; nothing has begun yet.

    Raises `Unsupported` for a backend that other processes cannot reach, and what a first call raises.
    """
    with narrowboat.locks(plan.locks) as locks, narrowboat.broker(plan.broker) as broker:
        for option, scope in (("--locks", locks.capabilities.scope), ("--broker", broker.capabilities.scope)):
            if scope is Scope.PROCESS:
                raise Unsupported(
                    f"{option}: the sale's workers are processes of their own and cannot share a backend that lives inside "
                    "one process: take another, such as sqlite:///sale.db, or leave the option out"
                )
        locks.ping()
        broker.ping()
        leases = broker.capabilities.lease is LeaseNature.MESSAGE
        return dataclasses.replace(
            plan,
            ttl=max(plan.ttl, locks.capabilities.ttl_min),
            lease=max(plan.lease or 0.0, broker.capabilities.lease_min) if leases else None,
        )


def _publish(queue: Queue[bytes], wanted: list[Order]) -> None:
    for outcome in queue.publish_many([Outbound(order.to_bytes(), id=order.id) for order in wanted]):
        if isinstance(outcome, Exception):
            raise outcome


def _follow(plan: Plan, crew: Crew, faults: Faults, news: queues.SimpleQueue[News], progress: Callable[[int], None]) -> None:
    """Until every order is settled, nobody is left to settle one, or nothing has happened for a long time."""
    settled: set[str] = set()
    patience = _STALL
    while len(settled) < plan.buyers and crew.alive:
        try:
            text = news.get(timeout=patience).text
        except queues.Empty:
            if patience >= plan.wait:
                return
            faults.stalled()
            patience = min(3 * patience, plan.wait)  # longer than its leases in the end, which it has renewed meanwhile
            continue
        patience = _STALL
        what, _, rest = text.partition(" ")
        if what == "edge":
            faults.strike(from_line(rest.encode()))
        elif what == "done":
            settled.add(rest)
            faults.settled(rest)
            progress(len(settled))
        faults.advance(len(settled))


@contextlib.contextmanager
def _names(queue: Queue[bytes]) -> Iterator[None]:
    """The queue and its dead letters exist in this block and not after it."""
    queue.declare()
    try:
        yield
    finally:
        queue.dead_letters().delete()
        queue.delete()


@contextlib.contextmanager
def _burying(queue: Queue[bytes], journal: Journal, news: queues.SimpleQueue[News]) -> Iterator[None]:
    """Take the dead letters as they come, and write them down."""
    with queue.dead_letters().consume(prefetch=10) as messages:
        gravedigger = threading.Thread(target=_bury, args=(messages, journal, news), daemon=True)
        gravedigger.start()
        try:
            yield
        finally:
            messages.stop()
            gravedigger.join()


def _bury(messages: Messages[bytes], journal: Journal, news: queues.SimpleQueue[News]) -> None:
    for message in messages:
        order = Order.from_bytes(message.body)
        journal.write(Event.DEAD, order.id, order.item)
        message.ack()
        news.put(News(_OURS, f"done {order.id}"))
