"""The demo: the stock record, the audit's parts, and whole sales that must audit clean, or must not."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrowboat.demo.audit import Audit, Belief, Fault, audit, beliefs, disagreements, endings, overlaps, oversold, percentiles
from narrowboat.demo.journal import Entry, Event, Journal, from_line, read, to_line
from narrowboat.demo.plan import Order, Plan, orders
from narrowboat.demo.sale import Faults
from narrowboat.demo.stock import Sale, Stock, View

PLAN = Plan(run="r", locks="sqlite:///l", broker="sqlite:///b", folder="/nowhere")


def entry(
    event: Event, order: str = "a", item: int = 0, *, worker: int = 1, at: float = 0.0, until: float = 0.0, waited: float = 0.0
) -> Entry:
    return Entry(worker, event, at, order, item, until, waited)


class TestPlan:
    def test_the_same_seed_gives_the_same_orders(self) -> None:
        """Everything but the run's name repeats."""
        assert orders(PLAN) == orders(PLAN)

    def test_another_seed_gives_other_orders(self) -> None:
        """Chance is where the seed says."""
        assert [o.item for o in orders(PLAN)] != [o.item for o in orders(Plan(**{**vars(PLAN), "seed": 1}))]

    def test_one_order_in_fifty_is_poison(self) -> None:
        """And the ids differ."""
        found = orders(PLAN)

        assert sum(order.poison for order in found) == 8
        assert len({order.id for order in found}) == 400

    def test_an_order_and_a_plan_survive_their_journey(self) -> None:
        """What is written is read."""
        order = Order("x", 3, poison=True)

        assert Order.from_bytes(order.to_bytes()) == order
        assert Plan.from_line(PLAN.to_line()) == PLAN


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[Stock]:
    record = Stock.create(tmp_path / "stock.db", items=2, stock=3)
    yield record
    record.close()


class TestStock:
    def test_a_sale_is_seen(self, stock: Stock) -> None:
        """What is left, and that this order bought one."""
        assert stock.sell(0, "a", left=2, token=7) is Sale.SOLD

        assert stock.look(0, "a") == View(left=2, sold=True)
        assert stock.look(0, "b") == View(left=2, sold=False)
        assert (stock.left(), stock.sales()) == ({0: 2, 1: 3}, {"a": 0})

    def test_an_older_token_is_refused(self, stock: Stock) -> None:
        """And nothing is written; the same and a newer one are accepted."""
        stock.sell(0, "a", left=2, token=7)

        assert stock.sell(0, "b", left=1, token=6) is Sale.STALE
        assert stock.left()[0] == 2
        assert stock.sales() == {"a": 0}
        assert stock.sell(0, "c", left=1, token=7) is Sale.SOLD
        assert stock.sell(0, "d", left=0, token=8) is Sale.SOLD

    def test_an_order_buys_once(self, stock: Stock) -> None:
        """A second sale of it changes nothing, not even what is left."""
        stock.sell(0, "a", left=2, token=7)

        assert stock.sell(0, "a", left=1, token=8) is Sale.ALREADY
        assert stock.left()[0] == 2

    def test_without_tokens_an_update_is_lost(self, stock: Stock) -> None:
        """Two who read before either writes sell two and count one: what the lock is for."""
        one, other = stock.look(0, "a"), stock.look(0, "b")
        stock.sell(0, "a", left=one.left - 1, token=None)
        stock.sell(0, "b", left=other.left - 1, token=None)

        assert stock.left()[0] == 2
        assert len(stock.sales()) == 2


