"""The messages of one namespace as one broker sees them: its connections, the feeds that wait, and what all calls decide alike.

Broker and feeds stand on it. What a call does is theirs to know.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from narrowboat.contract import Address, Context, Properties
from narrowboat.driver.sources import Declare
from narrowboat.driver.waking import Bell
from narrowboat.dsn import Url
from narrowboat.errors import Closed
from narrowboat_postgresql.contents import target
from narrowboat_postgresql.errors import refuse
from narrowboat_postgresql.listening import Listening
from narrowboat_postgresql.options import SCHEME, MessageOptions
from narrowboat_postgresql.place import Place
from narrowboat_postgresql.session import Session

#: Notifications for one source above which nobody counts.
_ALL = 1 << 30


class Messages:
    """See the module's text. From any thread."""

    def __init__(self, url: Url, options: MessageOptions, context: Context) -> None:
        self.place = Place(url, options, context.timeout)
        self.options = options
        self.clock = context.clock
        #: Whether queues and topics are made on the way.
        self.auto_declare = options.declare is Declare.AUTO
        self.retention = str(options.retention)
        self.closed = False
        self._process = os.getpid()
        self.taking, self.freeing, self.sending, self.looking = (Session(self.place) for _ in range(4))
        self._bell: Bell[str] = Bell()
        self._listening = Listening(self.place, "ear", self._heard, self._bell.ring_all)
        self._feeds: dict[str, int] = {}

    def check_open(self) -> None:
        """Raise `Closed` after `close`, and in a forked child, where the connections are the parent's."""
        if os.getpid() != self._process:
            raise Closed(
                f"this consumer or broker on {self.place.endpoint} is the parent's; open a new one after a fork", backend=SCHEME
            )
        if self.closed:
            raise Closed(f"this broker on {self.place.endpoint} was closed; open it again", backend=SCHEME)

    def close(self) -> None:
        """End the thread and close the connections."""
        self.closed = True
        self._listening.close()
        for session in (self.taking, self.freeing, self.sending, self.looking):
            session.close()

    def declare(self, session: Session, address: Address, properties: Properties, *, earliest: bool) -> int:
        """The number of a source, made if need be; raises what stands against it."""
        wanted = [str(properties.lease), str(properties.max_deliveries), _truth(properties.ordered), str(properties.priorities)]
        options = [_truth(self.auto_declare), _truth(earliest), self.retention]
        (row,) = session.call("declare", *target(address), *wanted, *options, doing=f"declaring {address.path!r}")
        verdict, number, kind, path, lease, deliveries, ordered, priorities = [(each or b"").decode() for each in row]
        if verdict == "missing":
            raise refuse.missing(address.path, address.kind.value)
        if verdict == "taken":
            expected = address.kind.value if path == address.path else "topic"
            raise refuse.taken(path, kind, expected)
        if verdict == "differs":
            stored = {
                "lease": float(lease),
                "max_deliveries": int(deliveries),
                "ordered": ordered == "t",
                "priorities": int(priorities),
            }
            found = refuse.differs(address.path, stored, properties)
            if found is not None:  # else it has another lease or limit for those who ask for none
                raise found
        return int(number)

    def channel(self, number: int) -> str:
        """Where it is notified that messages of a source are ready."""
        return f"{self.options.schema}.m.{number}"

    def arm(self, channel: str, feed: object, wake: Callable[[], None], until: float) -> None:
        """`feed` is about to look for the last time before it waits."""
        self._bell.arm(channel, feed, wake, until)

    def disarm(self, channel: str, feed: object) -> None:
        """`feed` found something, or ends."""
        self._bell.disarm(channel, feed)

    def hears(self, channel: str) -> bool:
        """Whether its notifications are heard."""
        return self._listening.hears(channel)

    def hear(self, channel: str) -> bool:
        """Make sure that they are, which takes a moment at first. Whether they are."""
        try:
            self._listening.want(channel)
        except RuntimeError:  # no thread is left: the feed polls, and tries again
            return False
        return self._listening.await_channel(channel, self.place.timeout)

    def enter(self, channel: str) -> None:
        """One more feed reads this source."""
        self._feeds[channel] = self._feeds.get(channel, 0) + 1

    def leave(self, channel: str) -> None:
        """One less."""
        self._feeds[channel] = self._feeds.get(channel, 0) - 1
        if self._feeds[channel] <= 0:
            del self._feeds[channel]
            self._listening.unwant(channel)

    def _heard(self, channel: str, text: str) -> None:
        self._bell.ring(channel, int(text) if text.isdigit() and len(text) < 9 else _ALL, self.clock())


def _truth(value: bool) -> str:
    return "t" if value else "f"
