"""One consumer of one source: hands out what its member has, and settles it. All waiting is for the server's answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from narrowboat.contract import Ack, Address, Delivery, Feed, Nack, Outcome, Received, Reject, Return
from narrowboat.errors import Closed, NarrowboatError, Unsupported
from narrowboat_kafka import levels, records
from narrowboat_kafka.errors import stale, too_large, translate, unpublished
from narrowboat_kafka.member import Member
from narrowboat_kafka.options import SCHEME
from narrowboat_kafka.part import Tag, Taken
from narrowboat_kafka.publisher import publish
from narrowboat_kafka.records import Record

if TYPE_CHECKING:
    from narrowboat_kafka.driver import KafkaBroker

#: Seconds after which an idle consumer looks although nothing woke it: a net, no rhythm.
_IDLE = 30.0
#: The same while its member has not joined, or has lost what it had.
_SOON = 2.0


class KafkaFeed(Feed):
    """See the module's text."""

    def __init__(self, broker: KafkaBroker, address: Address, member: Member, wake: Callable[[], None]) -> None:
        self.address = address
        self.member = member
        self._broker = broker
        self._clients = broker.clients
        self._closed = False
        self._deliveries = member.deliveries
        self._deliveries.feeds[self] = wake

    def receive(self, limit: int) -> Received:
        """Hand out what there is, its claims committed. Never waits for a message."""
        self._check_open()
        taken = Taken()
        try:
            self._clients.call(self._deliveries.take, self, limit, taken)
            now = time.time()
            found = [records.delivery(tag.record, tag.claims, now, tag) for tag in taken]
            return Received(found, _IDLE if self.member.parts else _SOON)
        except Exception as error:
            self._untake(taken)
            raise translate(error, f"receiving from {self.address.path!r}") from error
        except BaseException:  # an interrupt: what was taken for this call goes back
            self._untake(taken)
            raise

    def _untake(self, taken: Taken) -> None:
        """Nobody will see what this call was given: give it back, uncounted."""
        taken.left = True
        try:
            self._clients.net.call_soon_with_future(self._deliveries.untake, taken)
        except RuntimeError:
            pass  # closed meanwhile, and with that given back

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """Publish what goes elsewhere, then settle it all; one commit."""
        if self._closed:
            self._clients.check_open()
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
                moves, publish(self._clients, [move for *_, move in moves]) if moves else (), strict=True
            ):
                if failed is None:
                    wanted.append((index, tag, "done"))
                elif too_large(failed.error):
                    answers[index] = self._settle_large(tag, move, *settlements[index])
                    if answers[index] is None:
                        wanted.append((index, tag, "done" if isinstance(settlements[index][1], Reject) else "back"))
                else:
                    answers[index] = unpublished(failed.error, settlements[index][0].id, self.address.path, left=failed.left)
            ours = self._clients.call(self._deliveries.settle, [(tag, how) for _, tag, how in wanted]) if wanted else []
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
        (failed,) = publish(self._clients, [records.without_body(move, tag.record)])
        if failed is not None:
            return unpublished(failed.error, delivery.id, self.address.path, left=failed.left)
        where = f"topic {tag.record.topic!r}, partition {tag.record.partition}, offset {tag.offset}"
        self._broker.tell(self.address.path, delivery.id, f"it is too large for the dead letters: its body is only in {where}")
        return None

    def _how(self, tag: Tag, outcome: Outcome) -> str:
        if isinstance(outcome, Nack) and outcome.delay <= 0 and self._deliveries.roomy(tag):
            return "back"
        return "return" if isinstance(outcome, Return) else "done"

    def _move(self, tag: Tag, delivery: Delivery, outcome: Outcome) -> Record | None:
        """Where the message goes, where it does not just stay."""
        topology = self._broker.topology
        if isinstance(outcome, Nack) and (outcome.delay > 0 or not self._deliveries.roomy(tag)):
            now = time.time()
            topic = topology.retry(self.address)
            self._broker.watch.look(topic)
            level = levels.level(outcome.delay, self._broker.levels)
            changes = {
                records.ATTEMPTS: str(delivery.attempt),
                records.DUE: repr(now + outcome.delay),
                records.STEP: repr(now + levels.stay(level)),
            }
            return records.again(tag.record, topic, level, changes)
        if isinstance(outcome, Reject) and not self.address.path.endswith(".dead"):
            changes = {
                records.DEAD_REASON: outcome.reason,
                records.DEAD_ATTEMPTS: str(outcome.attempts),
                records.DEAD_ORIGIN: self.address.path,
            }
            dropped = (records.ATTEMPTS, records.EXPIRES)  # it lives, and is counted, anew
            record = records.again(tag.record, topology.topic(self.address.dead), None, changes)
            return record._replace(headers=[each for each in record.headers if each[0] not in dropped])
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
            self._broker.leave(self)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"the consumer of {self.address.path!r} was closed", backend=SCHEME)
