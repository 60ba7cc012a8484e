"""RabbitMQ: whatever answers at its address, a call ends in time, with an error that is typed, and takes no memory to speak of.

Each case is a server of its own that greets as the protocol says, or does not, and then sends what no server sends. All run
beside each other: most of their time is waiting.
"""

from __future__ import annotations

import contextlib
import os
import resource
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from pika import spec

import narrowboat
from bounds import upper
from integration.amqp_fields import deep, table, value
from integration.amqp_impostor import Impostor, Line, framed, greet, method, pushed, read, serve, start
from narrowboat.dsn import Url
from narrowboat.errors import NarrowboatError, Unavailable
from narrowboat_rabbitmq.connection.link import Link
from narrowboat_rabbitmq.connection.loop import Loop
from narrowboat_rabbitmq.driver import RabbitBroker  # pika is imported before anything is measured
from narrowboat_rabbitmq.errors import Operation
from narrowboat_rabbitmq.options import Options, endpoint

#: Seconds of one call, and what may come on top on a busy machine.
TIMEOUT, SLACK = 1.0, 6.0
LIMIT = 200 * 1024 * 1024
CHUNK = b"\0" * 65536


def forever(line: Line, data: bytes, pause: float = 0.0) -> None:
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        line.sendall(data)
        if pause:
            time.sleep(pause)


def chunks(line: Line) -> None:
    forever(line, CHUNK)


def in_turn(*acts: Callable[[Line], object]) -> Callable[[Line], None]:
    """A server that does one after another."""

    def act(line: Line) -> None:
        for each in acts:
            each(line)

    return act


def flood(line: Line, channel: int) -> None:
    for number in range(1, 5_000):  # the limit is a thousand more than were asked for
        line.sendall(pushed(channel, number))


def in_pieces(line: Line, data: bytes) -> None:
    """So slowly that it would take for ever, yet never silent."""
    for each in range(len(data)):
        line.sendall(data[each : each + 1])
        time.sleep(0.05)


def unknown_method(line: Line, channel: int = 0) -> None:
    line.sendall(framed(1, channel, struct.pack(">HH", 99, 99)))


def hello(then: Callable[[Line], object]) -> Callable[[Line], None]:
    """A server that greets and then does `then`."""

    def act(line: Line) -> None:
        greet(line)
        then(line)

    return act


def consumed(then: Callable[[Line, int], object]) -> Callable[[Line], None]:
    """A server that works until somebody consumes and then does `then`."""
    return lambda line: serve(line, lambda line, channel: (then(line, channel), None)[1])


_TUNE = spec.Connection.Tune(channel_max=0, frame_max=1, heartbeat=0)
CASES: dict[str, Callable[[Line], object]] = {
    "hangs up": lambda line: None,
    "says nothing": lambda line: time.sleep(2 * TIMEOUT),
    "garbage": lambda line: forever(line, os.urandom(4096), 0.01),
    "zeros for ever": chunks,
    "HTTP": lambda line: line.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "another protocol's version": lambda line: line.sendall(b"AMQP\x00\x01\x00\x00"),
    "a frame of 4 GB": in_turn(lambda line: line.sendall(struct.pack(">BHL", 1, 0, 2**32 - 1)), chunks),
    "a frame of 1 MB that does not end": in_turn(lambda line: line.sendall(struct.pack(">BHL", 1, 0, 2**20)), chunks),
    "a greeting in pieces": lambda line: in_pieces(line, start()),
    "a greeting with deep properties": lambda line: line.sendall(start(table([(b"a", deep("A", 100_000))]))),
    "a greeting with a table that lies": lambda line: line.sendall(start(b"\x01aS\xff\xff\xff\xff")),
    "a greeting with a time that is none": lambda line: line.sendall(start(table([(b"a", b"T" + b"\xff" * 8)]))),
    "a version that is none": in_turn(
        lambda line: line.sendall(start(table([(b"version", value("S", b"\xff"))]))), lambda line: time.sleep(3)
    ),
    "tunes to nothing": lambda line: greet(line, _TUNE),
    "an unknown method": hello(unknown_method),
    "half a frame": hello(lambda line: line.sendall(method(1, spec.Channel.OpenOk())[:-3])),
    "a frame with a wrong end": hello(lambda line: line.sendall(method(1, spec.Channel.OpenOk())[:-1] + b"\0")),
    "an answer on a channel that nobody opened": hello(lambda line: line.sendall(method(77, spec.Queue.DeclareOk("q", 1, 1)))),
    "a body without a message": hello(in_turn(read, lambda line: line.sendall(framed(3, 1, b"x")))),
    "closes with bytes that are no text": hello(
        lambda line: line.sendall(framed(1, 0, struct.pack(">HHH", 10, 50, 320) + b"\x02\xff\xfe" + b"\0" * 4))
    ),
    "a message of 2^62 bytes": consumed(lambda line, channel: line.sendall(pushed(channel, 1, size=2**62))),
    "more messages than were asked for": consumed(flood),
    "a body that is longer than it said": consumed(
        lambda line, channel: line.sendall(pushed(channel, 1, size=3) + framed(3, channel, b"x" * 100))
    ),
    "properties cut off": consumed(
        lambda line, channel: line.sendall(pushed(channel, 1)[:-9].replace(struct.pack(">HHQH", 60, 0, 1, 0), b"\x00\x3c"))
    ),
    "an unknown method to a consumer": consumed(unknown_method),
}


