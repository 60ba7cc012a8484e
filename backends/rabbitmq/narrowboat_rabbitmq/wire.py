"""pika's connection with a reader of frames of our own, and fewer system calls.

A frame that announces a message is not looked into here: its properties go on as bytes, and are taken apart with the delivery,
so that what another program wrote into them costs that message and not the connection. What a frame or a message says of its
own length is bounded before memory is taken for it. Whatever else is wrong with a frame ends the connection, as pika does it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from pika import SelectConnection, exceptions, frame, spec

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
        # The three frames of a small message as one: pika makes a system call for each. Larger ones go as they are: what the
        # socket does not take at once is copied each time.
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
