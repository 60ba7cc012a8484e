"""One consumer's stream from one queue, subscription or inbox.

A feed that found nothing makes sure that it is notified before it looks for the last time. From then on it looks when it is
woken, when something in its source is due, and every few seconds in any case.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import cast

from narrowboat.contract import Ack, Address, Delivery, Feed, Kind, Nack, Outcome, Properties, Received, Reject, Source
from narrowboat.driver.sources import dead_headers, has_dead_letters
from narrowboat.errors import Closed, NarrowboatError
from narrowboat_postgresql import contents
from narrowboat_postgresql.errors import refuse
from narrowboat_postgresql.messages import Messages
from narrowboat_postgresql.options import SCHEME, fit

#: Seconds until an idle feed looks again without a wake. Smaller costs the server in every idle consumer. Larger delays a
#: message whose wake was lost with a connection that nobody has missed yet.
IDLE = 2.0
#: The same while no notification can be heard.
FALLBACK = 0.25
#: It looks within this of the end of the shortest lease, so that what a dead consumer had comes back within `lease_lag`.
LAG = 0.3

Tag = tuple[int, int]  #: row of `message`, number of the claim


class PostgresFeed(Feed):
    """A feed; `tag` of its deliveries is a `Tag`. `left`: told of its end."""

    def __init__(
        self,
        messages: Messages,
        source: Source,
        number: int,
        wake: Callable[[], None],
        left: Callable[[PostgresFeed], None],
    ) -> None:
        self._messages = messages
        self._source = source
        self._number = number
        self._channel = messages.channel(number)
        self._wake = wake
        self._left = left
        self._idle = _idle(source.properties)
        self._plenty = False  #: the last claim was as large as was asked for, so there will be more
        #: Deliveries in flight, for `close` alone; the database decides what is still claimed.
        self._out: dict[int, int] = {}
        self._closed = False
        messages.enter(self._channel)

    @property
    def address(self) -> Address:
        """What it reads."""
        return self._source.address

    def receive(self, limit: int) -> Received:
        """Claim what is due, in order."""
        self._messages.check_open()
        if self._closed:
            raise Closed(f"this consumer of {self.address.path!r} was closed", backend=SCHEME)
        if not self._plenty:
            self._arm()
            if not self._messages.hears(self._channel):
                self._plenty = True  # look first: who finds something needs to hear nothing
        rows, deaf, rest = self._claim(limit)
        if not rows and (self._plenty or deaf):
            self._messages.hear(self._channel)
            if deaf:
                self._messages.taking.call("listen", str(self._number), doing="asking to be notified")
            self._arm()
            rows, _, rest = self._claim(limit)
        self._plenty = len(rows) == limit
        if rows:
            self._messages.disarm(self._channel, self)
            rows.sort(key=contents.in_order)
            received = Received([contents.delivery(row) for row in rows], 0.0)
            for delivery in received.deliveries:
                row, claim = cast("Tag", delivery.tag)
                self._out[row] = claim
            return received
        most = self._idle if self._messages.hears(self._channel) else min(FALLBACK, self._idle)
        return Received([], most if rest is None else max(0.0, min(most, rest)))

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """Settle each, compared by the number of its claim, all in one transaction."""
        self._messages.check_open()
        answers: list[NarrowboatError | None] = [None] * len(settlements)
        rest = list(range(len(settlements)))
        while rest:
            once: dict[int, int] = {}  # one row twice: its first outcome stands, and is settled first
            for at in rest:
                once.setdefault(cast("Tag", settlements[at][0].tag)[0], at)
            self._settle(settlements, once, answers)
            rest = [at for at in rest if once[cast("Tag", settlements[at][0].tag)[0]] != at]
        return answers

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        """Let each lease end `seconds` from now."""
        self._messages.check_open()
        tags = sorted({cast("Tag", delivery.tag) for delivery in deliveries})
        rows = self._messages.freeing.call(
            "extend",
            contents.numbers([row for row, _ in tags]),
            contents.numbers([claim for _, claim in tags]),
            str(seconds),
            doing="extending leases",
        )
        ours = {int(row[0] or b"") for row in rows}
        return [None if cast("Tag", each.tag)[0] in ours else self._stale(each) for each in deliveries]

    def use(self, properties: Properties) -> None:
        """Claim with its lease from now on."""
        self._source = self._source._replace(properties=properties)
        self._idle = _idle(properties)

    def close(self) -> None:
        """Return deliveries in flight, counted. An inbox is deleted with its feed."""
        if self._closed:
            return
        self._closed = True
        self._messages.disarm(self._channel, self)
        self._messages.leave(self._channel)
        self._left(self)
        if self.address.kind is Kind.INBOX:
            self._messages.looking.call("drop", fit(self.address.path), self.address.kind.value, doing="closing an inbox")
            return
        tags = sorted(self._out.items())
        self._messages.looking.call(
            "leave",
            str(self._number),
            contents.numbers([row for row, _ in tags]),
            contents.numbers([claim for _, claim in tags]),
            "t",
            doing="closing a consumer",
        )
        self._out.clear()

    def _arm(self) -> None:
        self._messages.arm(self._channel, self, self._wake, self._messages.clock() + self._idle)

    def _claim(self, limit: int) -> tuple[list[tuple[bytes | None, ...]], bool, float | None]:
        """The rows that were claimed; or whether nobody notifies us, and the seconds until something is due."""
        for _ in range(3):
            rows = self._messages.taking.call(
                "receive",
                str(self._number),
                str(self._source.properties.lease),
                self._messages.retention,
                str(limit),
                doing=f"receiving from {self.address.path!r}",
                binary=True,
            )
            if not rows or rows[0][0] is not None:
                return rows, False, None
            if rows[0][4] != b"gone":
                return [], rows[0][4] == b"deaf", contents.rest_of(rows[0])
            self._again()
        return [], False, 0.0

    def _again(self) -> None:
        """The source was deleted: it is made again, or the consumer gets `NotFound`."""
        messages = self._messages
        if self.address.kind is Kind.INBOX:
            (row,) = messages.taking.call("inbox", self.address.path, doing="making an inbox again")
            number = int(row[0] or b"")
        else:
            number = messages.declare(messages.taking, *self._source, earliest=False)
        messages.disarm(self._channel, self)
        messages.leave(self._channel)
        self._number, self._channel = number, messages.channel(number)
        messages.enter(self._channel)
        self._arm()

    def _settle(
        self,
        settlements: Sequence[tuple[Delivery, Outcome]],
        once: dict[int, int],
        answers: list[NarrowboatError | None],
    ) -> None:
        acks: list[Tag] = []
        others: list[dict[str, object]] = []
        for at in once.values():
            delivery, outcome = settlements[at]
            row, claim = cast("Tag", delivery.tag)
            if isinstance(outcome, Ack):
                acks.append((row, claim))
            else:
                others.append({"id": row, "lease": claim, **self._other(delivery, outcome)})
        acks.sort()
        dead = self.address.dead.path if has_dead_letters(self.address) else None
        rows = self._messages.freeing.call(
            "settle",
            str(self._number),
            "t" if self._source.properties.ordered else "f",
            contents.numbers([row for row, _ in acks]),
            contents.numbers([claim for _, claim in acks]),
            json.dumps(others) if others else None,
            None if dead is None else fit(dead),
            dead,
            doing=f"settling deliveries of {self.address.path!r}",
        )
        settled = {int(row[0] or b"") for row in rows}
        for row, at in once.items():
            delivery = settlements[at][0]
            if -row in settled:
                answers[at] = refuse.taken(dead or "", "topic or subscription", "queue")
            elif row not in settled:
                answers[at] = self._stale(delivery)
            if self._out.get(row) == cast("Tag", delivery.tag)[1]:
                del self._out[row]

    def _other(self, delivery: Delivery, outcome: Outcome) -> dict[str, object]:
        if isinstance(outcome, Nack):
            return {"o": "n", "w": outcome.delay}
        if isinstance(outcome, Reject):
            headers = dead_headers(delivery.headers, reason=outcome.reason, attempts=outcome.attempts, origin=self.address.path)
            return {"o": "d", "h": json.dumps(headers)}
        return {"o": "r"}

    def _stale(self, delivery: Delivery) -> NarrowboatError:
        return refuse.stale(delivery.id, self.address.path, delivery.attempt)


def _idle(properties: Properties) -> float:
    return min(IDLE, properties.lease + LAG)
