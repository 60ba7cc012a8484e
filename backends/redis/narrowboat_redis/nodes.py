"""Which node of a cluster has which slot, as the nodes report it.

The map is read again when a node redirects to another one, or fails. This file sends nothing but that question.
"""

from __future__ import annotations

import time
from binascii import crc_hqx
from typing import Any

from narrowboat.driver.endpoint import HostPort
from narrowboat.errors import NarrowboatError
from narrowboat_redis.endpoint import RedisEndpoint
from narrowboat_redis.errors import FAILURES
from narrowboat_redis.resp import ErrorReply, pack
from narrowboat_redis.scripts import Packed

_SLOTS = 16384


def slot_of(key: bytes) -> int:
    """The slot of a key in a cluster: of what stands in its first braces, or of all of it.

    >>> slot_of(b"a{x}b") == slot_of(b"{x}"), slot_of(b"123456789")
    (True, 12739)
    """
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % _SLOTS


class Nodes:
    """Which node of a cluster has which slot."""

    def __init__(self, endpoint: RedisEndpoint) -> None:
        self._endpoint = endpoint
        self._owners: list[tuple[int, int, HostPort]] = []
        self._moved: dict[int, HostPort] = {}
        self.stale = True

    def group(
        self, todo: list[tuple[int, Packed]], asking: dict[int, HostPort], connection_to: Any, ends: float
    ) -> dict[HostPort, list[tuple[int, Packed]]]:
        """The commands by the node that gets them."""
        if self.stale:
            self._learn(connection_to, ends)
        groups: dict[HostPort, list[tuple[int, Packed]]] = {}
        for index, each in todo:
            address = asking.get(index) or self._owner(each.key)
            groups.setdefault(address, []).append((index, each))
        return groups

    def primaries(self, connection_to: Any, ends: float) -> set[HostPort]:
        """All nodes that have slots."""
        if self.stale:
            self._learn(connection_to, ends)
        return {address for _, _, address in self._owners}

    def redirected(self, reply: ErrorReply, told_by: HostPort, index: int, asking: dict[int, HostPort]) -> None:
        """Follow `MOVED slot host:port`, for good, or `ASK slot host:port`, this once."""
        _, slot, where = reply.text.split(" ")[:3]
        host, _, port = where.rpartition(":")
        address = HostPort(host or told_by.host, int(port))
        if reply.code == "ASK":
            asking[index] = address
        else:
            self._moved[int(slot)] = address
            self.stale = len(self._moved) > 1  # a single slot that moved is remembered; after more, the whole map is read again

    def _owner(self, key: bytes | None) -> HostPort:
        if key is None:
            return self._owners[0][2]
        slot = slot_of(key)
        if slot in self._moved:
            return self._moved[slot]
        for first, last, address in self._owners:
            if first <= slot <= last:
                return address
        raise ErrorReply(f"CLUSTERDOWN no node has the slot {slot}")

    def _learn(self, connection_to: Any, ends: float) -> None:
        """Read the map from the first node that answers: a known one, or one of the URL's."""
        known = dict.fromkeys([address for _, _, address in self._owners] + list(self._endpoint.hosts))
        failed: BaseException = ErrorReply("CLUSTERDOWN no node")
        for number, address in enumerate(known):
            try:
                left = ends - time.monotonic()
                part = time.monotonic() + max(left / (len(known) - number), 0.05)
                connection = connection_to(address, part)
                connection.send(pack(b"CLUSTER", b"SLOTS"))
                (reply,) = connection.receive(1, part)
            except (NarrowboatError, *FAILURES) as error:
                failed = error
                continue
            if isinstance(reply, ErrorReply):
                failed = reply
                continue
            self._owners = [
                (first, last, HostPort(node[0].decode() if node[0] else address.host, node[1]))
                for first, last, node, *_ in reply
            ]
            self._moved = {}
            self.stale = not self._owners
            return
        raise failed
