"""One consumer's stream from one queue, subscription or inbox.

It has a random consumer name of its own. Closing the feed returns its unsettled deliveries and removes the name. The name of a
process that died is removed when its deliveries have come back.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import cast

from narrowboat.contract import Ack, Delivery, Feed, Kind, Nack, Outcome, Properties, Received, Reject, Source
from narrowboat.errors import Closed, NarrowboatError
from narrowboat_redis import entries
from narrowboat_redis.calls import Calls, call, source_script
from narrowboat_redis.errors import typed
from narrowboat_redis.properties import refusal, texts_of
from narrowboat_redis.resp import shown
from narrowboat_redis.streams import INBOX_TTL, StreamKeys

_RECEIVE, _SETTLE, _EXTEND, _LEAVE, _DELETE = map(source_script, ("receive", "settle", "extend", "leave", "delete"))

#: Seconds between two polls of an idle feed that nothing woke. Shorter costs the server calls for every idle consumer. Longer
#: delays a message whose wake went to a feed on which no consumer waits any more.
IDLE = 1.0
#: The same, in seconds, while there is no subscription to wake it.
ALERT = 0.3
#: Seconds after the end of the shortest lease at which the feed looks. Longer breaks `lease_lag` after a consumer died.
LAG = 0.4
#: Seconds between two heartbeats of an inbox.
SIGN = 15.0


class RedisFeed(Feed):
    """A feed; `tag` of its deliveries is the claim's token in bytes."""

    def __init__(
        self,
        calls: Calls,
        keys: StreamKeys,
        source: Source,
        wake: Callable[[], None],
        left: Callable[[RedisFeed], None],
    ) -> None:
        self.keys = keys
        self.endpoint = calls.endpoint
        self._calls = calls
        self._left = left
        self._path = keys.path
        self._wake = wake
        self._consumer = secrets.token_hex(8).encode()
        self._idle = min(IDLE, source.properties.lease + LAG)
        self._doing = f"receiving from {self._path!r}"
        inbox = keys.kind is Kind.INBOX
        self._properties = source.properties
        self._head = (
            keys.kind.value.encode(),
            keys.group,
            b"1" if inbox else calls.auto_declare,
            *texts_of(source.properties),
            self._consumer,
        )
        self._origin = self._path.encode()
        #: When the inbox behind this feed needs its next heartbeat.
        self._sign = calls.clock() + SIGN
        self._closed = False

    @typed
    def receive(self, limit: int) -> Received:
        """Claim what is due, in order."""
        calls = self._calls
        calls.check_open()
        if self._closed:
            raise Closed(f"this consumer of {self._path!r} was closed", backend=self.endpoint.scheme)
        now = calls.clock()
        heard = calls.waking.arm(self, self.keys, self._wake, now + self._idle)
        self._sign = now + SIGN
        claim = _RECEIVE(self.keys.all, (*self._head, b"%d" % limit, b"%d" % round(INBOX_TTL * 1000), calls.most))
        answer = calls.taking.ask(claim, self._doing)
        refused = refusal(answer, self.keys, self._properties, self.endpoint)
        if refused is not None:
            raise refused
        if len(answer) > 3:
            found = entries.deliveries(float(answer[1]), answer[3], answer[4], answer[5:])
            calls.waking.disarm(self, self.keys)
            return Received(found, 0.0)
        pause = self._idle if heard else min(self._idle, ALERT)
        if answer[2]:
            left = max(0.0, (int(answer[2]) - int(answer[1])) / 1e6)
            calls.mover.note(self.keys, left)
            pause = min(pause, left)
        return Received([], pause)

    @typed
    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """Settle each, compared by the token of its claim, all in one script."""
        self._calls.check_open()
        acks: list[bytes] = []
        others: list[bytes] = []
        first: list[int] = []  # the position of each in the script's answer
        behind: list[int] = []
        again: list[int] = []  # settled twice in one batch: the first outcome stands
        seen: set[bytes] = set()
        for index, (delivery, outcome) in enumerate(settlements):
            token = cast("bytes", delivery.tag)
            if token in seen:
                again.append(index)
                continue
            seen.add(token)
            if outcome.__class__ is Ack:
                acks.append(token)
                first.append(index)
            else:
                others += self._other(token, outcome)
                behind.append(index)
        answers: list[NarrowboatError | None] = [None] * len(settlements)
        what = _SETTLE(
            (*self.keys.all, self.keys.dead_stream),
            (*self._head[:2], self._origin, b"%d" % len(acks), *acks, *others),
        )
        letters = self._calls.freeing.ask(what, f"settling deliveries of {self._path!r}")
        for index, letter in zip((*first, *behind), _letters(letters, len(first) + len(behind)), strict=False):
            if letter != 46:  # "."
                answers[index] = self._refused(settlements[index][0], letter)
        for index in again:
            answers[index] = self._stale(settlements[index][0])
        return answers

    @typed
    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        """Let each lease end `seconds` from now."""
        self._calls.check_open()
        tokens = [cast("bytes", delivery.tag) for delivery in deliveries]
        what = call(_EXTEND, self.keys, b"%d" % round(seconds * 1e6), *tokens)
        letters = self._calls.freeing.ask(what, f"extending deliveries of {self._path!r}")
        answers: list[NarrowboatError | None] = [None] * len(deliveries)
        for index, letter in enumerate(_letters(letters, len(deliveries))):
            if letter != 46:
                answers[index] = self._stale(deliveries[index])
        return answers

    def use(self, properties: Properties) -> None:
        """Claim with its lease from now on."""
        self._properties = properties
        self._idle = min(IDLE, properties.lease + LAG)
        self._head = (*self._head[:3], *texts_of(properties), self._consumer)

    def close(self, ends: float | None = None) -> None:
        """Return unsettled deliveries, counted, and delete an inbox. `ends`: the deadline of who closes many feeds."""
        if self._closed:
            return
        self._closed = True
        calls = self._calls
        if ends is None:
            ends = calls.leaving(waited=False)
        calls.waking.leave(self, self.keys)
        self._left(self)
        if self.keys.kind is Kind.INBOX:
            calls.taking.ask(call(_DELETE, self.keys, self.keys.stream), "closing an inbox", ends)
        else:
            calls.taking.ask(call(_LEAVE, self.keys, self._consumer), f"closing a consumer of {self._path!r}", ends)

    def needs_sign(self) -> bool:
        """Whether it is an inbox of which nobody has heard for long."""
        return self.keys.kind is Kind.INBOX and self._calls.clock() >= self._sign

    def _other(self, token: bytes, outcome: Outcome) -> tuple[bytes, bytes, bytes]:
        if isinstance(outcome, Reject):
            return b"d", token, b"%d %b" % (outcome.attempts, outcome.reason.encode())
        if isinstance(outcome, Nack):
            if outcome.delay > 0:
                self._calls.mover.note(self.keys, outcome.delay)
            return b"n", token, b"%d" % -(-outcome.delay * 1e6 // 1)  # rounded up: never early
        return b"r", token, b""

    def _refused(self, delivery: Delivery, letter: int) -> NarrowboatError:
        if letter == 116:  # "t"
            return self.endpoint.refuse.taken(f"{self._path}.dead", "topic or subscription", "queue")
        return self._stale(delivery)

    def _stale(self, delivery: Delivery) -> NarrowboatError:
        return self.endpoint.refuse.stale(delivery.id, self._path, delivery.attempt)


def _letters(reply: object, number: int) -> bytes:
    """The letters of a script's answer: none when all went well, else one for each. Any other answer is an error."""
    if type(reply) is bytes and len(reply) in (0, number):
        return reply
    raise ValueError(f"{shown(reply)} for {number} deliveries")
