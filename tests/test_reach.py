"""What an operator sees of a connection and of leases: events, lines of the log with fields, and health as a value."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import narrowboat
from narrowboat import aio, events
from narrowboat.clock import ManualClock
from narrowboat.errors import AccessDenied, NarrowboatError, Unavailable
from narrowboat.layers.faults import Faults

#: How each half asks its backend, and the operation by which it does.
HALVES: dict[str, tuple[Callable[..., Any], str]] = {
    "locks": (lambda face: face.ping(), "ping"),
    "broker": (lambda face: face.queue("orders").publish(b"kettle"), "send"),
}


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


class Log(logging.Handler):
    """The records of the logger `narrowboat`."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def lines(self) -> list[tuple[str, str]]:
        return [(record.levelname, record.getMessage()) for record in self.records]


@pytest.fixture
def log() -> Iterator[Log]:
    handler, logger = Log(), logging.getLogger("narrowboat")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


class Outage:
    """One half on one face, on a clock of the test's own, and how to make calls that have no answer."""

    def __init__(self, face: str, half: str, url: str) -> None:
        self.face, self.half, self.url = face, half, url
        self.clock, self.faults = ManualClock(), Faults()
        self.heard: list[Any] = []

    def run(self, *calls: NarrowboatError | float | None) -> list[str]:
        """Make calls that meet these errors, or None of them; a number moves the clock. The state after each."""
        return asyncio.run(self._run(calls))

    async def _run(self, calls: tuple[NarrowboatError | float | None, ...]) -> list[str]:
        module = aio if self.face == "asyncio" else narrowboat
        made = getattr(module, self.half)(
            self.url, clock=self.clock, wrap=self.faults.wrap, listeners=[self.heard.append], random=lambda: 0.5
        )
        ask, operation = HALVES[self.half]
        self.states = [made.health().state]
        for call in calls:
            if isinstance(call, float):
                self.clock.advance(call)
                continue
            if call is not None:
                self.faults.fail(operation, call)
            try:
                result = ask(made)
                if asyncio.iscoroutine(result):
                    await result
                assert call is None
            except NarrowboatError as error:
                if call is None or call not in (error, error.__cause__):
                    raise
            self.states.append(made.health().state)
        self.last = made.health()
        closing = made.close()
        if asyncio.iscoroutine(closing):
            await closing
        return self.states

    @property
    def changes(self) -> list[Any]:
        kinds = events.ConnectionLost | events.ConnectionRegained | events.ConnectionClosed
        return [event for event in self.heard if isinstance(event, kinds)]


@pytest.fixture(params=[(face, half) for face in ("sync", "asyncio") for half in HALVES], ids="-".join)
def outage(request: pytest.FixtureRequest, url: str) -> Outage:
    face, half = request.param
    return Outage(face, half, url)


def down() -> Unavailable:
    return Unavailable("no route to it", backend="memory")


def test_an_outage_is_told_once_and_so_is_its_end(outage: Outage, log: Log) -> None:
    """One event and one line at its beginning, one of each when it is over, however many calls fail meanwhile."""
    errors = [down(), down(), down(), down()]

    states = outage.run(None, errors[0], 2.0, errors[1], 5.0, errors[2], errors[3], 5.0, None, None)

    assert states == ["new", "connected", "connected", "lost", "lost", "lost", "connected", "connected"]
    assert outage.changes == [
        events.ConnectionLost("memory", outage.url, errors[1]),
        events.ConnectionRegained("memory", outage.url, 12.0),
    ]
    whose = {"locks": "the locks'", "broker": "the broker's"}[outage.half]
    assert log.lines == [
        ("WARNING", f"{whose} connection to {outage.url} is lost, retrying: no route to it"),
        ("INFO", f"{whose} connection to {outage.url} is back after 12.0 s"),
    ]


def test_the_lines_have_fields_for_programs(outage: Outage, log: Log) -> None:
    """What happened, where, and for how long, as attributes of the record."""
    outage.run(down(), down(), 3.0, None)

    fields = [{name: value for name, value in vars(each).items() if name.startswith("narrowboat_")} for each in log.records]
    where = {"narrowboat_backend": "memory", "narrowboat_half": outage.half, "narrowboat_url": outage.url}
    assert fields == [
        {"narrowboat_event": "connection_lost", **where},
        {"narrowboat_event": "connection_regained", "narrowboat_away": 3.0, **where},
    ]


def test_a_close_ends_an_outage_for_listeners(outage: Outage, log: Log) -> None:
    """Once, and with no line: who counts lost connections has one less, and nobody is told that it is back."""
    errors = [down(), down()]
    outage.run(None, errors[0], 2.0, errors[1], 5.0)

    assert outage.changes == [
        events.ConnectionLost("memory", outage.url, errors[1]),
        events.ConnectionClosed("memory", outage.url, 7.0),
    ]
    assert len(log.lines) == 1 and outage.last.state == "lost"


