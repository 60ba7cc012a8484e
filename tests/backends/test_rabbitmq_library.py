"""RabbitMQ: each name that pika does not promise is there, and does what it is used for. A release that drops one fails here.

Against an impostor, on the loop that the driver uses.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest
from hypothesis import given
from pika import exceptions, frame, spec

from integration.amqp_fields import TABLES
from integration.amqp_impostor import Impostor, Line, method, pushed, serve
from narrowboat_rabbitmq import library
from narrowboat_rabbitmq.connection.loop import Answer, Loop
from narrowboat_rabbitmq.library import LARGEST_FRAME, LARGEST_MESSAGE, UNPROMISED, Connection
from narrowboat_rabbitmq.protocol.content import Content
from narrowboat_rabbitmq.protocol.table import split


class Opened:
    """A connection and a channel of pika's on an I/O thread of ours, with an impostor at the other end."""

    def __init__(self, loop: Loop, port: int) -> None:
        self.loop = loop
        self.ended: Answer[BaseException] = Answer()
        opened: Answer[Any] = Answer()
        parameters = pika.ConnectionParameters("127.0.0.1", port)

        def connect() -> None:
            Connection(
                parameters,
                on_open_callback=lambda connection: connection.channel(on_open_callback=opened.give),
                on_close_callback=lambda _, error: self.ended.give(error),
                custom_ioloop=loop.raw,
            )

        loop.post(connect)
        assert opened.wait(20)
        assert opened.value is not None
        self.channel = opened.value
        self.connection = self.channel.connection

    def do(self, work: Callable[[], object]) -> Any:
        """Run it on the thread."""
        answer: Answer[Any] = Answer()
        self.loop.post(lambda: answer.give(work()))
        assert answer.wait(20)
        return answer.value


@pytest.fixture
def silent() -> threading.Event:
    """Once it is set, the impostor says nothing more."""
    return threading.Event()


@pytest.fixture
def opened(silent: threading.Event) -> Iterator[Opened]:
    impostor = Impostor(lambda line: serve(line, _push_later, silent))
    loop = Loop("test-io", 60.0, time.monotonic)
    made = Opened(loop, impostor.port)
    yield made
    made.do(lambda: library.terminate(made.connection, ConnectionError("the end")))
    assert made.ended.wait(20)
    loop.close(20)
    impostor.close()


def _push_later(line: Line, channel: int) -> None:
    """A message that is on its way while its consumer is cancelled."""
    for _ in range(2):
        time.sleep(0.1)
        line.sendall(pushed(channel, 1))


@pytest.mark.parametrize("name", UNPROMISED)
def test_it_is_there(name: str, opened: Opened) -> None:
    whose, _, attribute = name.partition(".")
    connection, channel = opened.connection, opened.channel
    owners = {"connection": connection, "channel": channel, "transport": connection._stream, "frame": frame, "spec": spec}
    owner = owners[whose]
    assert hasattr(owner, attribute), f"pika {pika.__version__} has no {name}: {UNPROMISED[name]}"


class Socket:
    """The connection's own, which takes at most `room` bytes at a time, and notes what it was given."""

    def __init__(self, connection: Any, room: int) -> None:
        self._socket = connection._socket
        self._room = room
        self.writes: list[bytes] = []

    def send(self, data: bytes) -> int:
        self.writes.append(data)
        if not self._room:
            raise BlockingIOError
        sent: int = self._socket.send(data[: self._room])
        return sent


def publish(opened: Opened, *bodies: bytes) -> None:
    """In one turn of the loop; what the impostor answers has come when this returns."""
    confirmed: Answer[object] = Answer()
    seen = []

    def answered(frame: Any) -> None:
        seen.append(frame.method.delivery_tag)
        if len(seen) == len(bodies):
            confirmed.give(None)

    selected: Answer[object] = Answer()
    opened.do(lambda: opened.channel.confirm_delivery(answered, callback=selected.give))
    assert selected.wait(20)

    def work() -> None:
        for body in bodies:
            opened.connection.publish(1, "", "q", body, Content(message_id="m"), False)

    opened.do(work)
    assert confirmed.wait(20)