def use(case: str) -> list[str]:
    """Make three calls to that impostor; what was wrong with how they ended."""
    impostor = Impostor(CASES[case])
    wrong = []
    broker = narrowboat.broker(f"amqp://127.0.0.1:{impostor.port}?timeout={TIMEOUT:g}")
    queue = broker.queue("q")

    def consume() -> None:
        with queue.consume() as messages:
            messages.receive(TIMEOUT)

    for name, call, allowed in (("ping", broker.ping, 1), ("publish", lambda: queue.publish(b"x"), 1), ("consume", consume, 4)):
        begun = time.monotonic()
        try:
            call()
        except NarrowboatError:
            pass
        except BaseException as error:
            wrong.append(f"{name}: {error!r}")
        took = time.monotonic() - begun
        if took > upper(allowed * TIMEOUT + SLACK):
            wrong.append(f"{name}: took {took:.1f} s")
    begun = time.monotonic()
    broker.close()
    if time.monotonic() - begun > upper(TIMEOUT + SLACK):
        wrong.append(f"close: took {time.monotonic() - begun:.1f} s")
    impostor.close()
    return wrong


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, Future[list[str]]]]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ThreadPoolExecutor(len(CASES)) as pool:
        yield {case: pool.submit(use, case) for case in CASES}
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < LIMIT, f"it took {(after - before) / 1024:.0f} MB"


@pytest.mark.parametrize("case", CASES)
def test_each_call_ends_in_time_with_an_error_that_is_typed(case: str, outcomes: dict[str, Future[list[str]]]) -> None:
    assert not outcomes[case].result(90)


# -- a server that falls silent ---------------------------------------------------------------------------------------

#: Long beside what a busy machine adds: what waits for it twice is seen to.
PATIENCE = 3.0


class Mute(Impostor):
    """A server that works until it is told to say nothing more."""

    def __init__(self) -> None:
        self.silent = threading.Event()
        super().__init__(lambda line: serve(line, lambda line, channel: None, self.silent))


@pytest.fixture
def mute() -> Iterator[Mute]:
    made = Mute()
    yield made
    made.close()


@pytest.mark.parametrize("consumers", [0, 1, 3])
def test_a_server_that_fell_silent_is_waited_for_once_when_a_broker_is_closed(mute: Mute, consumers: int) -> None:
    """Its consumers wait in vain, and its connections do not wait again."""
    broker = narrowboat.broker(f"amqp://127.0.0.1:{mute.port}?timeout={PATIENCE:g}&heartbeat=60")
    broker.queue("p", lease=180).publish(b"x")
    left = [broker.queue(f"q{number}", lease=180).consume() for number in range(consumers)]
    mute.silent.set()
    begun = time.monotonic()
    broker.close()
    assert time.monotonic() - begun < upper(1.5 * PATIENCE)
    assert len(left) == consumers


