"""Who settles what of a batch that a member of a share group has: by one thread for all, without a server."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest

import narrowboat
from narrowboat.capabilities import LeaseNature, Support
from narrowboat.errors import ConfigurationError, Unsupported
from narrowboat_kafka.client import Code, KafkaError
from narrowboat_kafka.confluent import client
from narrowboat_kafka.format.stored import Stored
from narrowboat_kafka.share.reader import Reader
from narrowboat_kafka.share.readers import Readers
from narrowboat_kafka.share.seam import Verdict

SHARE = "kafka+confluent://localhost:1?groups=share"


class Sharer:
    """A member that is given one batch, and does with each request what the test says."""

    def __init__(self, count: int) -> None:
        self.batch = [(Stored("t", 0, offset, 0, None, b"x", b"\0"), 1) for offset in range(count)]
        self.told: list[int] = []
        self.cut_off = False  #: the next request but the one under way is interrupted
        self.asked, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def poll(self, seconds: float) -> list[tuple[Stored, int]]:
        found, self.batch = self.batch, []
        return found

    def settle(self, verdicts: Sequence[tuple[Stored, Verdict]], seconds: float) -> list[KafkaError | None]:
        if self.cut_off:
            raise KeyboardInterrupt
        self.asked.set()
        assert self.gate.wait(10)
        self.told += [record.offset for record, _ in verdicts]
        return [None] * len(verdicts)

    def close(self) -> None:
        pass


def _reader(count: int, lock: float = 20.0) -> tuple[Sharer, Reader]:
    sharer = Sharer(count)
    return sharer, Reader(sharer, "orders", count, lock, 5.0)


def test_the_first_settlement_wins_and_the_same_again_is_no_other() -> None:
    sharer, reader = _reader(1)
    (locked,) = reader.poll(0)
    free = [reader.free]
    assert reader.settle([(locked, Verdict.ACCEPT)]) == [True]
    assert [*free, reader.free] == [False, True]
    assert reader.settle([(locked, Verdict.ACCEPT), (locked, Verdict.RELEASE)]) == [True, False]
    assert sharer.told == [0]


class Heard(deque[Any]):
    """Says when something is put in."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Semaphore(0)

    def append(self, item: Any) -> None:
        super().append(item)
        self.came.release()


def test_an_interrupt_of_the_thread_that_settles_for_others_leaves_them_unsure() -> None:
    """They are told neither that it was done nor that it was not. What was being sent is let go of, and stale from then on."""
    sharer, reader = _reader(3)
    reader._waiting = waiting = Heard()
    found = reader.poll(0)
    outcomes: list[object] = []

    def settle(which: int) -> None:
        try:
            outcomes.extend(reader.settle([(found[which], Verdict.ACCEPT)]))
        except KeyboardInterrupt as error:
            outcomes.append(error)

    sharer.gate.clear()
    threads = [threading.Thread(target=settle, args=(which,)) for which in range(3)]
    threads[0].start()
    assert sharer.asked.wait(10)  # it is in the server's hands; whoever comes next settles for both that wait
    for thread in threads[1:]:
        thread.start()
    for _ in threads:
        assert waiting.came.acquire(timeout=10)
    sharer.cut_off = True
    sharer.gate.set()
    for thread in threads:
        thread.join(10)
    assert sorted(type(each).__name__ for each in outcomes) == ["KafkaError", "KeyboardInterrupt", "bool"]
    assert [each.code for each in outcomes if isinstance(each, KafkaError)] == [Code.TIMED_OUT_HERE]
    assert reader.free
    assert reader.settle([(found[0], Verdict.ACCEPT), (found[1], Verdict.ACCEPT)]) == [True, False]


class Late(Sharer):
    """What it has comes later than anybody waits for it."""

    def poll(self, seconds: float) -> list[tuple[Stored, int]]:
        over.wait(1.3 if self.batch else 0.05)
        return super().poll(seconds)


over = threading.Event()


def test_a_consumer_that_asks_seldom_gets_what_came_in_between() -> None:
    """Once it is known how seldom it asks, nothing is given back before it can have asked again."""
    readers = Readers(
        lambda size: Reader(Late(1), "orders", size, 20.0, 5.0),
        lambda: None,
        sift=list,
        give_back=len,
        identify=lambda: "id",
    )
    readers.begin(0.0)
    try:
        for _ in range(3):
            found = readers.take(1)
            if found:
                break
            over.wait(3.0)  # what it does meanwhile
        assert [each.record.offset for each in found] == [0]
    finally:
        readers.end(5.0)


def test_a_lock_that_is_over_frees_its_member_while_others_settle() -> None:
    """The server has given the message to others: the member is told to let go of it, and gets its next batch."""
    sharer, reader = _reader(2, lock=-10.0)
    found = reader.poll(0)
    assert not any(each.ours or each.held for each in found)
    assert reader.settle([(found[0], Verdict.ACCEPT)]) == [False]
    reader.let_go()
    assert reader.free
    assert sorted(sharer.told) == [0, 1]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("kafka://localhost?groups=share", r"kafka\+confluent://"),
        ("kafka+python://localhost?groups=share", "kafka-python has no share groups"),
        ("kafka+confluent://localhost?groups=shared", "groups"),
        ("kafka+confluent://localhost?groups=share&lock_min=0", "lock_min"),
        ("kafka+confluent://localhost?groups=share&lock_min=50&lock_max=52", "lock_max"),
    ],
)
def test_what_such_a_url_cannot_mean_is_refused(url: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        narrowboat.broker(url)


def test_its_claims_are_known_from_the_url() -> None:
    """The lease is a lock that nobody can renew, in the bounds that the URL says the server has."""
    claims = narrowboat.broker(f"{SHARE}&lock_min=5&lock_max=40").capabilities
    assert (claims.lease, claims.extension, claims.depth) == (LeaseNature.MESSAGE, Support.ABSENT, Support.ABSENT)
    assert (claims.lease_min, claims.lease_max, claims.lease_lag) == (2, 37, 5)
    with pytest.raises(Unsupported, match="topics"):
        narrowboat.broker(SHARE).topic("prices")


def test_a_library_without_share_groups_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is sent."""
    monkeypatch.setattr(client, "version", lambda: "2.14.2")
    with narrowboat.broker(SHARE) as broker, pytest.raises(ConfigurationError, match=r"2\.15\.0 or later.*pip install --up"):
        broker.queue("orders").declare()
