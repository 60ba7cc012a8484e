"""Requests and their replies: one inbox for the whole face, shared by everybody who waits for a reply.

It has no thread. Whoever waits looks into the inbox when it is woken, and what it finds for others it gives to them. A
reply that nobody waits for any more is acknowledged and dropped. Requests are messages like all others: a request that
timed out may still be answered, so what it asks for must be harmless when it is done twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from narrowboat._consume import ACK, Consumer
from narrowboat._entry import Entry
from narrowboat.contract.messages import Address, Broker, Delivery, Outgoing, Properties, Received, Source
from narrowboat.errors import RequestTimeout

if TYPE_CHECKING:
    from narrowboat._broker import BrokerCore
    from narrowboat._source import SourceCore

#: Replies fetched in one call. They are given away at once, so this bounds a call and not what is unsettled.
PREFETCH = 1000
#: What an inbox is for the core: no lease that anybody extends, no dead letters.
PROPERTIES = Properties(max_deliveries=0)


class Requests(Consumer[Entry[Any]]):
    """The inbox of a face: a consumer whose messages are handed to those who wait for them."""

    def __init__(self, core: BrokerCore) -> None:
        self._replies: dict[str, list[Delivery]] = {}
        source = Source(Address("inbox", "inbox"), PROPERTIES)  # type: ignore[arg-type]  # its real address comes from the driver
        super().__init__(core, source, None, Entry, prefetch=PREFETCH, auto_extend=False, max_extend=0.0)
        self.address: Address | None = None
