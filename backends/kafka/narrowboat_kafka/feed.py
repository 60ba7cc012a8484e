"""One consumer of one source: hands out what its member has, and settles it. All waiting is for the server's answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from narrowboat.contract import Ack, Address, Delivery, Feed, Nack, Outcome, Received, Reject, Return
from narrowboat.driver.sources import has_dead_letters
from narrowboat.errors import Closed, NarrowboatError, Unsupported
from narrowboat_kafka.connections import Connections
from narrowboat_kafka.errors import stale, too_large, translate, unpublished
from narrowboat_kafka.format import records
from narrowboat_kafka.format.records import Record
from narrowboat_kafka.format.stored import Stored
from narrowboat_kafka.member.member import Member
from narrowboat_kafka.member.partition import Tag, Taken
from narrowboat_kafka.options import SCHEME
from narrowboat_kafka.publishing import moves
from narrowboat_kafka.publishing.publisher import Publisher
from narrowboat_kafka.topology.sources import Sources

#: Seconds after which an idle consumer looks although nothing woke it: a net, no rhythm.
_IDLE = 30.0
#: The same while its member has not joined, or has lost what it had.
_SOON = 2.0


class Shared(NamedTuple):
    """What all feeds of one broker object use."""

    connections: Connections
    publisher: Publisher
    sources: Sources
    levels: int  #: how many partitions a retry topic has
    tell: Callable[[str, str, str], None]  #: what is wrong with a message: the path of its source, its id, what it is

    def publish_bodiless(self, path: str, id: str, letter: Record, stored: Stored) -> NarrowboatError | None:
        """Publish a dead letter that is too large, without its body. What is wrong with that."""
        (failed,) = self.publisher.publish([records.without_body(letter, stored)])
        if failed is not None:
            return unpublished(failed.error, id, path, left=failed.left)
        where = f"topic {stored.topic!r}, partition {stored.partition}, offset {stored.offset}"
        self.tell(path, id, f"it is too large for the dead letters: its body is only in {where}")
        return None


class KafkaFeed(Feed):
    """See the module's text. `left`: told of its end."""

    def __init__(
        self, shared: Shared, address: Address, member: Member, wake: Callable[[], None], left: Callable[[KafkaFeed], None]
    ) -> None:
        self.address = address
        self.member = member
        self._shared = shared
        self._left = left
        self._connections = shared.connections
        self._closed = False
        self._deliveries = member.deliveries
        self._deliveries.feeds[self] = wake

    def receive(self, limit: int) -> Received:
        """Hand out what there is, its claims committed. Never waits for a message."""
        self._check_open()
        taken = Taken()
        try:
            self._connections.call(self._deliveries.take, self, limit, taken)
            now = time.time()
            found = [records.delivery(tag.record, tag.claims, now, tag) for tag in taken]
            received = Received(found, _IDLE if self.member.parts else _SOON)
        except Exception as error:
            self._untake(taken)
            raise translate(error, f"receiving from {self.address.path!r}") from error
        except BaseException:  # an interrupt: what was taken for this call goes back
            self._untake(taken)
            raise
        return received

    def _untake(self, taken: Taken) -> None:
        """Nobody will see what this call was given: give it back, uncounted."""
        taken.abandoned = True
        try:
            self._connections.loop.call_soon_threadsafe(self._deliveries.untake, taken)
        except RuntimeError:
            pass  # closed meanwhile, and with that given back

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """Publish what goes elsewhere, then settle it all; one commit."""
        if self._closed:
            self._connections.check_open()
            return [stale(delivery.id, self.address.path) for delivery, _ in settlements]
        answers: list[NarrowboatError | None] = [None] * len(settlements)
        wanted: list[tuple[int, Tag, str]] = []
        moves: list[tuple[int, Tag, Record]] = []
        try:
            for index, (delivery, outcome) in enumerate(settlements):
                tag: Tag = delivery.tag  # type: ignore[assignment]  # a delivery of ours
                if isinstance(outcome, Ack):
                    wanted.append((index, tag, "done"))
                    continue
                move = None
                if tag.done is None and self._deliveries.is_ours(tag):
                    move = self._move(tag, delivery, outcome)
                if move is not None:
                    moves.append((index, tag, move))
                else:
                    wanted.append((index, tag, self._how(tag, outcome)))
            for (index, tag, move), failed in zip(
                moves, self._shared.publisher.publish([move for *_, move in moves]), strict=True
            ):
                if failed is None:
                    wanted.append((index, tag, "done"))
                elif too_large(failed.error):
                    answers[index] = self._settle_large(tag, move, *settlements[index])
                    if answers[index] is None:
                        wanted.append((index, tag, "done" if isinstance(settlements[index][1], Reject) else "back"))
                else:
                    answers[index] = unpublished(failed.error, settlements[index][0].id, self.address.path, left=failed.left)
            ours = self._connections.call(self._deliveries.settle, [(tag, how) for _, tag, how in wanted]) if wanted else []
        except Exception as error:
            raise translate(error, f"settling messages of {self.address.path!r}") from error
        for (index, _, _), mine in zip(wanted, ours, strict=True):
            if not mine:
                answers[index] = stale(settlements[index][0].id, self.address.path)
        return answers

    def _settle_large(self, tag: Tag, move: Record, delivery: Delivery, outcome: Outcome) -> NarrowboatError | None:
        """It is too large to be published again: it waits where it is, or dies without its body. What is wrong with that."""
        if isinstance(outcome, Nack):
            tag.due = time.time() + outcome.delay
            return None
        return self._shared.publish_bodiless(self.address.path, delivery.id, move, tag.record)

    def _how(self, tag: Tag, outcome: Outcome) -> str:
        if isinstance(outcome, Nack) and outcome.delay <= 0 and self._deliveries.has_metadata_room(tag):
            return "back"
        return "return" if isinstance(outcome, Return) else "done"

    def _move(self, tag: Tag, delivery: Delivery, outcome: Outcome) -> Record | None:
        """Where the message goes, where it does not just stay."""
        sources = self._shared.sources
        if isinstance(outcome, Nack) and (outcome.delay > 0 or not self._deliveries.has_metadata_room(tag)):
            topic = sources.retry(self.address)
            return moves.later(tag.record, topic, self._shared.levels, delay=outcome.delay, attempts=delivery.attempt)
        if isinstance(outcome, Reject) and has_dead_letters(self.address):
            return moves.dead_letter(tag.record, sources.topic(self.address.dead), outcome, self.address.path)
        return None

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        """Not to be had: a delivery is ours as long as its partition is."""
        raise Unsupported("a lease of Kafka is the membership in a group and cannot be extended", backend=SCHEME)

    def current(self, delivery: Delivery) -> bool:
        """Whether its partition is still ours, as far as we have heard."""
        tag: Tag = delivery.tag  # type: ignore[assignment]  # a delivery of ours
        return tag.part.owned and not self._closed

    def close(self) -> None:
        """Give back what is unsettled, counted; the last one leaves the group."""
        if not self._closed:
            self._closed = True
            self._left(self)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"the consumer of {self.address.path!r} was closed", backend=SCHEME)
