"""The only file that uses names which pika does not promise. Each is in `UNPROMISED` with its reason; a test tries each.

`Connection` reads frames in its own way and makes fewer system calls. A frame that announces a message is not looked into here:
its properties go on as bytes, and are taken apart with the delivery, so that what another program wrote into them costs that
message and not the connection. What a frame or a message says of its own length is bounded before memory is taken for it.
Whatever else is wrong with a frame ends the connection, as in pika.

The functions end a connection without its server, cancel a consumer without a reject, and keep pika's warnings about our own
channels out of people's logs.
"""

from __future__ import annotations

import logging
import struct
import weakref
from collections.abc import Sequence
from typing import Any

from pika import SelectConnection, exceptions, frame, spec
from pika.channel import Channel

#: What pika may drop or change in any release: whose it is, and why we use it.
UNPROMISED = {
    "connection._read_frame": "its own decodes every header of every message, and raises on what AMQP allows",
    "connection._frame_buffer": "what `_read_frame` reads",
    "connection._output_marshaled_frames": "its own makes a system call for each frame; a small message has three",
    "connection.frames_sent": "the count that joined frames must not falsify",
    "connection.bytes_received": "tells a slow server from a dead one when an answer is late",
    "connection._terminate_stream": "close() waits for an answer, and the server may be gone",
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

_HEAD = struct.Struct(">BHL")
_CONTENT = struct.Struct(">HHQ")
#: Around a frame's payload: seven bytes before, one behind.
_BEFORE, _BEHIND = spec.FRAME_HEADER_SIZE, spec.FRAME_END_SIZE


class Connection(SelectConnection):  # type: ignore[misc]  # pika has no annotations
    """See the module's text."""

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        # The three frames of a small message as one. Larger ones go as they are: what the socket does not take at once is
        # copied each time.
        if len(marshaled_frames) == 3:
            marshaled_frames = [b"".join(marshaled_frames)]
            self.frames_sent += 2
        super()._output_marshaled_frames(marshaled_frames)

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
