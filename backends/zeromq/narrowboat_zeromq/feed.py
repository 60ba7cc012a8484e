"""One consumer's stream: a feed of the server's driver, known to it by a number of ours.

A delivery's tag is the one of the server's driver, so that it can be settled also after the server has begun anew.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from narrowboat.contract import Delivery, Feed, Outcome, Properties, Received, Source
from narrowboat.driver.turn import turn
from narrowboat.errors import Closed, NarrowboatError
from narrowboat_zeromq.client.link import Link
from narrowboat_zeromq.errors import Forgotten, not_sent
from narrowboat_zeromq.options import SCHEME
from narrowboat_zeromq.protocol import message_items
from narrowboat_zeromq.protocol.faults import from_wire


class ZeroMQFeed(Feed):
    """A feed; `feeds` are those of its broker, which it leaves when it is closed."""

    def __init__(
        self,
        link: Link,
        number: int,
        source: Source | None,
        wake: Callable[[], None],
        feeds: MutableMapping[int, ZeroMQFeed],
    ) -> None:
        self.number = number
        self.wake = wake
        self._link = link
        self._source = source
        self._feeds = feeds
        self._generation = link.generation
        self._opening = threading.Lock()
        self._closed = False

    def open(self, *, earliest: bool, ends: float | None = None) -> None:
        """Have the server open it. `ends`: the deadline of the call that needs it."""
        assert self._source is not None
        self._link.ask("open", self.number, message_items.source(self._source), earliest, ends=ends)
        self._generation = self._link.generation

    def is_from(self, source: Source) -> None:
        """The inbox that the server has made for it."""
        self._source = source
        self._generation = self._link.generation

    def receive(self, limit: int) -> Received:
        """Claim what is due, in order."""
        found, bodies = self._ask("receive", limit, late=self._give_back)
        rows, retry_after = found
        return Received([message_items.delivered(row, bodies) for row in rows], retry_after)

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """Settle each, all in one transaction."""
        found, _ = self._ask("settle", [message_items.settlement(each) for each in settlements])
        return [None if value is None else from_wire(value) for value in found]

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        """Let each lease end `seconds` from now."""
        found, _ = self._ask("extend", [[each.id, each.attempt, each.tag] for each in deliveries], seconds)
        return [None if value is None else from_wire(value) for value in found]

    def use(self, properties: Properties) -> None:
        """Claim with its lease from now on."""
        if self._source is not None:
            self._source = self._source._replace(properties=properties)
        self._ask("use", properties.lease)

    def close(self) -> None:
        """Return deliveries in flight, counted. Where the server is not reached, it does so when it misses us."""
        if self._closed:
            return
        self._closed = True
        self._feeds.pop(self.number, None)
        if self._generation == self._link.generation:
            with contextlib.suppress(NarrowboatError):
                self._link.ask("close", self.number)

    def _give_back(self, answer: list[Any]) -> None:
        """Nobody waits any more for what was received: it goes back to its place, uncounted."""
        match answer:
            case ["ok", [[_, *_] as rows, _]]:
                self._link.tell("settle", self.number, [[row[0], row[4], row[11], ["return"]] for row in rows])

    def _ask(self, op: str, *args: Any, late: Any = None, ends: float | None = None) -> tuple[Any, Any]:
        """Ask for this feed, which is opened again where the server has forgotten it. `ends`: at the second try."""
        again, ends = ends is not None, self._link.ends() if ends is None else ends
        if self._closed:
            path = self._source.address.path if self._source else ""
            raise Closed(f"this consumer of {path!r} was closed", backend=SCHEME)
        if self._generation != self._link.generation:  # the server has begun anew since, and knows no feed of ours
            with turn(self._opening, ends - time.monotonic(), lambda: not_sent(self._link.where, op, self._link.timeout)):
                if self._generation != self._link.generation:
                    self.open(earliest=False, ends=ends)
        try:
            return self._link.ask(op, self.number, *args, late=late, ends=ends)
        except Forgotten:
            self._generation = -1
            if again:
                raise
        return self._ask(op, *args, late=late, ends=ends)
