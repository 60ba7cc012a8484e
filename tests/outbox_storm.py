"""A storm over an outbox and an inbox: programs, relays and consumers that are killed between any two of their statements.

    python tests/outbox_storm.py --orders 100000 --kills 300 --seed 7
    python tests/outbox_storm.py --database postgresql://... --broker redis://...?dedup=0

Programs store orders and publish them by the outbox, and roll back some. Relays publish, one at a time. A consumer marks
what it does in the inbox. Each process ends itself with SIGKILL after a number of statements, by the seed: before
or after a statement, a commit or a publish. The audit compares what was committed with what was delivered and done. For
tests/test_outbox_storm.py, and by hand for more orders.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import narrowboat
from narrowboat.codecs import JSON
from narrowboat.contract import Broker, Outgoing
from narrowboat.inbox import Inbox
from narrowboat.layers.passing import PassingBroker
from narrowboat.outbox import Outbox

#: Keys of the orders, messages in a batch of the relay, seconds of a lease; one attempt of so many is rolled back.
KEYS, BATCH, LEASE, ROLLED_BACK = 40, 50, 2.0, 10
#: About how many statements, commits and publishes each process makes for an order, counted before and after.
STEPS = {"program": 8.0, "relay": 14 / BATCH, "consumer": 8.0}
#: Seconds without progress after which it is given up.
PATIENCE = 120.0
#: Seconds from one line about the progress to the next.
TELL = 30.0
OUTBOX, INBOX = Outbox("orders_outbox", codec=JSON), Inbox("billing", "billing_inbox")


class Mortal:
    """Counts the steps of this process, and kills it at one of them."""

    left = 0  #: 0: it lives
    role, record = "", ""

    @classmethod
    def step(cls, where: str) -> None:
        """One more."""
        if cls.left == 1:
            with open(cls.record, "a") as file:
                file.write(f"{cls.role} {where}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        cls.left = max(0, cls.left - 1)


def word(statement: Any) -> str:
    return str(statement).split()[0]


class MortalCursor(sqlite3.Cursor):
    """Dies before or after a statement."""

    def execute(self, statement: str, parameters: Any = ()) -> Any:
        Mortal.step(f"before {word(statement)}")
        found = super().execute(statement, parameters)
        Mortal.step(f"after {word(statement)}")
        return found


class MortalConnection(sqlite3.Connection):
    """The same."""

    def cursor(self, factory: Any = MortalCursor) -> Any:
        return super().cursor(factory)

    def execute(self, statement: str, parameters: Any = (), /) -> Any:
        return self.cursor().execute(statement, parameters)

    def commit(self) -> None:
        self.execute("COMMIT")


def mortal_psycopg(url: str) -> Any:
    import psycopg

    class Cursor(psycopg.Cursor[Any]):
        """Dies before or after a statement."""

        def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            Mortal.step(f"before {word(query)}")
            found = super().execute(query, params, **options)
            Mortal.step(f"after {word(query)}")
            return found

    class Connection(psycopg.Connection[Any]):
        """Dies before or after a commit."""

        def commit(self) -> None:
            Mortal.step("before COMMIT")
            super().commit()
            Mortal.step("after COMMIT")

    connection = Connection.connect(url)
    connection.cursor_factory = Cursor
    return connection


def connect(database: str) -> Any:
    if database.startswith("postgresql"):
        return mortal_psycopg(database)
    connection = sqlite3.connect(database, timeout=60, factory=MortalConnection, isolation_level=None)
    sqlite3.Cursor(connection).execute("PRAGMA synchronous = off")  # what is killed is a process, and not the machine
    return connection


def of_billing(database: str) -> str:
    """The consumer's database: another service's file, or the same server."""
    return database if database.startswith("postgresql") else f"{database}.billing"


class MortalBroker(PassingBroker):
    """Dies before or after a publish."""

    def send(self, messages: Sequence[Outgoing]) -> Any:
        Mortal.step("before publish")
        with open(f"{Mortal.record}.sent", "a") as file:
            file.write("".join(f"{message.id}\n" for message in messages))
        found = self.inner.send(messages)
        Mortal.step("after publish")
        return found


def broker(url: str) -> narrowboat.Messaging:
    def wrap(inner: Broker) -> Broker:
        return MortalBroker(inner)

    return narrowboat.broker(url, wrap=wrap)


def orders_of(messages: narrowboat.Messaging) -> narrowboat.Queue[Any]:
    return messages.queue("orders", codec=JSON, ordered=True, lease=LEASE, max_deliveries=0)


def begin(connection: Any) -> None:
    """psycopg begins by itself."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("BEGIN IMMEDIATE")


