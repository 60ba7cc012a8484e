"""One exchange with the servers behind the URL: a single server, the primary of some sentinels, or the nodes of a cluster.

`run` sends many commands at once and returns one answer for each. `cluster` decides which node gets which command. A command
is sent a second time only where the server said that it did nothing (an unknown script, a key on another node).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from narrowboat.driver.endpoint import HostPort
from narrowboat.driver.turn import behind, turn
from narrowboat.errors import Closed, NarrowboatError
from narrowboat_redis.cluster import Cluster
from narrowboat_redis.connections import Connections
from narrowboat_redis.endpoint import Deployment, RedisEndpoint
from narrowboat_redis.errors import FAILURES, translate
from narrowboat_redis.resp import ErrorReply
from narrowboat_redis.scripts import Packed

T = TypeVar("T")

#: Fail fast for this many seconds after a timeout: the core repeats the members of a failed batch one by one, and each would
#: otherwise stand still for a whole timeout. A retry with a backoff comes later than this.
FAIL_FAST = 0.004


class RedisClient:
    """See the module's text. From any thread; one exchange at a time.

    `timeout`: seconds that a call may take, with its wait for the one under way.
    `fail_fast`: an exchange that follows a timeout at once fails as well (`FAIL_FAST`).
    """

    def __init__(self, endpoint: RedisEndpoint, timeout: float, *, fail_fast: bool = False) -> None:
        self.endpoint = endpoint
        self._timeout = timeout
        self._mutex = threading.Lock()
        self._connections = Connections(endpoint, timeout)
        self._cluster = Cluster(endpoint, self._connections) if endpoint.deployment is Deployment.CLUSTER else None
        self._closed = False
        self._fail_fast = FAIL_FAST if fail_fast else 0.0
        self._late = -math.inf  # when an exchange timed out last
        self._silent: tuple[float, BaseException] | None = None  # when an exchange timed out, and how

    def run(
        self, commands: Sequence[Packed], *, doing: str = "a call", tail: bytes | None = None, ends: float | None = None
    ) -> list[Any]:
        """One answer for each command: a reply, an `ErrorReply`, or in a cluster an error where that node failed.

        `ends`: the deadline by `time.monotonic`, for a caller that has used a part of the timeout already.
        `tail`: a packed command, sent behind the others to each server that gets any. Its replies follow the answers.
        Raises a `NarrowboatError` when the whole exchange failed. Its outcome is then unknown.
        """
        fresh, ends = ends is None, self.ends() if ends is None else ends
        with self._alone(ends, doing):
            self._check_open()
            if self._cluster is not None:
                return self._cluster.run(commands, doing, tail, ends)
            if self._silent is not None and time.monotonic() < self._silent[0] + self._fail_fast:
                raise translate(self._silent[1], self.endpoint, doing=doing)
            try:
                if fresh and len(commands) == 1 and tail is None and (connection := self._connections.ready()):  # nearly always
                    answers = [connection.once(commands[0].data, ends)]
                    if type(answers[0]) is not ErrorReply:
                        return answers
                else:
                    answers = self._connections.exchange(None, commands, tail, ends)
                for answer in answers:
                    if type(answer) is ErrorReply:
                        return self._errors(commands, answers, tail, ends)
                return answers
            except FAILURES as error:
                self._connections.drop(None)
                failure = translate(error, self.endpoint, doing=doing)
                late = time.monotonic() >= ends - FAIL_FAST
                self._silent = (time.monotonic(), error) if self._fail_fast and late else None
                self._late = time.monotonic() if late else -math.inf
            except BaseException:
                self._connections.drop(None)
                raise
        try:
            raise failure  # out here the first error, which may repeat a password, is not kept as its context
        finally:
            del failure  # its traceback leads here: the two would keep each other, and what its caller holds

    def ask(self, command: Packed, doing: str, ends: float | None = None) -> Any:
        """The reply to one command; what it met is raised."""
        return self._good(self.run([command], doing=doing, ends=ends)[0], doing)

    def lately_silent(self) -> bool:
        """Whether an exchange has just timed out. An optional one would then only wait for a timeout as well."""
        return time.monotonic() - self._late < self._timeout

    def busy(self) -> bool:
        """Whether an exchange is under way."""
        return self._mutex.locked()

    def ends(self) -> float:
        """The deadline of an exchange that begins now, by `time.monotonic`."""
        return time.monotonic() + self._timeout

    def everywhere(
        self, command: Packed, *, doing: str = "a call", ends: float | None = None
    ) -> list[tuple[HostPort | None, Any]]:
        """The answer of each server that holds data: one, or each primary of a cluster."""
        until = self.ends() if ends is None else ends

        def ask() -> list[tuple[HostPort | None, Any]]:
            addresses = [None] if self._cluster is None else self._cluster.primaries(until)
            return [(address, self._connections.exchange(address, [command], None, until)[0]) for address in addresses]

        return [(address, self._good(answer, doing)) for address, answer in self._asked(ask, doing, until)]

    def at(self, address: HostPort | None, command: Packed, *, doing: str = "a call") -> Any:
        """The answer of that server."""
        ends = self.ends()
        return self._good(
            self._asked(lambda: self._connections.exchange(address, [command], None, ends)[0], doing, ends), doing
        )

    def _good(self, reply: Any, doing: str) -> Any:
        if isinstance(reply, ErrorReply | NarrowboatError):
            raise translate(reply, self.endpoint, doing=doing)
        return reply

    def _alone(self, ends: float, doing: str) -> AbstractContextManager[object]:
        """Held for one exchange; raises where another one is still under way then."""
        return turn(self._mutex, ends - time.monotonic(), lambda: behind(self.endpoint, doing, backend=self.endpoint.scheme))

    def _asked(self, ask: Callable[[], T], doing: str, ends: float) -> T:
        with self._alone(ends, doing):
            self._check_open()
            try:
                return ask()
            except FAILURES as error:
                self._connections.drop_all()
                failure = translate(error, self.endpoint, doing=doing)
            except BaseException:
                self._connections.drop_all()
                raise
        try:
            raise failure
        finally:
            del failure  # as above

    def close(self) -> None:
        """End all connections. Idempotent."""
        with self._mutex:
            self._closed = True
            self._connections.drop_all()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"{self.endpoint}: used after close()", backend=self.endpoint.scheme)

    def _errors(self, commands: Sequence[Packed], answers: list[Any], tail: bytes | None, ends: float) -> list[Any]:
        """Load the scripts that the server did not know, and repeat the commands that it did not run."""
        errors = [(index, answer) for index, answer in enumerate(answers) if type(answer) is ErrorReply]
        if self.endpoint.deployment is Deployment.SENTINEL and any("READONLY" in error.text for _, error in errors):
            self._connections.drop(None)  # this server is not the primary any more: the next call asks the sentinels
        for index, error in errors:
            error.key = commands[index].key if index < len(commands) else None
        unknown = [index for index, error in errors if error.code == "NOSCRIPT"]
        if not unknown:
            return answers
        try:
            again = self._connections.load(None, [commands[index] for index in unknown], tail, ends)
        except Exception as error:
            error.sent = True  # type: ignore[attr-defined]  # the others of the batch were
            raise
        for index, answer in zip(unknown, again, strict=False):
            answers[index] = answer
        return answers + again[len(unknown) :]
