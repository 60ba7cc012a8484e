"""One batch of commands on the nodes of a cluster: each command goes to the node of its key, and follows a key that has moved.

All nodes are written to before any is read. If one node fails, each of its commands gets an error; the other commands get
their answers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from narrowboat.driver.endpoint import HostPort
from narrowboat.errors import NarrowboatError
from narrowboat_redis.connections import Connections
from narrowboat_redis.endpoint import RedisEndpoint
from narrowboat_redis.errors import FAILURES, translate
from narrowboat_redis.nodes import Nodes
from narrowboat_redis.resp import ErrorReply, pack
from narrowboat_redis.scripts import Packed

#: How often a command follows its key to another node within one call. A cluster that points in a circle ends here.
_REDIRECTS = 5
#: Seconds for the replies of one node, however long the others took.
_SHARE = 0.05
_ASKING = pack(b"ASKING")

Members = list[tuple[int, Packed]]  #: commands, with their positions in the batch


class Cluster:
    """For one thread at a time."""

    def __init__(self, endpoint: RedisEndpoint, connections: Connections) -> None:
        self._endpoint = endpoint
        self._connections = connections
        self._nodes = Nodes(endpoint)

    def primaries(self, ends: float) -> list[HostPort | None]:
        """All nodes that have slots."""
        return list(self._nodes.primaries(self._connections.to, ends))

    def run(self, commands: Sequence[Packed], doing: str, tail: bytes | None, ends: float) -> list[Any]:
        """As `RedisClient.run`."""
        batch = _Batch(self._endpoint, self._connections, self._nodes, len(commands), doing, tail, ends)
        try:
            batch.run(list(enumerate(commands)))
        except FAILURES as error:
            self._connections.drop_all()
            batch.answers = [translate(error, self._endpoint, doing=doing)]  # raised below, without this one as its context
        except BaseException:
            self._connections.drop_all()
            raise
        if commands and all(isinstance(answer, NarrowboatError) for answer in batch.answers):
            raise batch.answers[0]
        return batch.answers + batch.tails


class _Batch:
    """One call of `run`."""

    def __init__(
        self,
        endpoint: RedisEndpoint,
        connections: Connections,
        nodes: Nodes,
        number: int,
        doing: str,
        tail: bytes | None,
        ends: float,
    ) -> None:
        self._endpoint = endpoint
        self._connections = connections
        self._nodes = nodes
        self._doing = doing
        self._tail = tail
        self._ends = ends
        self._asking: dict[int, HostPort] = {}  # where a command is to be sent this once, behind an ASKING
        self.answers: list[Any] = [None] * number
        self.tails: list[Any] = []

    def run(self, todo: Members) -> None:
        for _ in range(_REDIRECTS + 1):
            groups = self._nodes.group(todo, self._asking, self._connections.to, self._ends)
            asked, self._asking = self._asking, {}
            sent = [each for each in groups.items() if self._send(*each, asked)]
            todo = [member for each in sent for member in self._receive(*each, asked)]
            if not todo:
                return

    def _send(self, address: HostPort, members: Members, asked: dict[int, HostPort]) -> bool:
        try:
            data = [_ASKING + each.data if index in asked else each.data for index, each in members]
            self._connections.to(address, self._ends).send(b"".join(data) + (self._tail or b""), self._ends)
        except (NarrowboatError, *FAILURES) as error:
            self._fail(address, members, error)
            return False
        return True

    def _receive(self, address: HostPort, members: Members, asked: dict[int, HostPort]) -> Members:
        """Take in the answers of one node; what has to be sent again."""
        again: Members = []
        try:
            number = len(members) + sum(index in asked for index, _ in members)
            replies = self._connections.reading(address).receive(
                number + (self._tail is not None), max(self._ends, time.monotonic() + _SHARE)
            )
            if self._tail is not None:
                self.tails.append(replies.pop())
            unknown: Members = []
            position = 0
            for index, each in members:
                position += index in asked  # the OK of ASKING
                self.answers[index] = reply = replies[position]
                position += 1
                if type(reply) is not ErrorReply:
                    continue
                if reply.code == "NOSCRIPT":
                    unknown.append((index, each))
                elif reply.code in {"MOVED", "ASK"}:
                    again.append((index, each))
                    self._nodes.redirected(reply, address, index, self._asking)
            if unknown:
                self._load(address, unknown)
        except (NarrowboatError, *FAILURES) as error:
            self._fail(address, members, error)
        return again

    def _load(self, address: HostPort, members: Members) -> None:
        replies = self._connections.load(address, [each for _, each in members], self._tail, self._ends)
        for (index, _), reply in zip(members, replies, strict=False):
            self.answers[index] = reply
        self.tails += replies[len(members) :]

    def _fail(self, address: HostPort, members: Members, error: BaseException) -> None:
        self._connections.drop(address)
        self._nodes.stale = True
        found = error if isinstance(error, NarrowboatError) else translate(error, self._endpoint, doing=self._doing)
        for index, _ in members:
            self.answers[index] = found
