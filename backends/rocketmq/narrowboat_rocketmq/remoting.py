"""RocketMQ's remoting protocol, as far as administration needs it: gRPC cannot make a topic, nor count what is in one.

A frame is its length, the length of a header in JSON, that header, and a body. One connection for each server, one request at a
time on each; a connection that failed is made anew by the next request. Nothing is sent twice: whoever asks repeats.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from narrowboat.driver.endpoint import HostPort
from narrowboat.driver.turn import turn
from narrowboat.dsn import Secret

#: Bytes of the longest answer that is believed.
_LONGEST = 64 * 1024 * 1024
#: The server's JSON has numbers as names, without quotes around them.
_NUMBER_AS_NAME = re.compile(rb"([{,])(-?\d+):")
SUCCESS, TOPIC_NOT_FOUND, GROUP_NOT_FOUND, OFFSET_NOT_FOUND = 0, 17, 26, 22


class Answer(NamedTuple):
    """What a server answered."""

    code: int
    remark: str
    fields: Mapping[str, str]
    body: bytes

    def content(self) -> Any:
        """The body, which is JSON; None where there is none."""
        return json.loads(_NUMBER_AS_NAME.sub(rb'\1"\2":', self.body)) if self.body else None


class NoRemoting(ConnectionError):
    """What answered is no server of RocketMQ."""


class Remoting:
    """The connections to a name server and its brokers. From any thread.

    Args:
        connect: makes a connected socket, in so many seconds at most.
        user, secret: with which each request is signed; None: it is not.
    """

    def __init__(self, connect: Callable[[HostPort, float], socket.socket], user: str | None, secret: Secret | None) -> None:
        self._connect = connect
        self._user = user
        self._secret = secret
        self._mutex = threading.Lock()
        self._lines: dict[HostPort, _Line] = {}
        self._closed = False

    def ask(self, server: HostPort, code: int, fields: Mapping[str, Any], ends: float, body: bytes = b"") -> Answer:
        """One request; `OSError` where no whole answer came before `ends`, by `time.monotonic`."""
        with self._mutex:
            if self._closed:
                raise ConnectionAbortedError("closed")
            line = self._lines.setdefault(server, _Line())
        texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in fields.items()}
        if self._user is not None and self._secret is not None:
            texts["AccessKey"] = self._user
            texts["Signature"] = _signature(texts, body, self._secret)
        with turn(line.mutex, ends - time.monotonic(), lambda: TimeoutError(f"another call still waits for {server}")):
            done = False
            try:
                if line.socket is None:
                    line.socket = self._connect(server, _left(ends))
                answer = _exchange(line.socket, code, texts, body, ends)
                done = True
                return answer
            finally:
                if not done:  # half an answer may still be on its way: nobody may take it for his
                    line.drop()

    def close(self) -> None:
        """End the connections."""
        with self._mutex:
            self._closed = True
            lines = list(self._lines.values())
        for line in lines:
            line.drop()


class _Line:
    """One connection, made when it is first needed."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.socket: socket.socket | None = None

    def drop(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def _left(ends: float) -> float:
    return max(ends - time.monotonic(), 0.001)


def _signature(fields: Mapping[str, str], body: bytes, secret: Secret) -> str:
    content = "".join(fields[name] for name in sorted(fields)).encode() + body
    return base64.b64encode(hmac.new(secret.reveal().encode(), content, hashlib.sha1).digest()).decode()


def _exchange(line: socket.socket, code: int, fields: Mapping[str, str], body: bytes, ends: float) -> Answer:
    header = json.dumps(
        {
            "code": code,
            "language": "PYTHON",
            "version": 475,  # of the protocol, as 5.x has it
            "opaque": 1,  # which of the requests on the way this is; there is one
            "flag": 0,
            "extFields": fields,
            "serializeTypeCurrentRPC": "JSON",
        }
    ).encode()
    line.settimeout(_left(ends))
    line.sendall(struct.pack(">ii", 4 + len(header) + len(body), len(header)) + header + body)
    whole, size = struct.unpack(">iI", _read(line, 8, ends))
    size &= 0xFFFFFF  # above it is how the header is written: JSON, as in the request
    if not 4 + size <= whole <= _LONGEST:
        raise NoRemoting(f"an answer of {whole} bytes with a header of {size}")
    data = _read(line, whole - 4, ends)
    try:
        found = json.loads(data[:size])
        return Answer(int(found["code"]), str(found.get("remark") or ""), found.get("extFields") or {}, data[size:])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NoRemoting("an answer whose header cannot be read") from error


def _read(line: socket.socket, count: int, ends: float) -> bytes:
    parts: list[bytes] = []
    while count > 0:
        line.settimeout(_left(ends))
        part = line.recv(min(count, 1 << 20))
        if not part:
            raise ConnectionResetError("the server closed the connection in the middle of an answer")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
