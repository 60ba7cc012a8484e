"""The whole shop in processes of its own, one of them killed: nothing is oversold, and every order is shipped.

On SQLite; with NARROWBOAT_LOCKS_URL and NARROWBOAT_BROKER_URL on what they name.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

import narrowboat
from shop.orders import ORDER
from shop.store import Store
from shop.web import STOCK

ROOT = Path(__file__).resolve().parent.parent
ENOUGH = 120.0  #: seconds for anything: a killed worker's orders come back when their lease of 15 s has ended


@pytest.fixture
def tables_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What web and workers have in common; the file of the tables."""
    for name in ("NARROWBOAT_LOCKS_URL", "NARROWBOAT_BROKER_URL"):
        monkeypatch.setenv(name, os.environ.get(name) or f"sqlite:///{tmp_path}/narrowboat.db")
    monkeypatch.setenv("SHOP_DB", str(tmp_path / "shop.db"))
    return tmp_path / "shop.db"


@contextlib.contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process of the shop, which is told to end, and does, unless it was killed. It says little, so nobody has to read it."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            said, _ = process.communicate(timeout=ENOUGH)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode in (0, -signal.SIGTERM, -signal.SIGKILL), said  # uvicorn ends by the signal that it got


def address(web: subprocess.Popen[str]) -> str:
    """Where the web application listens, which it says once it has started."""
    assert web.stdout is not None
    said = ""
    for line in web.stdout:
        said += line
        if found := re.search(r"running on (http://\S+)", line):
            return found[1]
    raise AssertionError(said)


def test_a_killed_worker_loses_nothing(tables_file: Path) -> None:
    """Sixty buyers of forty pieces of each of three items, two workers, and one of them gets SIGKILL among its orders."""
    worker = ("narrowboat", "run", "shop.worker:worker")
    with contextlib.ExitStack() as stack:
        url = address(stack.enter_context(running("uvicorn", "shop.web:app", "--port", "0", "--no-access-log")))
        broker = stack.enter_context(narrowboat.broker())
        told = stack.enter_context(broker.topic("shipped", ORDER).subscription("test").consume())
        victim = stack.enter_context(running(*worker))
        shop = stack.enter_context(httpx2.Client(base_url=url, timeout=ENOUGH))
        buyers = stack.enter_context(concurrent.futures.ThreadPoolExecutor(20))

        answers = [buyers.submit(shop.post, f"/items/{item}/orders") for _ in range(60) for item in STOCK]
        first = told.receive(timeout=ENOUGH)
        assert first is not None
        shipped = {first.data.id}
        first.ack()
        victim.kill()
        stack.enter_context(running(*worker))

        codes = [answer.result().status_code for answer in answers]
        sold = {answer.result().json()["id"] for answer in answers if answer.result().status_code == 201}
        while sold - shipped:
            message = told.receive(timeout=ENOUGH)
            assert message is not None, f"not shipped: {sold - shipped}"
            shipped.add(message.data.id)
            message.ack()

        tables = Store(str(tables_file))
        assert sorted(set(codes)) == [201, 409]
        assert tables.sales() == STOCK
        assert [tables.pieces(item) for item in STOCK] == [0, 0, 0]
        assert len(sold) == sum(STOCK.values()) and tables.unshipped() == []