class TestJournal:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        """In order, with the worker's number."""
        with Journal(tmp_path / "j", 4) as journal:
            hold = journal.write(Event.HOLD, "a", 1, until=9.0, waited=0.5)
            free = journal.write(Event.FREE, "a", 1)

        assert list(read([tmp_path / "j"])) == [hold, free]
        assert (hold.worker, hold.until, hold.waited) == (4, 9.0, 0.5)
        assert free.at >= hold.at

    def test_a_line_cut_short_is_left_out(self, tmp_path: Path) -> None:
        """A kill in the middle of a write."""
        whole = to_line(entry(Event.SOLD))
        (tmp_path / "j").write_bytes(whole + whole[:-5])

        assert list(read([tmp_path / "j"])) == [entry(Event.SOLD)]

    @pytest.mark.parametrize("event", list(Event))
    def test_every_event_survives(self, event: Event) -> None:
        """As a line and back."""
        assert from_line(to_line(entry(event))) == entry(event)


class TestBeliefs:
    def test_a_belief_ends_when_it_is_given_up(self) -> None:
        """Also after the lease that was written down first: it was renewed."""
        story = [entry(Event.HOLD, at=1.0, until=3.0), entry(Event.FREE, at=5.0)]

        assert beliefs(story) == [Belief(0, 1, 1.0, 5.0)]

    def test_a_lost_belief_ends_with_its_lease(self) -> None:
        """A worker that stood still believed nothing meanwhile."""
        story = [entry(Event.HOLD, at=1.0, until=3.0), entry(Event.LOST, at=9.0)]

        assert beliefs(story) == [Belief(0, 1, 1.0, 3.0)]

    def test_a_killed_worker_s_belief_counts_until_its_lease_ends(self) -> None:
        """Whoever was granted the lock before was granted it too early."""
        story = [entry(Event.HOLD, at=1.0, until=3.0), entry(Event.HOLD, at=2.9, until=4.9, worker=2)]

        assert overlaps(beliefs(story)) == 1

    def test_workers_take_turns(self) -> None:
        """One ends, the other begins: no overlap; and items have nothing to do with each other."""
        story = [
            entry(Event.HOLD, at=1.0, until=3.0),
            entry(Event.FREE, at=2.0),
            entry(Event.HOLD, at=2.0, until=4.0, worker=2),
            entry(Event.FREE, at=3.0, worker=2),
            entry(Event.HOLD, at=1.0, until=3.0, worker=3, item=1),
            entry(Event.FREE, at=3.0, worker=3, item=1),
        ]

        assert overlaps(beliefs(story)) == 0

    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(1, 5)), max_size=12))
    def test_overlaps_are_all_pairs_that_overlap(self, spans: list[tuple[int, int, int]]) -> None:
        """The sweep counts what comparing everybody with everybody counts."""
        found = [Belief(item, n, float(start), float(start + length)) for n, (item, start, length) in enumerate(spans)]
        pairs = [(a, b) for i, a in enumerate(found) for b in found[:i] if a.item == b.item]

        assert overlaps(found) == sum(a.start < b.end and b.start < a.end for a, b in pairs)


class TestParts:
    def test_oversold_counts_pieces_not_items(self) -> None:
        """Two items, one and two too many."""
        sales = {f"{n}": 0 for n in range(3)} | {f"x{n}": 1 for n in range(4)}

        assert oversold(sales, 2) == 3

    @given(st.lists(st.floats(0, 1e6), min_size=1))
    def test_percentiles_are_values_that_were_measured(self, values: list[float]) -> None:
        """And no more than their share of values lies above."""
        found = percentiles(values)

        assert set(found.values()) <= set(values)
        assert found["max"] == max(values)
        assert sum(value > found["p50"] for value in values) <= len(values) / 2

    def test_no_values_have_percentiles_too(self) -> None:
        """A sale in which nobody got a lock is audited like any other."""
        assert percentiles([]) == {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}

    def test_sold_before_is_sold(self) -> None:
        """A line that was lost with the worker is made good by the one who recognised the order."""
        assert endings([entry(Event.ALREADY), entry(Event.FAILED, "b")]) == {"a": {Event.SOLD}}

    @pytest.mark.parametrize(
        ("sold", "left", "sales", "wrong"),
        [
            ({"a"}, {0: 1}, {"a": 0}, 0),
            ({"a"}, {0: 2}, {}, 1),  # the journals alone know of the sale
            (set(), {0: 1}, {"a": 0}, 1),  # the record alone does
            ({"a"}, {0: 2}, {"a": 0}, 1),  # a lost update
        ],
    )
    def test_both_stories_must_agree(self, sold: set[str], left: dict[int, int], sales: dict[str, int], wrong: int) -> None:
        """Order by order, and piece by piece."""
        found = disagreements([Order("a", 0)], sold, set(), left=left, sales=sales, stock=2, items=1)

        assert found == wrong

    def test_nobody_is_turned_away_while_there_is_stock(self) -> None:
        """Sold out means none left."""
        wanted = [Order("a", 0), Order("b", 0)]

        assert disagreements(wanted, {"a"}, {"b"}, left={0: 1}, sales={"a": 0}, stock=2, items=1) == 1