@pytest.mark.parametrize("room", [10**6, 50, 0])
def test_what_a_turn_sends_is_written_at_once_and_counted_as_its_frames(opened: Opened, room: int) -> None:
    """Also where the socket takes a part of it, or nothing: the impostor has the whole."""
    socket = opened.connection._socket = Socket(opened.connection, room)
    before = opened.do(lambda: opened.connection.frames_sent)
    publish(opened, b"one", b"two")
    (*_, last) = socket.writes
    assert b"one" in last
    assert b"two" in last
    assert len(socket.writes) == 2  # confirm.select, and that
    assert opened.do(lambda: opened.connection.frames_sent) == before + 1 + 6


def test_what_is_large_is_written_in_parts() -> None:
    """What a socket does not take at once is copied: never all of it again and again."""
    frames = [b"a" * 50_000, b"b" * 50_000, b"c" * 200_000, b"d"]
    assert list(library._joined(frames)) == [frames[0] + frames[1], frames[2], frames[3]]


def test_nothing_is_sent_once_a_connection_is_ended(opened: Opened) -> None:
    """Neither what the turn had gathered, nor what comes while pika takes its leave."""
    socket = opened.connection._socket = Socket(opened.connection, 10**6)

    def work() -> None:
        opened.connection.publish(1, "", "q", b"before", Content(), False)
        library.terminate(opened.connection, ConnectionError("over"))
        opened.connection.publish(1, "", "q", b"after", Content(), False)

    opened.do(work)
    assert opened.ended.wait(20)
    assert socket.writes == []


class Inlet:
    """The connection's own socket, which notes how much was asked of it at a time."""

    def __init__(self, connection: Any) -> None:
        self._socket = connection._stream._sock
        self.asked: list[int] = []

    def recv(self, most: int) -> bytes:
        self.asked.append(most)
        data: bytes = self._socket.recv(most)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def test_what_is_large_is_read_in_few_turns() -> None:
    """pika asks for 4 KiB at a time: in turns of one read each, a large message would take a turn for every 4 KiB."""
    size, came = 200_000, Answer[bytes]()

    def push(line: Line, channel: int) -> None:
        head = pushed(channel, 1, size=size)[: -len(framed(spec.FRAME_BODY, b"x"))]
        parts = [framed(spec.FRAME_BODY, b"x" * part) for part in (100_000, 100_000)]
        line.sendall(head + b"".join(parts))

    impostor = Impostor(lambda line: serve(line, push, threading.Event()))
    loop = Loop("test-io", 60.0, time.monotonic)
    opened = Opened(loop, impostor.port)
    inlet = opened.connection._stream._sock = Inlet(opened.connection)
    opened.do(lambda: opened.channel.basic_consume("q", lambda *parts: came.give(parts[3]), consumer_tag="nb0"))
    assert came.wait(20)
    assert came.value == b"x" * size
    assert set(inlet.asked) == {16 * 1024}
    opened.do(lambda: library.terminate(opened.connection, ConnectionError("the end")))
    assert opened.ended.wait(20)
    loop.close(20)
    impostor.close()


def test_what_came_is_counted(opened: Opened) -> None:
    before = library.received(opened.connection)
    answer: Answer[object] = Answer()
    opened.do(lambda: opened.channel.queue_declare("q", passive=True, callback=answer.give))
    assert answer.wait(20)
    assert library.received(opened.connection) > before > 0


@pytest.mark.parametrize("closing", [False, True])
def test_a_connection_is_ended_without_its_server(opened: Opened, silent: threading.Event, *, closing: bool) -> None:
    """Also where close() was called and waits for an answer."""
    silent.set()
    if closing:
        opened.do(opened.connection.close)
    opened.do(lambda: library.terminate(opened.connection, ConnectionError("it is dead")))
    assert opened.ended.wait(20)
    assert "it is dead" in str(opened.ended.value)


