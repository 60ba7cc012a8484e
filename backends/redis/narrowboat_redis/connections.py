"""The connections of one client, one to each server that it needs. Each is made at its first use, and again after a failure.

An exchange sends commands in one go, and reads their replies. It sends a command a second time only where the server does not
know the script, and so did nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from narrowboat.driver.endpoint import HostPort
from narrowboat_redis.connection import Connection
from narrowboat_redis.endpoint import Deployment, RedisEndpoint
from narrowboat_redis.opening import find_primary, open_connection
from narrowboat_redis.resp import ErrorReply
from narrowboat_redis.scripts import Packed, Script


class Connections:
    """See the module's text. For one thread at a time. The address None is the only server, or the sentinels' primary."""

    def __init__(self, endpoint: RedisEndpoint, timeout: float) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._open: dict[HostPort | None, Connection] = {}

    def ready(self) -> Connection | None:
        """The connection to the only server, if it is open and can be used."""
        connection = self._open.get(None)
        return connection if connection is not None and connection.usable() else None

    def to(self, address: HostPort | None, ends: float) -> Connection:
        """The connection to that server, opened if need be. `ends`: the deadline for that, by `time.monotonic`."""
        connection = self._open.get(address)
        if connection is not None:
            if connection.usable():
                return connection
            self.drop(address)
        try:
            where = self._only(ends) if address is None else address
            connection = open_connection(self._endpoint, where, _left(ends), self._timeout)
        except Exception as error:
            error.sent = False  # type: ignore[attr-defined]  # for `translate`: there was no connection yet
            raise
        self._open[address] = connection
        return connection

    def reading(self, address: HostPort) -> Connection:
        """The connection to that server, on which replies are outstanding."""
        return self._open[address]

    def exchange(self, address: HostPort | None, commands: Sequence[Packed], tail: bytes | None, ends: float) -> list[Any]:
        """The replies to `commands`, followed by the reply to `tail`, if there is one."""
        connection = self.to(address, ends)
        connection.send(_together(commands, tail), ends)
        return connection.receive(len(commands) + (tail is not None), ends)

    def load(self, address: HostPort | None, commands: Sequence[Packed], tail: bytes | None, ends: float) -> list[Any]:
        """As `exchange`, for commands whose scripts the server did not know: load those first."""
        scripts: dict[bytes, Script] = {each.script.sha: each.script for each in commands if each.script is not None}
        loads = [Packed(each.load_command, None) for each in scripts.values()]
        answers = self.exchange(address, [*loads, *commands], tail, ends)
        refused = next((answer for answer in answers[: len(loads)] if type(answer) is ErrorReply), None)
        if refused is not None:
            return [refused] * len(commands) + answers[len(loads) + len(commands) :]
        return answers[len(loads) :]

    def drop(self, address: HostPort | None) -> None:
        """Close the connection to that server; the next call opens another."""
        connection = self._open.pop(address, None)
        if connection is not None:
            connection.close(hard=connection.busy)

    def drop_all(self) -> None:
        """Close all connections."""
        for address in list(self._open):
            self.drop(address)

    def _only(self, ends: float) -> HostPort:
        single = self._endpoint.deployment is Deployment.SINGLE
        return self._endpoint.hosts[0] if single else find_primary(self._endpoint, _left(ends))


def _left(ends: float) -> float:
    return max(ends - time.monotonic(), 0.001)


def _together(commands: Sequence[Packed], tail: bytes | None) -> bytes:
    if len(commands) == 1 and tail is None:
        return commands[0].data
    return b"".join([each.data for each in commands]) + (tail or b"")
