"""Brokers whose feeds deliver too much, too little or something else, or end badly."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence

from mutants import Mutant
from mutants.layers import Out, TellsBroker, TellsFeed, named
from narrowboat.contract.messages import Ack, Broker, Delivery, Feed, Outcome, Outgoing, Receipt, Received, Return
from narrowboat.errors import NarrowboatError, NotFound, Unavailable
from narrowboat.layers.passing import PassingBroker, PassingFeed


class AttemptsNotCounted(PassingFeed):
    """Says of each delivery that it is the first attempt."""

    def receive(self, limit: int) -> Received:
        received = self.inner.receive(limit)
        return received._replace(deliveries=[each._replace(attempt=1) for each in received.deliveries])


class ReceiveIgnoresItsLimit(PassingFeed):
    """Claims five messages more than it was asked for."""

    def receive(self, limit: int) -> Received:
        return self.inner.receive(limit + 5)


class ReceiveWaits(PassingFeed):
    """Waits for a batch to be full."""

    def receive(self, limit: int) -> Received:
        received = self.inner.receive(limit)
        if len(received.deliveries) < limit:
            time.sleep(3.2)
        return received


class LooksAllTheTime(PassingFeed):
    """Wants to be asked again at once when there is nothing."""

    def receive(self, limit: int) -> Received:
        return self.inner.receive(limit)._replace(retry_after=0.001)


class SwallowsOne(PassingFeed):
    """Acknowledges every third message that it fetches, and does not deliver it."""

    def __init__(self, inner: Feed) -> None:
        super().__init__(inner)
        self._number = itertools.count()

    def receive(self, limit: int) -> Received:
        received = self.inner.receive(limit)
        swallowed = [each for each in received.deliveries if next(self._number) % 3 == 2]
        if swallowed:
            self.inner.settle([(each, Ack()) for each in swallowed])
        return received._replace(deliveries=[each for each in received.deliveries if each not in swallowed])


class RedeliveryHasAHeaderMore(PassingFeed):
    """Adds a header of its own to each redelivery."""

    def receive(self, limit: int) -> Received:
        received = self.inner.receive(limit)
        return received._replace(deliveries=[self._again(each) for each in received.deliveries])

    @staticmethod
    def _again(delivery: Delivery) -> Delivery:
        if delivery.attempt == 1:
            return delivery
        return delivery._replace(headers={**delivery.headers, "x-delivery-count": str(delivery.attempt)})


class HeadersTakenForItsOwn(PassingFeed):
    """Takes a message's headers for fields of its own."""

    def receive(self, limit: int) -> Received:
        received = self.inner.receive(limit)
        return received._replace(deliveries=[each._replace(id=each.headers.get("id", each.id)) for each in received.deliveries])


# -- the end of a consumer, and who has one ------------------------------------------------------------------------


class CloseLoses(Out):
    """Drops the unsettled messages of a consumer that closes."""

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        settled = [delivery.tag for delivery, _ in settlements]
        self.out = [each for each in self.out if each.tag not in settled]
        return self.inner.settle(settlements)

    def close(self) -> None:
        out, self.out = self.out, []
        self.inner.settle([(delivery, Ack()) for delivery in out])
        self.inner.close()


class CloseKeeps(PassingFeed):
    """Lets a consumer that closes keep its unsettled messages until their lease ends."""

    def close(self) -> None:
        """Do nothing."""


class _EndsAll(TellsFeed):
    def receive(self, limit: int) -> Received:
        if self._broker.ended:
            raise NotFound("the channel is closed")
        return self.inner.receive(limit)

    def close(self) -> None:
        self._broker.ended = True
        self.inner.close()


class CloseOfOneEndsAll(TellsBroker):
    """Ends all consumers of a connection when one of them closes."""

    kind = _EndsAll
    ended = False


class HandsOutWhatHasEnded(PassingBroker):
    """Delivers again what an ended claim had fetched, as if it had been fetched anew."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self.left: list[Delivery] = []

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        return _LeavesItsBuffer(inner, self)


class _LeavesItsBuffer(Out):
    def __init__(self, inner: Feed, broker: HandsOutWhatHasEnded) -> None:
        super().__init__(inner)
        self._broker = broker

    def receive(self, limit: int) -> Received:
        left = self._broker.left[:limit]
        del self._broker.left[:limit]
        return Received(left, 0.0) if left else super().receive(limit)

    def close(self) -> None:
        self._broker.left += self.out
        self.inner.close()


class OneEntryStopsAll(PassingFeed):
    """Fails at each look while an entry is there whose bytes are no text."""

    def receive(self, limit: int) -> Received:
        received = self.inner.receive(limit)
        for each in received.deliveries:
            try:
                each.body.decode()
            except UnicodeDecodeError as error:
                self.inner.settle([(each, Return()) for each in received.deliveries])
                raise Unavailable(f"cannot be read: {error}") from error
        return received


class ThreadForEachFeed(PassingFeed):
    """Has a thread for each consumer."""

    def __init__(self, inner: Feed) -> None:
        super().__init__(inner)
        self._over = threading.Event()
        threading.Thread(target=self._over.wait, args=(60.0,), name="of-a-feed", daemon=True).start()

    def close(self) -> None:
        self._over.set()
        self.inner.close()


class _OfAThread(TellsFeed):
    def receive(self, limit: int) -> Received:
        self._broker.check()
        return self.inner.receive(limit)


class BelongsToItsThread(TellsBroker):
    """Works in no other thread than the one that used it first."""

    kind = _OfAThread
    _thread: int | None = None

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        self.check()
        return self.inner.send(messages)

    def check(self) -> None:
        me = threading.get_ident()
        if self._thread is None:
            self._thread = me
        if self._thread != me:
            raise RuntimeError("created in one thread, and used in another")


MUTANTS: list[Mutant] = [
    named(AttemptsNotCounted, "B22", "B32", "B34", "B120"),
    named(ReceiveIgnoresItsLimit, "B35", "B36", "B104"),
    named(ReceiveWaits, "B08"),
    named(LooksAllTheTime, "B103"),
    named(SwallowsOne, "B01", "B62", "B97"),
    named(RedeliveryHasAHeaderMore, "B10"),
    named(HeadersTakenForItsOwn, "B112"),
    named(CloseLoses, "B33", "B79"),
    named(CloseKeeps, "B94"),
    named(CloseOfOneEndsAll, "B91"),
    named(HandsOutWhatHasEnded, "B121"),
    named(OneEntryStopsAll, "B120"),
    named(ThreadForEachFeed, "B105"),
    named(BelongsToItsThread, "B111"),
]