def judge(entries: list[Entry], **changes: Any) -> Audit:
    known: dict[str, Any] = {
        "orders": [Order("a", 0), Order("b", 0)],
        "entries": entries,
        "items": 1,
        "stock": 1,
        "left": {0: 0},
        "sales": {"a": 0},
        "seconds": 2.0,
    }
    return audit(**{**known, **changes})


class TestAudit:
    def test_a_clean_sale(self) -> None:
        """One sold, one turned away."""
        found = judge([entry(Event.SOLD), entry(Event.SOLD_OUT, "b")])

        assert found.clean
        assert (found.sold, found.sold_out, found.dead, found.per_second) == (1, 1, 0, 1.0)

    @pytest.mark.parametrize(
        ("entries", "changes", "field"),
        [
            ([entry(Event.SOLD)], {}, "lost"),
            ([entry(Event.SOLD), entry(Event.SOLD_OUT, "b"), entry(Event.DEAD, "b")], {}, "twice"),
            ([entry(Event.SOLD), entry(Event.SOLD, "b")], {"sales": {"a": 0, "b": 0}}, "oversold"),
            ([entry(Event.SOLD), entry(Event.SOLD_OUT, "b")], {"left": {0: 1}}, "disagreements"),
            ([entry(Event.SOLD), entry(Event.SOLD_OUT, "b")], {"faults": {"kill": None}}, "troubles"),
            ([entry(Event.SOLD), entry(Event.SOLD_OUT, "b")], {"troubles": ["worker 3 ended"]}, "troubles"),
        ],
    )
    def test_every_fault_is_found(self, entries: list[Entry], changes: dict[str, Any], field: str) -> None:
        """And named."""
        found = judge(entries, **changes)

        assert not found.clean
        assert getattr(found, field)

    def test_overlapping_holders_are_found(self) -> None:
        """Also when nothing came of it."""
        story = [entry(Event.HOLD, until=2.0), entry(Event.HOLD, at=1.0, until=3.0, worker=2)]
        found = judge([*story, entry(Event.SOLD), entry(Event.SOLD_OUT, "b")])

        assert found.overlaps == 1
        assert not found.clean

    def test_a_kill_that_was_recovered_from_is_told(self) -> None:
        """How long it took is counted from the moment in which the killed one began to hold the lock."""
        hold = entry(Event.HOLD, at=1.0, until=3.0)
        found = judge([hold, entry(Event.SOLD, at=3.5, worker=2), entry(Event.SOLD_OUT, "b")], faults={"kill": hold})

        assert found.clean
        assert found.killed == Fault(worker=1, order="a", item=0, after=2.5)

    def test_a_kill_that_was_not_recovered_from_is_trouble(self) -> None:
        """Nobody settled the order."""
        hold = entry(Event.HOLD, "b", at=1.0, until=3.0)
        found = judge([hold, entry(Event.SOLD)], faults={"kill": hold})

        assert found.lost == 1
        assert found.troubles == ("kill: the order b was settled by nobody",)


