"""The only file that uses names which pika does not promise. Each is in `UNPROMISED` with its reason; a test tries each.

`Connection` writes and reads frames in its own way, and makes fewer system calls. What one turn of the loop has to send goes
out together when the turn ends, by the socket itself where that takes it. A frame that announces a message is not looked into
here: its properties go on as bytes, and are taken apart with the delivery, so that what another program wrote into them costs
that message and not the connection. What a frame or a message says of its own length is bounded before memory is taken for it.
Whatever else is wrong with a frame ends the connection, as in pika.

The functions end a connection without its server, cancel a consumer without a reject, and keep pika's warnings about our own
channels out of people's logs.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import struct
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from pika import SelectConnection, exceptions, frame, spec
from pika.channel import Channel

from narrowboat.driver.quiet import quiet
from narrowboat_rabbitmq.protocol.content import Content
from narrowboat_rabbitmq.protocol.frames import message

#: What pika may drop or change in any release: whose it is, and why we use it.
UNPROMISED = {
    "connection._read_frame": "its own decodes every header of every message, and raises on what AMQP allows",
    "connection._frame_buffer": "what `_read_frame` reads",
    "connection._adapter_emit_data": "its own leads to a system call for each frame; a small message has three",
    "connection._output_marshaled_frames": "takes a message's frames as they are; basic_publish() makes each of many objects",
    "connection._body_max_length": "how much of a message one frame may carry",
    "connection._proto_connection_made": "tells of the transport",
    "connection.bytes_received": "tells a slow server from a dead one when an answer is late",
    "connection._on_connection_workflow_done": "raises where a connection is closed before the server has answered",
    "connection._terminate_stream": "close() waits for an answer, and the server may be gone",
    "transport._sock": "its write() waits for another turn, and has the kernel watch the socket and forget it again",
    "transport._MAX_CONSUME_BYTES": "what ends its reading before a call that finds nothing",
    "transport._MAX_RECV_BYTES": "how much one call reads: with one call a turn, 4 KiB make a turn of every 4 KiB",
    "channel._rpc": "basic_cancel() rejects what is still on its way, which a server counts as an attempt",
    "frame.Header": "what `_read_frame` returns for the properties of a message, which stay bytes",
    "spec.FRAME_HEADER_SIZE": "the bytes before a frame's payload",
    "spec.FRAME_END_SIZE": "the bytes behind it",
}

#: Bytes of one frame. We ask for 128 KiB, and no server may send more; the marks that it adds to a message's headers on its
#: way over the ladder come on top, and a frame of headers cannot be divided.
LARGEST_FRAME = 1024 * 1024
#: Bytes of one message: what a server can be told to take at most.
LARGEST_MESSAGE = 512 * 1024 * 1024
#: Bytes that are written together, and the last frame. What the socket does not take of them is copied.
_JOINED = 64 * 1024
#: Bytes that one turn reads. Fewer make more turns of a large message; what is left of many small ones is copied at each frame.
_READ = 16 * 1024

_HEAD = struct.Struct(">BHL")
_CONTENT = struct.Struct(">HHQ")
#: Around a frame's payload: seven bytes before, one behind.
_BEFORE, _BEHIND = spec.FRAME_HEADER_SIZE, spec.FRAME_END_SIZE


def _joined(frames: Iterable[bytes]) -> Iterator[bytes]:
    part: list[bytes] = []
    size = 0
    for each in frames:
        part.append(each)
        size += len(each)
        if size >= _JOINED:
            yield b"".join(part)
            part, size = [], 0
    if part:
        yield b"".join(part)


class Connection(SelectConnection):  # type: ignore[misc]  # pika has no annotations
    """See the module's text."""

    def publish(self, channel: int, exchange: str, routing_key: str, body: bytes, properties: Content, mandatory: bool) -> None:
        """Publish on the channel of that number."""
        frames = message(channel, exchange, routing_key, body, properties, mandatory, self._body_max_length)
        self._output_marshaled_frames(frames)

    def _proto_connection_made(self, transport: Any) -> None:
        self._stream = transport
        self._turn: list[bytes] = []
        self._socket: Any = None  # what may be written to past the transport: never TLS, which has a state of its own
        if not isinstance(transport._sock, ssl.SSLSocket):
            self._socket = transport._sock
            transport._MAX_CONSUME_BYTES = 1  # one call each time something is there: a second finds nothing, and raises
            transport._MAX_RECV_BYTES = _READ
        super()._proto_connection_made(transport)

    def _adapter_emit_data(self, data: bytes) -> None:
        if not self._turn:
            self.ioloop.call_later(0, self._end_turn)  # by this turn's timers, which come last
        self._turn.append(data)

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, []
        for data in _joined(turn) if not self.is_closed else ():
            sent = 0
            if self._socket is not None and not self._stream.get_write_buffer_size():
                with contextlib.suppress(OSError):  # it is full, or broken: the transport finds the same, and knows what to do
                    sent = self._socket.send(data)
            if sent < len(data):
                self._stream.write(data[sent:])

    def _on_connection_workflow_done(self, outcome: Any) -> None:
        # Of a connection that `close` gave up pika tells the class of the error, takes that for a connection, and raises.
        super()._on_connection_workflow_done(outcome() if isinstance(outcome, type) else outcome)

    def _terminate_stream(self, error: BaseException | None) -> None:
        self._turn, self._socket = [], None  # nothing is sent any more, as by pika's own transport
        super()._terminate_stream(error)

    def _read_frame(self) -> tuple[int, Any]:
        data: bytes = self._frame_buffer
        if len(data) < _BEFORE or data.startswith(b"AMQP"):
            return super()._read_frame()  # type: ignore[no-any-return]  # pika has no annotations
        kind, channel, size = _HEAD.unpack_from(data)
        if size > LARGEST_FRAME:
            raise exceptions.InvalidFrameError(
                f"a frame of {size} bytes, which is more than the {LARGEST_FRAME} that are taken"
            )
        if kind != spec.FRAME_HEADER:
            return super()._read_frame()  # type: ignore[no-any-return]  # pika has no annotations
        ends = _BEFORE + size
        if len(data) < ends + _BEHIND:
            return 0, None
        if data[ends] != spec.FRAME_END:
            raise exceptions.InvalidFrameError("a frame that does not end where it says")
        _, _, length = _CONTENT.unpack_from(data, _BEFORE)
        if length > LARGEST_MESSAGE:
            raise exceptions.InvalidFrameError(f"a message of {length} bytes, which is more than a server can take")
        return ends + _BEHIND, frame.Header(channel, length, data[_BEFORE + _CONTENT.size : ends])