def test_a_server_that_was_silent_just_now_is_not_waited_for_again(mute: Mute) -> None:
    broker = narrowboat.broker(f"amqp://127.0.0.1:{mute.port}?timeout={PATIENCE:g}&heartbeat=60")
    broker.queue("p", lease=180).publish(b"x")
    mute.silent.set()
    with pytest.raises(narrowboat.PublishUnknown):
        broker.queue("p", lease=180).publish(b"y")
    begun = time.monotonic()
    broker.close()
    assert time.monotonic() - begun < upper(0.5 * PATIENCE)


def test_what_was_not_published_is_said_to_be_so_and_only_so(caplog: pytest.LogCaptureFixture) -> None:
    """No "may or may not" where nothing was sent; and the end of a connection that never was leaves no traceback."""
    impostor = Impostor(lambda line: time.sleep(3))
    broker = narrowboat.broker(f"amqp://127.0.0.1:{impostor.port}?timeout=1")
    with pytest.raises(narrowboat.PublishFailed, match="was not sent") as caught:
        broker.queue("q").publish(b"x")
    assert "may or may not" not in str(caught.value)
    assert isinstance(caught.value.__cause__, Unavailable)
    assert not caught.value.__cause__.sent
    broker.close()
    impostor.close()
    assert not [record for record in caplog.records if record.name.startswith("narrowboat")]


@pytest.mark.parametrize("by_itself", [False, True])
def test_closing_while_the_connection_is_made_is_no_error(by_itself: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The client ends a connection that takes too long to be made; `close` may come just then, or before."""
    greeted = threading.Event()
    impostor = Impostor(in_turn(lambda _: greeted.set(), lambda _: time.sleep(3)))
    options = Options()
    loop = Loop("test-io", 60.0, time.monotonic)
    link = Link(endpoint(Url.parse(f"amqp://127.0.0.1:{impostor.port}"), options), options, loop, 3.0, "test")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(link.ready, Operation("asking", time.monotonic() + 3))
        assert greeted.wait(10)
        if by_itself:
            loop.post(link._connecting.close)
        done = link.begin_close()
        assert done.wait(10), "it was not told that the connection has ended"
        with pytest.raises(narrowboat.Closed):
            asked.result(10)
    turned = threading.Event()  # the loop has done what was left of the connection
    loop.post(lambda: loop.later(0.05, turned.set))
    assert turned.wait(10)
    loop.close(5.0)
    impostor.close()
    assert not [record for record in caplog.records if record.name.startswith("narrowboat") or record.exc_info]


# -- a machine that has nothing left ----------------------------------------------------------------------------------


def test_no_file_descriptor_is_unavailable_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(RabbitBroker, type)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    broker = narrowboat.broker("amqp://127.0.0.1:1?timeout=1")
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(Unavailable, match="file descriptors"):
            broker.ping()
        with pytest.raises(narrowboat.PublishFailed):
            broker.queue("q").publish(b"x")
    finally:
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with pytest.raises(Unavailable, match="refused"):
        broker.ping()
    broker.close()


def test_no_thread_is_unavailable_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop("test-io", 60.0, time.monotonic)
    done = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _no_thread)
        with pytest.raises(Unavailable, match="thread"):
            loop.post(done.set)
    loop.post(done.set)
    assert done.wait(10)
    loop.close(5)


def _no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_an_error_on_the_thread_is_told_and_the_thread_goes_on() -> None:
    loop, done = Loop("test-io", 60.0, time.monotonic), threading.Event()
    told: list[str] = []
    nothing: dict[int, None] = {}

    def fail(error: Exception) -> None:
        told.append(repr(error))
        raise ValueError("while telling")

    loop.failed.append(fail)
    loop.post(lambda: nothing[0])
    loop.post(done.set)
    assert done.wait(10)
    assert told == ["KeyError(0)"]
    loop.close(5)
