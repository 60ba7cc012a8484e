"""A server of AMQP for tests that need no real one, because it does what none does: one thread for each connection.

It greets, and answers calls as a server does until a consumer is there. It keeps no messages.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable

from pika import frame, spec

from integration.amqp_fields import table, value

Line = socket.socket
#: Without this, pika asks for no confirms.
CAPABLE = table([(b"capabilities", value("F", table([(b"publisher_confirms", b"t\1"), (b"basic.nack", b"t\1")])))])


def method(channel: int, made: object) -> bytes:
    return bytes(frame.Method(channel, made).marshal())


def framed(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHL", kind, channel, len(payload)) + payload + b"\xce"


def start(properties: bytes = b"") -> bytes:
    """Connection.Start with these server properties."""
    text = struct.pack(">I", 5) + b"PLAIN" + struct.pack(">I", 5) + b"en_US"
    return framed(1, 0, struct.pack(">HHBB", 10, 10, 0, 9) + struct.pack(">I", len(properties)) + properties + text)


def read(line: Line) -> tuple[int, bytes]:
    """One frame of the client's: its channel, and its payload."""
    head = b""
    while len(head) < 7:
        head += _some(line, 7 - len(head))
    _, channel, size = struct.unpack(">BHL", head)
    payload = b""
    while len(payload) < size + 1:
        payload += _some(line, size + 1 - len(payload))
    return channel, payload[:-1]


def _some(line: Line, size: int) -> bytes:
    data = line.recv(size)
    if not data:
        raise OSError("closed")
    return data


def greet(line: Line, tune: object | None = None) -> None:
    """Take the client in, as a server does."""
    line.sendall(start(CAPABLE))
    read(line)
    line.sendall(method(0, tune or spec.Connection.Tune(channel_max=100, frame_max=131072, heartbeat=60)))
    read(line)  # tune-ok
    read(line)  # open
    line.sendall(method(0, spec.Connection.OpenOk()))


def serve(line: Line, then: Callable[[Line, int], None], silent: threading.Event | None = None) -> None:
    """Answer what is asked as a server does, until a consumer is there; then do `then`. Once `silent` is set, say nothing."""
    greet(line)
    published = 0
    answers = {
        spec.Channel.Open.INDEX: spec.Channel.OpenOk(),
        spec.Confirm.Select.INDEX: spec.Confirm.SelectOk(),
        spec.Exchange.Declare.INDEX: spec.Exchange.DeclareOk(),
        spec.Exchange.Bind.INDEX: spec.Exchange.BindOk(),
        spec.Queue.Bind.INDEX: spec.Queue.BindOk(),
        spec.Basic.Qos.INDEX: spec.Basic.QosOk(),
        spec.Basic.Consume.INDEX: spec.Basic.ConsumeOk(consumer_tag="nb0"),
    }
    while True:
        channel, payload = read(line)
        if silent is not None and silent.is_set():
            continue
        index = int.from_bytes(payload[:4])  # nothing in a heartbeat
        if index == spec.Queue.Declare.INDEX:  # pika takes an answer for the queue that it named, and for no other
            name = payload[7 : 7 + payload[6]].decode()
            line.sendall(method(channel, spec.Queue.DeclareOk(queue=name, message_count=1, consumer_count=0)))
        if index == spec.Basic.Publish.INDEX:
            published += 1
            read(line)
            read(line)
            line.sendall(method(channel, spec.Basic.Ack(published)))
        if index in answers:
            line.sendall(method(channel, answers[index]))
        if index == spec.Basic.Consume.INDEX:
            then(line, channel)


def pushed(channel: int, number: int, *, size: int = 1) -> bytes:
    """The frames of one message, or the beginning of a larger one."""
    deliver = spec.Basic.Deliver(consumer_tag="nb0", delivery_tag=number, redelivered=False, exchange="", routing_key="q")
    head = framed(2, channel, struct.pack(">HHQH", 60, 0, size, 0))
    return method(channel, deliver) + head + framed(3, channel, b"x")


class Impostor:
    """A server that does `act` with each who comes."""

    def __init__(self, act: Callable[[Line], object]) -> None:
        self._act = act
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _run(self) -> None:
        while True:
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line: Line) -> None:
        with line, contextlib.suppress(OSError):
            line.settimeout(10)
            line.recv(8)
            self._act(line)
            time.sleep(0.2)