def program(database: str, messages: str, orders: int, seed: int) -> None:
    """Store orders, from where the last process was killed."""
    draw = random.Random(seed)
    with closing(connect(database)) as connection:
        (first,) = connection.execute("SELECT coalesce(max(n) + 1, 0) FROM orders").fetchone()
        connection.commit() if not isinstance(connection, sqlite3.Connection) else None
        number = first
        while number < orders:
            begin(connection)
            attempt = f"{seed}-{number}-{draw.random()}"
            mark = "?" if isinstance(connection, sqlite3.Connection) else "%s"
            statement = f"INSERT INTO orders (n, attempt) VALUES ({mark}, {mark})"
            early = draw.random() < 0.5
            if early:
                connection.execute(statement, (number, attempt))
            OUTBOX.publish(connection, "orders", {"n": number, "attempt": attempt}, key=str(number % KEYS))
            if not early:
                connection.execute(statement, (number, attempt))
            if draw.randrange(ROLLED_BACK) == 0:
                connection.rollback()
                continue
            connection.commit()
            number += 1


def relay(database: str, messages: str, orders: int, seed: int) -> None:
    """Until SIGTERM."""
    with broker(messages) as opened:
        worker = narrowboat.Worker(opened)
        worker.relay(OUTBOX, lambda: connect(database), batch=BATCH, poll=0.05)
        worker.run()


def consumer(database: str, messages: str, orders: int, seed: int) -> None:
    """Until SIGTERM: each message in one transaction with its mark, and then the ack."""
    with broker(messages) as opened, closing(connect(of_billing(database))) as connection:
        mark = "?" if isinstance(connection, sqlite3.Connection) else "%s"
        statement = f"INSERT INTO {{}} (id, n, attempt, delivery) VALUES ({mark}, {mark}, {mark}, {mark})"
        with orders_of(opened).consume(prefetch=100) as incoming:
            signal.signal(signal.SIGTERM, lambda *_: incoming.stop())
            for batch in incoming.batches(100):
                for message in batch:
                    begin(connection)
                    what = (message.id, message.data["n"], message.data["attempt"], message.attempt)
                    connection.execute(statement.format("seen"), what)
                    if INBOX.first(connection, message):
                        connection.execute(statement.format("done"), what)
                    connection.commit()
                batch.ack()


ROLES = {"program": program, "relay": relay, "consumer": consumer}


@dataclass
class Audit:
    """What a storm came to. All but the last three counts are 0, or it has found a fault."""

    orders: int
    lost: int = 0  #: committed, and not done
    phantom: int = 0  #: delivered, and never committed
    two_ids: int = 0  #: one order under two ids
    done_twice: int = 0  #: past the inbox
    out_of_order: int = 0  #: of one key
    left: int = 0  #: rows in the outbox
    sent_twice: int = 0  #: under its one id
    delivered_twice: int = 0  #: before the inbox
    kills: Counter[str] = field(default_factory=Counter)

    @property
    def faults(self) -> int:
        """How many."""
        return self.lost + self.phantom + self.two_ids + self.done_twice + self.out_of_order + self.left

    def __str__(self) -> str:
        killed = Counter(each.split()[0] for each in self.kills.elements())
        points = ", ".join(f"{count} {point}" for point, count in sorted(self.kills.items()))
        return (
            f"{self.orders} orders; {sum(killed.values())} kills -9 ({dict(killed)}): lost {self.lost}, "
            f"phantom {self.phantom}, under two ids {self.two_ids}, done twice past the inbox {self.done_twice}, "
            f"out of order {self.out_of_order}, left {self.left}; "
            f"sent twice {self.sent_twice}, delivered twice {self.delivered_twice}\n  ({points})"
        )