def test_one_lost_reply_is_no_outage(outage: Outage, log: Log) -> None:
    """A single call without an answer changes no state, and neither do any number of them with answers in between."""
    states = outage.run(down(), None, down(), None, down())

    assert set(states[2:]) == {"connected"}
    assert outage.changes == [] and log.lines == []


def test_a_refusal_is_no_outage(outage: Outage, log: Log) -> None:
    """A backend that refuses this user answers."""
    denied = AccessDenied("not for you", backend="memory")
    outage.run(denied, denied, denied)

    assert outage.last.state == "new" and outage.changes == [] and log.lines == []


def test_health_says_since_when_and_what_was_met(outage: Outage) -> None:
    """As values of one moment: the URL, the state, its beginning, and the last error, which stays."""
    outage.run(None, down(), down())

    health = outage.last
    assert (health.url, health.backend, health.connected) == (outage.url, "memory", False)
    assert health.error == "Unavailable: no route to it" and health.since is not None


def test_a_secret_of_the_url_is_in_no_line_and_no_event(log: Log) -> None:
    """Neither in the log nor in the event nor in the health."""
    heard: list[Any] = []
    locks = narrowboat.locks("redis://shop:hunter2@127.0.0.1:1/0?timeout=0.3", listeners=[heard.append])
    for _ in range(2):
        with pytest.raises(Unavailable):
            locks.ping()

    assert [type(event) for event in heard] == [events.ConnectionLost]
    assert "hunter2" not in repr((heard, log.lines, locks.health(), [vars(record) for record in log.records]))
    locks.close()


def test_a_consumer_that_waits_notices_an_outage_and_its_end(url: str, log: Log) -> None:
    """It polls although nobody calls it again, so the news comes from there."""
    faults, heard = Faults(), list[Any]()
    with narrowboat.broker(url, wrap=faults.wrap, listeners=[heard.append]) as broker:
        queue = broker.queue("orders")
        with queue.consume() as messages:
            for _ in range(3):
                faults.fail("receive", down())
            queue.publish(b"kettle")
            message = messages.receive(timeout=60)
            assert message is not None
            message.ack()

    kinds = [type(each) for each in heard if isinstance(each, events.ConnectionLost | events.ConnectionRegained)]
    assert kinds == [events.ConnectionLost, events.ConnectionRegained]
    assert [level for level, _ in log.lines] == ["WARNING", "INFO"]


def test_a_consumer_that_ends_during_an_outage_is_no_answer(url: str) -> None:
    """To close a feed may ask the backend nothing, so its return is no news of it."""
    faults, heard = Faults(), list[Any]()
    with narrowboat.broker(url, wrap=faults.wrap, listeners=[heard.append]) as broker:
        with broker.queue("orders").consume():
            faults.fail("ping", down(), times=2)
            for _ in range(2):
                with pytest.raises(Unavailable):
                    broker.ping()
        assert broker.health().state == "lost"
        assert [type(each) for each in heard] == [events.ConnectionLost]
        broker.ping()
        assert broker.health().connected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_knows_nothing_of_its_parents_connection(url: str) -> None:
    """It will make its own."""
    with narrowboat.locks(url) as locks:
        locks.ping()
        assert locks.health().connected
        child = os.fork()
        if child == 0:
            os._exit(0 if locks.health().state == "new" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- leases -------------------------------------------------------------------------------------------------------


def test_a_released_lock_is_told_with_how_long_it_was_held(url: str) -> None:
    """Seconds by the holder's clock."""
    heard, clock = list[Any](), ManualClock()
    with narrowboat.locks(url, clock=clock, listeners=[heard.append]) as locks, locks.lock("invoice:42", ttl=30):
        clock.advance(2.5)

    assert [event.held for event in heard if isinstance(event, events.Released)] == [2.5]


def test_a_lost_lock_is_told_once_as_a_warning(url: str, log: Log) -> None:
    """With its reason and its token as fields; a lock that close() gives up is this program's own doing."""
    heard, clock = list[Any](), ManualClock()
    with narrowboat.locks(url, clock=clock, listeners=[heard.append]) as locks:
        held = locks.lock("invoice:42", ttl=30, renew=False).acquire()
        clock.advance(31)
        assert held.lost
        closed = locks.lock("closed", ttl=30).acquire()

    assert closed.lost
    (record,) = log.records
    assert (record.levelname, record.getMessage()) == (
        "WARNING",
        f"lock 'invoice:42' (token {held.token}) is lost: {held.reason and held.reason.value}",
    )
    assert vars(record)["narrowboat_event"] == "lock_lost" and vars(record)["narrowboat_lock"] == "invoice:42"
    lost = [event for event in heard if isinstance(event, events.Lost)]
    assert [(event.name, event.held) for event in lost] == [("invoice:42", 31.0), ("closed", 0.0)]
