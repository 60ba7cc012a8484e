"""What a broker and its feeds ask the server over: connections for claims, for what frees, to publish, and two threads.

It is made by the broker and handed to each feed. What is asked, and what an answer means, is theirs to know.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from narrowboat.contract import Context
from narrowboat.driver.sources import Declare
from narrowboat.errors import Closed
from narrowboat_redis.client import RedisClient
from narrowboat_redis.endpoint import RedisEndpoint
from narrowboat_redis.mover import Mover
from narrowboat_redis.options import MessageOptions
from narrowboat_redis.persistence import check_durability
from narrowboat_redis.scripts import Packed, Script, script
from narrowboat_redis.streams import StreamKeys
from narrowboat_redis.waking import Waking

#: Seconds that an end spends on giving back deliveries to a server that did not answer just before.
_COURTESY = 0.2


class Calls:
    """See the module's text. From any thread."""

    def __init__(
        self, endpoint: RedisEndpoint, options: MessageOptions, context: Context, tick: Callable[[StreamKeys], Packed]
    ) -> None:
        """`tick`: the mover's call for one source."""
        self.endpoint = endpoint
        self.clock = context.clock
        #: Whether queues and topics are made on the way, as scripts are told.
        self.auto_declare = b"1" if options.declare is Declare.AUTO else b""
        #: Bytes of messages that one answer may have: another half is left for their fields' names and sizes.
        self.most = b"%d" % (options.max_reply // 2)
        self.closed = False
        self._pid = os.getpid()
        self.taking, self.freeing, self.sending, moving = (RedisClient(endpoint, context.timeout) for _ in range(4))
        try:
            check_durability(self.taking, endpoint, options.durability, self.taking.ends())
        except BaseException:
            self.taking.close()
            raise
        self.waking = Waking(endpoint, context.timeout, context.clock)
        self.mover = Mover(moving, tick)

    def check_open(self) -> None:
        """Raise `Closed` after `close`, and in a forked child, where the connections are the parent's."""
        if os.getpid() != self._pid:
            raise Closed(
                f"this consumer or broker on {self.endpoint} is the parent's; open a new one after a fork",
                backend=self.endpoint.scheme,
            )
        if self.closed:
            raise Closed(f"this broker on {self.endpoint} was closed; open it again", backend=self.endpoint.scheme)

    def leaving(self, *, waited: bool) -> float:
        """The deadline, by `time.monotonic`, of what closed feeds give back. The rest comes back when its leases end.

        `waited`: by a caller that has waited for what is under way. What still is, has met silence, and so would we.
        """
        clients = (self.taking, self.freeing)
        silent = any(each.lately_silent() or (waited and each.busy()) for each in clients)
        return time.monotonic() + _COURTESY if silent else self.taking.ends()

    def close(self) -> None:
        """End the subscription and the connections. The mover is ended before the feeds are."""
        self.closed = True
        self.waking.close()
        for client in (self.taking, self.freeing, self.sending):
            client.close()


def source_script(name: str) -> Script:
    """One of the scripts that are given a source's keys."""
    return script("messages.lua", "upkeep.lua", f"{name}.lua")


def call(what: Script, keys: StreamKeys, *arguments: bytes) -> Packed:
    """The call of such a script for one source."""
    return what(keys.all, (keys.kind.value.encode(), keys.group, *arguments))
