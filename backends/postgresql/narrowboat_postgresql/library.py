"""One connection, over libpq: what is sent, what is waited for, and until when.

It stands on `psycopg.pq`, psycopg's own thin layer over libpq, and not on psycopg's connections: those wait for an answer
without an end, and a call of ours has one. Bodies travel as bytes in both directions, and nothing is converted that is not
asked for. This is the only file that knows the client library; importing the backend does not load it.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import psycopg.pq
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, Format, PollingStatus
from psycopg.pq.abc import PGconn, PGresult

from narrowboat_postgresql.errors import Broken, Refused

#: Seconds without use after which a connection is looked at before it is used again: a server that was restarted has closed it.
_IDLE = 1.0
_BINARY = Format.BINARY
_TEXT = Format.TEXT

#: A parameter: text as str, anything else as the bytes that PostgreSQL calls its binary form.
Parameter = str | bytes | None
Rows = list[tuple[bytes | None, ...]]


class Notice(NamedTuple):
    """One notification."""

    channel: str
    text: str


class Link:
    """For one thread at a time; an owner that shares it guards it with a mutex."""

    def __init__(self, connection: PGconn) -> None:
        self._connection = connection
        self._process = os.getpid()
        self._prepared: dict[str, bytes] = {}
        self._once: set[str] = set()
        self._poll = select.poll()
        self._watched = -1
        self._used = time.monotonic()
        self.busy = False  #: something was sent whose answer was not read: nothing more can be read from it
        self.identity = ("0", "")  #: process and start of the server's side, to end it from outside

    @classmethod
    def connect(cls, told: Callable[[], bytes], ends: float, *, step: Callable[[Callable[[], int]], int]) -> Link:
        """Connect within the time. `told` makes libpq's connection string, which has the password and is kept nowhere here.

        `step` runs each step of a handshake, which computes and waits for nothing.
        """
        link = cls(psycopg.pq.PGconn.connect_start(told()))
        connection = link._connection
        try:
            connection.nonblocking = 1
            while True:
                if connection.status == ConnStatus.BAD:
                    raise Broken(_said(connection), sent=False)
                state = step(connection.connect_poll)
                if state == PollingStatus.OK:
                    break
                if state == PollingStatus.FAILED:
                    raise Broken(_said(connection), sent=False)
                link._wait(select.POLLIN if state == PollingStatus.READING else select.POLLOUT, ends)
            connection.nonblocking = 1
        except BaseException as error:  # an interrupt as well: nobody else knows of the connection
            link.close()
            if isinstance(error, TimeoutError):
                raise Broken("no connection within the time", sent=False, late=True) from None
            raise
        return link

    @property
    def version(self) -> int:
        """The server's, as 150018 for 15.18."""
        return self._connection.server_version

    @property
    def backend(self) -> int:
        """The process that the server, or a pooler before it, named when we connected."""
        return self._connection.backend_pid

    @property
    def encoding(self) -> str:
        """The database's."""
        return (self._connection.parameter_status(b"server_encoding") or b"").decode()

    def fileno(self) -> int:
        """For poll."""
        return self._connection.socket

    def usable(self) -> bool:
        """Whether it may be used again; False where an exchange was broken off or the server has closed it."""
        if self.busy or self._connection.status != ConnStatus.OK:
            return False
        if time.monotonic() - self._used < _IDLE:
            return True
        with contextlib.suppress(Exception):
            while self._readable(0.0):
                self._connection.consume_input()  # a word of the server's, or its end
                if self._connection.status != ConnStatus.OK:
                    return False
            return True
        return False

    def script(self, text: str, ends: float) -> Rows:
        """Run statements without parameters, in one transaction unless they say otherwise; the rows of the last one."""
        return self._exchange(lambda: self._connection.send_query(text.encode()), ends)

    def run(self, statement: str, parameters: Sequence[Parameter], ends: float, *, binary: bool = False) -> Rows:
        """Run one statement, which is prepared at its second use here; its rows, as text or as PostgreSQL's binary forms."""
        name = self._prepared.get(statement)
        values = [each.encode() if isinstance(each, str) else each for each in parameters]
        formats = [_TEXT if each.__class__ is str else _BINARY for each in parameters]
        answer = _BINARY if binary else _TEXT
        if name is not None:
            return self._exchange(lambda: self._connection.send_query_prepared(name, values, formats, answer), ends)
        if statement in self._once:
            prepared = self._prepared[statement] = b"nb%d" % len(self._prepared)
            self._exchange(lambda: self._connection.send_prepare(prepared, statement.encode()), ends)
            return self._exchange(lambda: self._connection.send_query_prepared(prepared, values, formats, answer), ends)
        self._once.add(statement)  # what is used twice is prepared: a first call has enough round trips before it
        return self._exchange(
            lambda: self._connection.send_query_params(statement.encode(), values, None, formats, answer), ends
        )

    def notices(self) -> list[Notice]:
        """What has arrived for the channels that are listened to, without waiting. Raises `Broken` at the connection's end."""
        try:
            self._connection.consume_input()
        except Exception as error:
            raise Broken(str(error)) from error
        found = []
        while (each := self._connection.notifies()) is not None:
            found.append(Notice(each.relname.decode(errors="replace"), each.extra.decode(errors="replace")))
        if self._connection.status != ConnStatus.OK:
            raise Broken(_said(self._connection))
        return found

    def close(self) -> None:
        """Close it. In a forked child it is the parent's, and only forgotten."""
        if self._process == os.getpid():
            self._connection.finish()

    def _exchange(self, send: Callable[[], None], ends: float) -> Rows:
        connection = self._connection
        self.busy = True
        try:
            send()
            while connection.flush():
                self._wait(select.POLLIN | select.POLLOUT, ends)
                connection.consume_input()
            last: PGresult | None = None
            refused: Refused | None = None
            while True:
                while connection.is_busy():
                    self._wait(select.POLLIN, ends)
                    connection.consume_input()
                result = connection.get_result()
                if result is None:
                    break
                last = result
                if result.status == ExecStatus.FATAL_ERROR:
                    refused = refused or _refusal(result)
        except TimeoutError:
            raise Broken("no answer within the time", late=True) from None
        except Exception as error:
            raise Broken(str(error) or _said(connection)) from error
        if connection.status != ConnStatus.OK:
            raise Broken(str(refused) if refused is not None else _said(connection))
        self.busy = False
        self._used = time.monotonic()
        if refused is not None:
            raise refused
        if last is None:
            return []
        fields = range(last.nfields)
        return [tuple([last.get_value(row, field) for field in fields]) for row in range(last.ntuples)]

    def _wait(self, events: int, ends: float) -> None:
        left = ends - time.monotonic()
        if left <= 0 or not self._readable(left, events):
            raise TimeoutError

    def _readable(self, seconds: float, events: int = select.POLLIN) -> bool:
        socket = self._connection.socket
        if socket != self._watched:  # another of several hosts is tried
            with contextlib.suppress(KeyError, ValueError):
                self._poll.unregister(self._watched)
            self._watched = socket
        self._poll.register(socket, events)
        return bool(self._poll.poll(seconds * 1000))


def _said(connection: PGconn) -> str:
    return connection.get_error_message().strip() or "the server closed the connection"


def _refusal(result: PGresult) -> Refused:
    def field(which: DiagnosticField) -> str:
        return (result.error_field(which) or b"").decode(errors="replace")

    text = field(DiagnosticField.MESSAGE_PRIMARY)
    for more in (DiagnosticField.MESSAGE_DETAIL, DiagnosticField.MESSAGE_HINT):
        text += f"; {field(more)}" if field(more) else ""
    return Refused(field(DiagnosticField.SQLSTATE), text)
