"""One consumer of one queue that is read by a share group. The classic groups' is `feed.py` of the package.

What stays in the queue is settled by the server: acknowledged, released, rejected. What goes elsewhere (to wait, to the dead
letters, back uncounted) is published first and acknowledged then, so a crash in between repeats it and loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from narrowboat.contract import Ack, Address, Delivery, Feed, Nack, Outcome, Received, Reject, Return
from narrowboat.driver.sources import DEAD, has_dead_letters
from narrowboat.errors import Closed, NarrowboatError, Unsupported
from narrowboat_kafka.errors import stale, too_large, translate, unpublished
from narrowboat_kafka.feed import Shared
from narrowboat_kafka.format import records
from narrowboat_kafka.format.records import Record
from narrowboat_kafka.options import SCHEME
from narrowboat_kafka.publishing import moves
from narrowboat_kafka.share.locked import Answer, Locked, Settler
from narrowboat_kafka.share.locks import Terms
from narrowboat_kafka.share.reader import Reader
from narrowboat_kafka.share.readers import ASKED, Readers
from narrowboat_kafka.share.seam import Verdict

#: Deliveries before the last that the server lets a message have. With them it is published anew, and counted on by us: a
#: process that dies in the midst of that leaves more.
_SPARE = 2


class ShareFeed(Feed):
    """See the module's text.

    `make`: a member that asks for so many messages at a time. `terms`: what the server does. `identify`: which topic it is.
    `left`: told of its end.
    """

    def __init__(
        self,
        shared: Shared,
        address: Address,
        make: Callable[[int], Reader],
        terms: Terms,
        wake: Callable[[], None],
        *,
        identify: Callable[[], object],
        left: Callable[[ShareFeed], None],
    ) -> None:
        self.address = address
        self._shared = shared
        self._last = max(2, terms.limit - _SPARE)
        #: Dead letters keep their order, so none is published anew that can be released, although that counts: for none of
        #: them it matters how often it was looked at.
        self._in_place = address.name.endswith(DEAD)
        self._left = left
        self._closed = False
        self.readers = Readers(make, wake, sift=self._sift, give_back=self._give_back, identify=identify)

    # -- receiving ------------------------------------------------------------------------------------------------

    def receive(self, limit: int) -> Received:
        """Hand out what there is. Waits for one look, and for no message."""
        if self._closed:
            raise Closed(f"the consumer of {self.address.path!r} was closed", backend=SCHEME)
        taken: list[Locked] = []
        try:
            taken += self.readers.take(limit)
            now = time.time()
            return Received([records.delivery(each.record, each.count, now, each) for each in taken], ASKED / 4)
        except Exception as error:
            raise translate(error, f"receiving from {self.address.path!r}") from error
        except BaseException:  # an interrupt: what was taken for this call is for the next
            self.readers.put_back(taken)
            raise

    def _sift(self, found: Sequence[Locked]) -> list[Locked]:
        """Those that are for a consumer: not expired, and not so often handed out that the server is about to drop them."""
        now = time.time()
        expired = [each for each in found if records.expires(each.record) <= now]
        if expired:
            self._settle([(each, Verdict.ACCEPT) for each in expired])
        worn = [each for each in found if each.count >= self._last and each not in expired]
        if worn:
            self._publish_anew(worn)
        return [each for each in found if each not in expired and each not in worn] if expired or worn else list(found)

    # -- settling -------------------------------------------------------------------------------------------------

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """Publish what goes elsewhere, then settle it all; one request for each member that has some of it."""
        answers: list[NarrowboatError | None] = [None] * len(settlements)
        wanted: list[tuple[int, Locked, Verdict]] = []
        moving: list[tuple[int, Locked, Record]] = []
        path = self.address.path
        try:
            for index, (delivery, outcome) in enumerate(settlements):
                tag: Locked = delivery.tag  # type: ignore[assignment]  # a delivery of ours
                move = None if isinstance(outcome, Ack) or not tag.held else self._move(tag, outcome)
                if move is None:
                    stays = self._in_place and isinstance(outcome, Return)
                    wanted.append((index, tag, Verdict.RELEASE if stays else _verdict(outcome)))
                else:
                    moving.append((index, tag, move))
            stored = self._shared.publisher.publish([move for *_, move in moving])
            for (index, tag, move), failed in zip(moving, stored, strict=True):
                delivery, outcome = settlements[index]
                if failed is None:
                    wanted.append((index, tag, _verdict(outcome)))
                elif too_large(failed.error) and not isinstance(outcome, Reject):
                    wanted.append((index, tag, Verdict.RELEASE))  # only another program's can be: it comes at once, counted
                elif too_large(failed.error):
                    answers[index] = self._shared.publish_bodiless(path, delivery.id, move, tag.record)
                    if answers[index] is None:
                        wanted.append((index, tag, Verdict.REJECT))
                else:
                    answers[index] = unpublished(failed.error, delivery.id, path, left=failed.left)
            told = self._settle([(tag, verdict) for _, tag, verdict in wanted])
        except Exception as error:
            raise translate(error, f"settling messages of {path!r}") from error
        for (index, _, _), answer in zip(wanted, told, strict=True):
            if answer is False:
                answers[index] = stale(settlements[index][0].id, path, locked=True)
            elif answer is not True:
                answers[index] = translate(answer, f"settling the message {settlements[index][0].id!r} of {path!r}")
        return answers

    def _move(self, tag: Locked, outcome: Outcome) -> Record | None:
        """What the message becomes, where it does not just stay."""
        sources = self._shared.sources
        if isinstance(outcome, Nack) and outcome.delay > 0:
            topic = sources.retry(self.address)
            return moves.later(tag.record, topic, self._shared.levels, delay=outcome.delay, attempts=tag.attempts)
        if isinstance(outcome, Reject) and has_dead_letters(self.address):
            return moves.dead_letter(tag.record, sources.topic(self.address.dead), outcome, self.address.path)
        return moves.anew(tag.record, tag.attempts - 1) if isinstance(outcome, Return) and not self._in_place else None

    def _give_back(self, surplus: Sequence[Locked]) -> None:
        """Put back what no consumer has seen, uncounted but for dead letters."""
        if self._in_place:
            self._settle([(each, Verdict.RELEASE) for each in surplus])
        else:
            self._publish_anew(surplus)

    def _publish_anew(self, surplus: Sequence[Locked]) -> None:
        """At the end of the queue, uncounted. What cannot be published is released, and counted."""
        surplus = [each for each in surplus if each.held]
        stored = self._shared.publisher.publish([moves.anew(each.record, each.attempts - 1) for each in surplus])
        verdicts = [Verdict.ACCEPT if failed is None else Verdict.RELEASE for failed in stored]
        self._settle(list(zip(surplus, verdicts, strict=True)))

    @staticmethod
    def _settle(wanted: Sequence[tuple[Locked, Verdict]]) -> list[Answer]:
        by_reader: dict[Settler, list[int]] = {}
        for index, (each, _) in enumerate(wanted):
            by_reader.setdefault(each.reader, []).append(index)
        answers: list[Answer] = [False] * len(wanted)
        for reader, indexes in by_reader.items():
            for index, answer in zip(indexes, reader.settle([wanted[index] for index in indexes]), strict=True):
                answers[index] = answer
        return answers

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        """Not to be had: librdkafka cannot renew a lock."""
        raise Unsupported("the lock of a message of a share group cannot be extended", backend=SCHEME)

    def current(self, delivery: Delivery) -> bool:
        """Whether its lock stands, by our clock."""
        tag: Locked = delivery.tag  # type: ignore[assignment]  # a delivery of ours
        return tag.ours and not self._closed

    # -- the end --------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Take nothing more; what nobody has received goes back now, uncounted."""
        self.readers.leave()

    def close(self) -> None:
        """Give back what is unsettled, counted, and leave the group."""
        if not self._closed:
            self._closed = True
            self._left(self)


def _verdict(outcome: Outcome) -> Verdict:
    """What the server is told. What goes elsewhere is done with here."""
    if isinstance(outcome, Reject):
        return Verdict.REJECT
    return Verdict.RELEASE if isinstance(outcome, Nack) and outcome.delay <= 0 else Verdict.ACCEPT
