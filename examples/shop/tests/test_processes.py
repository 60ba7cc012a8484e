"""The shop in processes of its own, some of them killed: nothing is oversold, each order is shipped, each tick runs once.

On SQLite; with NARROWBOAT_LOCKS_URL, NARROWBOAT_BROKER_URL and SHOP_SCHEDULES_URL on what they name.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import subprocess
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import httpx2
import pytest

import narrowboat
from programs import ENOUGH, WEB, WEB_AT, WORKER, Programs
from shop.orders import ORDER
from shop.store import Store
from shop.web import STOCK


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """What web and workers have in common, by their environment; a tick each second."""
    for name in ("NARROWBOAT_LOCKS_URL", "NARROWBOAT_BROKER_URL"):
        monkeypatch.setenv(name, os.environ.get(name) or f"sqlite:///{tmp_path}/narrowboat.db")
    monkeypatch.setenv("SHOP_DB", str(tmp_path / "shop.db"))
    monkeypatch.setenv("SHOP_SWEEP", "1")
    return Store(str(tmp_path / "shop.db"))


def test_a_killed_worker_loses_nothing(tables: Store) -> None:
    """Sixty buyers of forty pieces of each of three items, two workers, and one of them gets SIGKILL among its orders."""
    with contextlib.ExitStack() as stack:
        programs = stack.enter_context(Programs())
        programs.start(*WEB)
        _, at = programs.wait(WEB_AT)
        broker = stack.enter_context(narrowboat.broker())
        told = stack.enter_context(broker.topic("shipped", ORDER).subscription("test").consume())
        victim = programs.start(*WORKER)
        shop = stack.enter_context(httpx2.Client(base_url=at[1], timeout=ENOUGH))
        buyers = stack.enter_context(concurrent.futures.ThreadPoolExecutor(20))

        answers = [buyers.submit(shop.post, f"/items/{item}/orders") for _ in range(60) for item in STOCK]
        first = told.receive(timeout=ENOUGH)
        assert first is not None
        shipped = {first.data.id}
        first.ack()
        victim.kill()
        programs.start(*WORKER)

        codes = [answer.result().status_code for answer in answers]
        sold = {answer.result().json()["id"] for answer in answers if answer.result().status_code == 201}
        while sold - shipped:
            message = told.receive(timeout=ENOUGH)
            assert message is not None, f"not shipped: {sold - shipped}"
            shipped.add(message.data.id)
            message.ack()

        assert sorted(set(codes)) == [201, 409]
        assert tables.sales() == STOCK
        assert [tables.pieces(item) for item in STOCK] == [0, 0, 0]
        assert len(sold) == sum(STOCK.values()) and tables.unshipped() == []


class Ticks:
    """Each run of a tick that a program has told of, at its end."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.runs: Counter[tuple[datetime, int]] = Counter()

    def wait(self) -> subprocess.Popen[str]:
        """For one more; whose it was."""
        process, told = self.programs.wait(r"sweeper@(\S+), attempt (\d+): 0 orders")
        self.runs[datetime.fromisoformat(told[1]), int(told[2])] += 1
        return process

    def missed(self) -> list[datetime]:
        """Instants, one a second from the first to the last, at which nothing ran."""
        ran = {instant for instant, _ in self.runs}
        seconds = range(int((max(ran) - min(ran)).total_seconds()))
        return [each for each in (min(ran) + timedelta(seconds=second) for second in seconds) if each not in ran]


def test_a_killed_worker_loses_and_doubles_no_tick(tables: Store) -> None:
    """Of three workers the one that has just run a tick gets SIGKILL, and another one takes its place; four times."""
    tables.create(STOCK)
    with Programs() as programs:
        ticks = Ticks(programs)
        ready = {programs.start(*WORKER) for _ in range(3)}
        for _ in range(4):
            while ready:  # with no worker at all a tick would be skipped
                ready.discard(ticks.wait())
            ticks.wait().kill()
            ready = {programs.start(*WORKER)}
        while missed := ticks.missed():  # what a killed worker had comes back when its lease ends
            ticks.wait()
            assert len(ticks.runs) < 300, missed
        assert set(ticks.runs.values()) == {1}  # what runs again, since it was not settled, has another attempt


def test_in_memory_the_ticks_end_and_begin_with_the_process(tables: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It forgets what it did, and does none of it again."""
    for name in ("NARROWBOAT_LOCKS_URL", "NARROWBOAT_BROKER_URL"):
        monkeypatch.setenv(name, "memory://")
    monkeypatch.delenv("SHOP_SCHEDULES_URL", raising=False)
    with Programs() as programs:
        before, after = Ticks(programs), Ticks(programs)
        for ticks in (before, after):
            web = programs.start(*WEB)
            for _ in range(4):
                ticks.wait()
            web.kill()
        assert before.missed() == after.missed() == []
        assert set((before.runs + after.runs).values()) == {1}
