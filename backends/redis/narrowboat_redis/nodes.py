"""Which node of a cluster has which slot, as its nodes tell, and what a connection to any server may raise.

It is asked anew when nodes point elsewhere or fail; it sends nothing of its own but that question.
"""

from __future__ import annotations

import time
from binascii import crc_hqx
from typing import Any

import redis

from narrowboat.errors import NarrowboatError
from narrowboat_redis.errors import ODD
from narrowboat_redis.resp import ErrorReply, ProtocolError, pack
from narrowboat_redis.scripts import Packed
from narrowboat_redis.site import Address, Site

_SLOTS = 16384
#: What a connection may raise, beside an error of ours.
FAILURES = (OSError, redis.RedisError, ErrorReply, ProtocolError, *ODD)


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

    def __init__(self, site: Site) -> None:
        self._site = site
        self._owners: list[tuple[int, int, Address]] = []
        self._moved: dict[int, Address] = {}
        self.stale = True

    def group(
        self, todo: list[tuple[int, Packed]], asking: dict[int, Address], line_to: Any, ends: float
    ) -> dict[Address, list[tuple[int, Packed]]]:
        """The commands by the node that gets them."""
        if self.stale:
            self._learn(line_to, ends)
        groups: dict[Address, list[tuple[int, Packed]]] = {}
        for index, each in todo:
            address = asking.get(index) or self._owner(each.key)
            groups.setdefault(address, []).append((index, each))
        return groups

    def primaries(self, line_to: Any, ends: float) -> set[Address]:
        """All nodes that have slots."""
        if self.stale:
            self._learn(line_to, ends)
        return {address for _, _, address in self._owners}

    def redirected(self, reply: ErrorReply, told_by: Address, index: int, asking: dict[int, Address]) -> None:
        """Follow `MOVED slot host:port`, for good, or `ASK slot host:port`, this once."""
        _, slot, where = reply.text.split(" ")[:3]
        host, _, port = where.rpartition(":")
        address = Address(host or told_by.host, int(port))
        if reply.code == "ASK":
            asking[index] = address
        else:
            self._moved[int(slot)] = address
            self.stale = len(self._moved) > 1  # one slot is remembered; more of them are a reason to look at all

    def _owner(self, key: bytes | None) -> Address:
        if key is None:
            return self._owners[0][2]
        slot = slot_of(key)
        if slot in self._moved:
            return self._moved[slot]
        for first, last, address in self._owners:
            if first <= slot <= last:
                return address
        raise ErrorReply(f"CLUSTERDOWN no node has the slot {slot}")

    def _learn(self, line_to: Any, ends: float) -> None:
        """Ask the first node that answers: one that we know of, or one of the URL."""
        known = dict.fromkeys([address for _, _, address in self._owners] + list(self._site.hosts))
        failed: BaseException = ErrorReply("CLUSTERDOWN no node")
        for number, address in enumerate(known):
            try:
                left = ends - time.monotonic()
                part = time.monotonic() + max(left / (len(known) - number), 0.05)
                line = line_to(address, part)
                line.send(pack(b"CLUSTER", b"SLOTS"))
                (reply,) = line.receive(1, part)
            except (NarrowboatError, *FAILURES) as error:
                failed = error
                continue
            if isinstance(reply, ErrorReply):
                failed = reply
                continue
            self._owners = [
                (first, last, Address(node[0].decode() if node[0] else address.host, node[1]))
                for first, last, node, *_ in reply
            ]
            self._moved = {}
            self.stale = not self._owners
            return
        raise failed