def received(connection: SelectConnection) -> int:
    """Bytes that came so far."""
    return int(connection.bytes_received)


def terminate(connection: SelectConnection, error: BaseException) -> None:
    """End it without asking the server, also where that was asked and gave no answer: as pika when heartbeats are missing."""
    if not connection.is_closed:
        connection._terminate_stream(error)


def cancel(channel: Channel, tag: str) -> None:
    """Let the server push nothing more to the consumer `tag`. What is on its way is still handed on."""
    channel._rpc(spec.Basic.Cancel(consumer_tag=tag), _ignore, [spec.Basic.CancelOk])


def _ignore(frame: object) -> None:
    """That answer says nothing new."""


_ours: weakref.WeakSet[Any] = weakref.WeakSet()


def silence(channel: Channel) -> None:
    """Log no warning when the server closes `channel`.

    A server refuses a call by closing the channel, also where we ask about a queue that need not be there (`depth()` of one
    without dead letters does so every time), and where we raise the refusal as an error. Channels that a program opens with
    pika by itself warn as ever.
    """
    _ours.add(channel)


def _is_news(record: logging.LogRecord) -> bool:
    closed = isinstance(record.msg, str) and record.msg.startswith("Received remote Channel.Close")
    return not (closed and isinstance(record.args, tuple) and any(raw in _ours for raw in record.args[-1:]))


logging.getLogger("pika.channel").addFilter(_is_news)
quiet("pika")  # for each attempt to connect that fails it logs seven errors