def test_a_consumer_is_cancelled_and_what_was_on_its_way_comes(opened: Opened) -> None:
    """pika's own basic_cancel() would reject it, and the server count that."""
    came: Answer[bytes] = Answer()
    sent: list[object] = []
    send = opened.channel._send_method
    consuming: Answer[object] = Answer()

    def noted(made: object, *rest: object) -> None:
        sent.append(made)
        send(made, *rest)

    opened.channel._send_method = noted
    opened.do(
        lambda: opened.channel.basic_consume(
            "q", lambda *parts: came.give(parts[3]), consumer_tag="nb0", callback=consuming.give
        )
    )
    assert consuming.wait(20)
    opened.do(lambda: library.cancel(opened.channel, "nb0"))
    assert came.wait(20)
    assert came.value == b"x"
    assert [type(each) for each in sent if type(each) is not spec.Basic.Consume] == [spec.Basic.Cancel]


@pytest.mark.parametrize("ours", [False, True])
def test_a_channel_that_the_server_closes_warns_unless_it_is_ours(
    ours: bool, silent: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    close = method(1, spec.Channel.Close(404, "NOT_FOUND", 50, 10))
    impostor = Impostor(lambda line: serve(line, lambda line, channel: line.sendall(close), silent))
    loop = Loop("test-io", 60.0, time.monotonic)
    opened = Opened(loop, impostor.port)
    if ours:
        library.silence(opened.channel)
    closed: Answer[object] = Answer()
    opened.do(lambda: opened.channel.add_on_close_callback(lambda *_: closed.give(None)))
    with caplog.at_level(logging.WARNING, "pika.channel"):
        opened.do(lambda: opened.channel.basic_consume("q", lambda *_: None))
        assert closed.wait(20)
    opened.do(lambda: library.terminate(opened.connection, ConnectionError("the end")))
    assert opened.ended.wait(20)
    loop.close(20)
    impostor.close()
    warned = any("Channel.Close" in record.getMessage() for record in caplog.records if record.name == "pika.channel")
    assert warned is not ours


# -- frames -----------------------------------------------------------------------------------------------------------


class Reader(Connection):
    """A connection that is only read from."""

    def __init__(self, data: bytes) -> None:
        self._frame_buffer = data

    def read(self) -> Any:
        return self._read_frame()


def framed(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHL", kind, 1, len(payload)) + payload + b"\xce"


@given(TABLES)
def test_a_frame_of_headers_is_not_looked_into(data: bytes) -> None:
    content = Content(headers=split(data)).encode()
    whole = framed(spec.FRAME_HEADER, struct.pack(">HHQ", 60, 0, 5) + content)
    size, header = Reader(whole + b"next").read()
    assert (size, header.body_size, header.properties, header.channel_number) == (len(whole), 5, content, 1)
    assert Reader(whole[:-1]).read() == (0, None)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">BHL", 1, 0, LARGEST_FRAME + 1),
        b"HTTP/1.1 400 Bad Request\r\n",
        framed(spec.FRAME_HEADER, struct.pack(">HHQ", 60, 0, LARGEST_MESSAGE + 1)),
        framed(spec.FRAME_HEADER, struct.pack(">HHQ", 60, 0, 5))[:-1] + b"x",
    ],
)
def test_what_is_too_large_is_refused_before_it_is_waited_for(data: bytes) -> None:
    with pytest.raises(exceptions.InvalidFrameError):
        Reader(data).read()


def test_other_frames_are_pikas() -> None:
    whole = frame.Heartbeat().marshal()
    size, found = Reader(whole).read()
    assert size == len(whole)
    assert isinstance(found, frame.Heartbeat)