class Storm:
    """The processes, and what comes of them."""

    def __init__(self, database: str, messages: str, folder: Path, orders: int, kills: int, seed: int, relays: int = 2) -> None:
        self.database, self.messages, self.orders = database, messages, orders
        self._draw = random.Random(seed)
        self._record = folder / "kills"
        self._kills = dict.fromkeys(ROLES, kills)
        self._mean = {role: max(2.0, steps * orders / max(1, kills)) for role, steps in STEPS.items()}
        self._running: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
        self._roles = [("program", 0), *(("relay", number) for number in range(relays)), ("consumer", 0)]

    def run(self) -> Audit:
        """All of it."""
        self._prepare()
        try:
            for each in self._roles:
                self._start(each)
            self._watch()
        finally:
            for process in self._running.values():
                process.send_signal(signal.SIGTERM)
            for process in self._running.values():
                process.wait(30)
        return self._audit()

    def _prepare(self) -> None:
        dialect = "postgresql" if self.database.startswith("postgresql") else "sqlite"
        with closing(connect(self.database)) as shop, closing(connect(of_billing(self.database))) as billing:
            for connection in (shop, billing) if dialect == "sqlite" else ():
                connection.execute("PRAGMA journal_mode = wal")
            shop.execute("CREATE TABLE orders (n integer PRIMARY KEY, attempt text)")
            shop.execute(OUTBOX.ddl(dialect))
            number = "integer PRIMARY KEY" if dialect == "sqlite" else "bigint GENERATED ALWAYS AS IDENTITY"
            for table in ("seen", "done"):
                billing.execute(f"CREATE TABLE {table} (id text, n integer, attempt text, delivery integer, seq {number})")
            billing.execute(INBOX.ddl(dialect))
            for connection in (shop, billing) if dialect == "postgresql" else ():
                connection.commit()
        with narrowboat.broker(self.messages) as opened:
            orders_of(opened).declare()

    def _start(self, each: tuple[str, int]) -> None:
        role, left = each[0], 0
        if self._kills[role] > 0:
            self._kills[role] -= 1
            left = 1 + int(self._draw.expovariate(1 / self._mean[role]))
        arguments = [role, self.database, self.messages, str(self.orders), str(self._draw.randrange(2**31))]
        command = [sys.executable, __file__, "--child", *arguments, str(left), str(self._record)]
        self._running[each] = subprocess.Popen(command)

    def _watch(self) -> None:
        """Start again what was killed, until all is done and nothing is left."""
        before, since, told = (-1, -1), time.monotonic(), time.monotonic()
        while True:
            time.sleep(0.05)
            for each, process in tuple(self._running.items()):
                code = process.poll()
                if code is None:
                    continue
                del self._running[each]
                if code == -signal.SIGKILL:
                    self._start(each)
                elif code or each[0] != "program":
                    raise AssertionError(f"{each[0]} ended with {code}")
            now = self._progress()
            if now != before:
                before, since = now, time.monotonic()
            if time.monotonic() - told > TELL:
                print(f"{now[0]} ordered, {now[1]} seen", file=sys.stderr, flush=True)
                told = time.monotonic()
            if ("program", 0) not in self._running and self._over():
                return
            assert time.monotonic() - since < PATIENCE, f"no progress beyond {now} (ordered, seen)"

    def _ask(self, query: str, database: str | None = None) -> list[Any]:
        with closing(connect(database or self.database)) as connection:
            return list(connection.execute(query).fetchall())

    def _progress(self) -> tuple[int, int]:
        ((seen,),) = self._ask("SELECT coalesce(max(seq), 0) FROM seen", of_billing(self.database))
        ((ordered,),) = self._ask("SELECT coalesce(max(n), 0) FROM orders")
        return ordered, seen

    def _over(self) -> bool:
        if self._ask(f"SELECT 1 FROM {OUTBOX.table} LIMIT 1"):
            return False
        with narrowboat.broker(self.messages) as opened:
            depth = orders_of(opened).depth()
        return not depth.ready and not depth.in_flight

    def _audit(self) -> Audit:
        billing = of_billing(self.database)
        committed = {attempt: n for n, attempt in self._ask("SELECT n, attempt FROM orders")}
        seen = self._ask("SELECT id, n, attempt, delivery FROM seen", billing)
        done = self._ask("SELECT id, n, attempt FROM done ORDER BY seq", billing)
        ids: dict[int, set[str]] = {}
        for id, n, _, _ in seen:
            ids.setdefault(n, set()).add(id)
        sent = Path(f"{self._record}.sent").read_text().split()
        latest: dict[int, int] = {}
        disorder = 0
        for _, n, _ in done:
            disorder += n < latest.get(n % KEYS, -1)
            latest[n % KEYS] = n
        return Audit(
            len(committed),
            lost=self.orders - len({n for _, n, attempt in done if attempt in committed}),
            phantom=len({attempt for _, _, attempt, _ in seen if attempt not in committed}),
            two_ids=sum(len(found) > 1 for found in ids.values()),
            done_twice=len(done) - len({n for _, n, _ in done}),
            out_of_order=disorder,
            left=len(self._ask(f"SELECT 1 FROM {OUTBOX.table}")),
            delivered_twice=len(seen) - len(ids),
            sent_twice=len(sent) - len(set(sent)),
            kills=Counter(self._record.read_text().splitlines()) if self._record.exists() else Counter(),
        )


def main() -> int:
    """By hand, or as one of its processes."""
    if sys.argv[1:2] == ["--child"]:
        role, database, messages, orders, seed, left, record = sys.argv[2:]
        Mortal.role, Mortal.record, Mortal.left = role, record, int(left)
        ROLES[role](database, messages, int(orders), int(seed))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that its processes end as well
    parser = argparse.ArgumentParser()
    with tempfile.TemporaryDirectory() as folder:
        parser.add_argument("--database", default=f"{folder}/shop.db")
        parser.add_argument("--broker", default=f"sqlite:///{folder}/broker.db?dedup=0&durability=normal")
        for name, usual in (("orders", 100_000), ("kills", 300), ("seed", 1)):
            parser.add_argument(f"--{name}", type=int, default=usual)
        told = parser.parse_args()
        begun = time.monotonic()
        audit = Storm(told.database, told.broker, Path(folder), told.orders, told.kills, told.seed).run()
        print(f"seed {told.seed}, {time.monotonic() - begun:.0f} s: {audit}")
        return int(audit.faults > 0)


if __name__ == "__main__":
    sys.exit(main())
