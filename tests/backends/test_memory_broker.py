"""Messages in memory: the suite of all drivers, memory that stays flat, and interrupts at every line."""

import gc
import itertools
import sys

import pytest
from broker_suite import ORDERS, BrokerSuite, consume, ids, message, open_driver, send, settle, take
from narrowboat_memory import broker as backend

from narrowboat.clock import ManualClock
from narrowboat.contract import Ack, Context, Nack, Reject, Return
from narrowboat.dsn import Url, parse_options

_names = itertools.count(1)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def drivers(clock):
    name = f"test{next(_names)}"
    opened = []

    def open_one(options=""):
        opened.append(open_driver(backend, f"memory://{name}?{options}", clock))
        return opened[-1]

    yield open_one
    for broker in opened:
        broker.close()


class TestMemoryBroker(BrokerSuite):
    """The reference."""


def _objects():
    from narrowboat_memory.source import Entry

    gc.collect()
    return sum(isinstance(thing, Entry) for thing in gc.get_objects())


def test_memory_is_flat_under_endless_traffic(drivers, clock):
    """Settled messages leave nothing behind, though their leases, lives and windows end much later (B104)."""
    broker = drivers()
    feed = consume(broker, ORDERS, ordered=True)
    most = 0
    for round_ in range(100):
        broker.send([message(ORDERS, f"{round_}-{n}", ttl=3600.0, key=str(n)) for n in range(50)])
        settle(feed, Ack(), *take(feed))
        most = max(most, _objects()) if round_ % 10 == 9 else most
    for round_ in range(1000):
        send(broker, ORDERS, f"once-{round_}", dedup=True, ttl=1.0)
        clock.advance(1)
    assert take(feed) == []

    assert most < 400
    assert _objects() < 400


class _Struck(BaseException):
    """Stands for a KeyboardInterrupt."""


def _strike(line: int, call):
    """Run `call` and raise at the n-th line that runs in the driver. Whether it was reached."""
    left = [line]

    def trace(frame, event, _argument):
        if "narrowboat_memory" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                sys.settrace(None)
                raise _Struck
        return trace

    sys.settrace(trace)
    try:
        call()
    except _Struck:
        return True
    finally:
        sys.settrace(None)
    return False


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("what", ["send", "receive", "ack", "nack", "delay", "reject", "return", "close"])
def test_an_interrupt_at_any_line_loses_nothing(clock, what, ordered):
    """The driver stays usable, and each message is either settled as asked or still there, in order."""
    line = 0
    while True:
        line += 1
        url = Url.parse(f"memory://interrupt{next(_names)}")
        broker = backend.open(url, parse_options(url, backend.options, {}), Context(clock=clock, timeout=1.0))
        feed = consume(broker, ORDERS, ordered=ordered)
        send(broker, ORDERS, "one", "two", key="k")
        got = take(feed, 1) if what not in {"send", "receive"} else []
        outcomes = {"ack": Ack(), "nack": Nack(), "delay": Nack(5), "reject": Reject("no", 1), "return": Return()}
        calls = {
            "send": lambda: send(broker, ORDERS, "three", key="k"),
            "receive": lambda: take(feed),
            "close": feed.close,
        }
        reached = _strike(line, calls.get(what, lambda: settle(feed, outcomes[what], *got)))  # noqa: B023  # runs here

        clock.advance(60)
        other = consume(broker, ORDERS, ordered=ordered)
        seen = []
        while now := take(other):
            seen += ids(now)
            assert settle(other, Ack(), *now) == [None] * len(now)
        dead = ids(take(consume(broker, ORDERS.dead, max_deliveries=0)))
        assert seen in {
            "send": [["one", "two"], ["one", "two", "three"]],
            "ack": [["one", "two"], ["two"]],
            "reject": [["one", "two"], ["two"]],
            "delay": [["one", "two"], ["two", "one"]],
        }.get(what, [["one", "two"]]), line
        if what == "reject":
            assert "one" in seen + dead
        assert dead in ([], ["one"])
        broker.close()
        if not reached:
            break
    assert line > 10