def hold_sale(*options: str, cwd: Path) -> tuple[int, dict[str, Any]]:
    """`narrowboat demo --json` as a user runs it: the exit code and the audit."""
    done = subprocess.run(
        [sys.executable, "-m", "narrowboat", "demo", "--json", *options],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "TMPDIR": str(cwd)},
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


#: Begins a transaction, and ends it when it has been stopped and goes on. The signal waits for it, whatever it does then.
_IN_A_TRANSACTION = """
import signal, sqlite3, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("edge", flush=True)
signal.sigwait({signal.SIGCONT})
db.execute("COMMIT")
sys.stdin.read()
"""


def written(db: sqlite3.Connection) -> bool:
    with contextlib.suppress(sqlite3.OperationalError):
        db.execute("INSERT INTO t VALUES (1)")
        return True
    return False


class OneWorker:
    def __init__(self, path: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_A_TRANSACTION, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.heard: list[str] = []

    def signal(self, number: int, signum: int) -> None:
        self.process.send_signal(signum)

    def tell(self, number: int, line: str) -> None:
        self.heard.append(line)


def test_a_worker_that_was_stopped_in_a_transaction_does_not_keep_the_others_from_the_database(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    db = sqlite3.connect(path, timeout=0, isolation_level=None)
    db.execute("CREATE TABLE t (a)")
    worker = OneWorker(path)
    try:
        worker.process.stdout.readline()
        faults = Faults(PLAN, worker)  # type: ignore[arg-type]  # it does what a crew does here
        faults.strike(entry(Event.HOLD, worker=2))
        os.waitid(os.P_PID, worker.process.pid, os.WSTOPPED)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            db.execute("INSERT INTO t VALUES (1)")
        db.execute("PRAGMA busy_timeout = 100")
        ends = time.monotonic() + 60
        while not written(db):  # as the sale does for as long as nobody gets on: a busy machine gives it no time at first
            assert time.monotonic() < ends
            faults.stalled()
        assert not worker.heard
        faults.settled("a")
        assert worker.heard == ["go"]
    finally:
        worker.process.kill()
        worker.process.communicate()
        db.close()


class TestSale:
    def test_with_the_lock_it_audits_clean(self, tmp_path: Path) -> None:
        """Nothing oversold, nothing lost, one worker killed, one stopped and its stale write refused, no file left."""
        code, found = hold_sale("--buyers", "200", "--items", "4", cwd=tmp_path)

        assert code == 0, found
        assert found["clean"] is True
        assert Counter({"sold": 80, "dead": 4}) == Counter({name: found[name] for name in ("sold", "dead")})
        assert found["sold"] + found["sold_out"] + found["dead"] == found["published"] == 200
        assert found["killed"]["after"] > 0
        assert found["stopped"]["after"] > 0
        assert found["refused"] == 1
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_interrupted_it_leaves_nothing(self, tmp_path: Path, signum: signal.Signals, code: int) -> None:
        """No worker, no file."""
        process = subprocess.Popen(
            [sys.executable, "-m", "narrowboat", "demo", "--buyers", "5000", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        ends = time.monotonic() + 20
        while not list(tmp_path.glob("*/worker-*.jsonl")):
            assert time.monotonic() < ends
            time.sleep(0.01)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [os.pidfd_open(int(child)) for child in children]
        process.send_signal(signum)
        out, err = process.communicate(timeout=20)

        gone, _, _ = select.select(workers, [], [], 0)
        for worker in workers:
            os.close(worker)
        assert (process.returncode, out, err.strip()) == (code, "", "")
        assert len(gone) == len(workers) == 4
        assert list(tmp_path.iterdir()) == []

    def test_without_the_lock_it_does_not(self, tmp_path: Path) -> None:
        """The audit is a real one: reading, thinking and writing without a lock sells things twice."""
        code, found = hold_sale("--no-lock", "--no-kill", "--buyers", "200", "--items", "4", cwd=tmp_path)

        assert code == 1
        assert found["oversold"] > 0
        assert found["overlaps"] > 0
        assert list(tmp_path.iterdir()) == []
