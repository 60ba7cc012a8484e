"""An answer may become more certain, never wrong: nobody is told "nothing was changed" of what was done."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import narrowboat
from narrowboat._engine.exchange import Op, may_have_happened, perform
from narrowboat.contract import Ack, Broker, Delivery, Feed, Grant, LockProvider, Nack, Outcome, Reject, Released, Source
from narrowboat.errors import AccessDenied, NarrowboatError, SettleUnknown, StaleDelivery, Unavailable
from narrowboat.layers.passing import PassingBroker, PassingFeed, PassingLocks
from narrowboat.messaging import Batch

#: What becomes of one exchange: done; done and its answer lost; lost on the way there; known not to be sent; refused.
FATES = ("done", "answer lost", "request lost", "not sent", "refused")
ERRORS: dict[str, Callable[[], NarrowboatError]] = {
    "answer lost": lambda: Unavailable("no answer"),
    "request lost": lambda: Unavailable("no answer"),
    "not sent": lambda: Unavailable("connection refused", sent=False),
    "refused": lambda: AccessDenied("no right"),
}
fates = st.lists(st.sampled_from(FATES), max_size=8)

T = TypeVar("T")


def struck(fate: str, call: Callable[[], T]) -> T:
    """Make `call` or not, and answer as the network lets it."""
    if fate in ("done", "answer lost"):
        answers = call()
    if fate != "done":
        raise ERRORS[fate]()
    return answers


@given(st.integers(1, 6), fates, st.data())
def test_no_repetition_within_a_lane_denies_what_was_done(count: int, plan: Iterable[str], data: st.DataObject) -> None:
    """The whole rule on the lane alone: members that were ours or not, any fate of any exchange."""
    ours = [data.draw(st.booleans()) for _ in range(count)]
    done: set[int] = set()
    left = iter(plan)

    def exchange(items: Sequence[int]) -> list[str]:
        def call() -> list[str]:
            answers = ["done" if ours[item] and item not in done else "denied" for item in items]
            done.update(item for item in items if ours[item])
            return answers

        return struck(next(left, "done"), call)

    answers = perform(Op("do", exchange, repeatable=True, denies=lambda answer: answer == "denied"), range(count))

    for item, answer in enumerate(answers):
        assert answer != "denied" or item not in done, f"{item} was done, and is denied"
        assert answer != "done" or item in done
        assert may_have_happened(answer) or item not in done or answer == "done", f"{item} was done, and {answer!r} says not"


class Struck(PassingBroker):
    """A broker whose settlements meet their fates; `gone`: after the first loss its channel knows no delivery any more."""

    def __init__(self, inner: Broker, plan: Iterable[str], gone: bool) -> None:
        super().__init__(inner)
        self.plan = iter(plan)
        self.gone = gone
        self.broken = False

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        return StruckFeed(inner, self)


class StruckFeed(PassingFeed):
    def __init__(self, inner: Feed, broker: Struck) -> None:
        super().__init__(inner)
        self.broker = broker

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        broker = self.broker
        if broker.broken:
            return [StaleDelivery("the channel is gone", id=each.id) for each, _ in settlements]
        fate = next(broker.plan, "done")
        broker.broken = broker.gone and fate == "answer lost"
        return struck(fate, lambda: self.inner.settle(settlements))


@settings(deadline=None)
@given(
    st.integers(1, 5),
    fates,
    st.booleans(),
    st.sampled_from([Ack(), Nack(), Reject("why", 0)]),
    st.integers(1, 3),
)
def test_stale_means_that_nothing_was_changed(
    count: int, plan: Iterable[str], gone: bool, outcome: Outcome, tries: int
) -> None:
    """Through the public face: one batch, settled again by its user as long as that may help."""
    url = f"memory://{uuid.uuid4().hex}"
    with (
        narrowboat.broker(url, wrap=lambda driver: Struck(driver, plan, gone)) as broker,
        narrowboat.broker(url) as outside,
        broker.queue("q").consume() as messages,
    ):
        broker.queue("q").publish_many([b"x"] * count)
        batch = next(messages.batches(count, wait=1.0))
        told: list[object] = [None] * count
        for _ in range(tries):
            answers = settle(batch, outcome)
            for index, answer in enumerate(answers):
                if not (told[index] is None and isinstance(answer, StaleDelivery) and _):
                    told[index] = answer
        in_flight = outside.queue("q").depth().in_flight
        assert in_flight is not None

        told_done = sum(answer is None for answer in told)
        told_nothing = sum(isinstance(answer, StaleDelivery | AccessDenied) for answer in told)
        assert told_done <= count - in_flight, f"{told}: {in_flight} are in flight still"
        assert told_nothing <= in_flight, f"{told}: only {in_flight} are in flight still"
        assert all(answer is None or isinstance(answer, NarrowboatError) for answer in told)


def settle(batch: Batch[bytes], outcome: Outcome) -> list[NarrowboatError | None]:
    """As the user would."""
    if isinstance(outcome, Ack):
        return batch.ack()
    return batch.nack() if isinstance(outcome, Nack) else batch.reject("why")


class StruckLocks(PassingLocks):
    """Locks whose releases meet their fates."""

    def __init__(self, inner: LockProvider, plan: Iterable[str]) -> None:
        super().__init__(inner)
        self.plan = iter(plan)

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        return struck(next(self.plan, "done"), lambda: self.inner.release(grants))


@settings(deadline=None)
@given(st.integers(1, 5), fates)
def test_a_release_is_not_denied_by_its_own_repetition(count: int, plan: Iterable[str]) -> None:
    """What a batch of releases freed is not told to have been somebody else's."""
    url = f"memory://{uuid.uuid4().hex}"
    with narrowboat.locks(url, wrap=lambda driver: StruckLocks(driver, plan)) as locks:
        held = [locks.lock(f"n{number}").acquire() for number in range(count)]
        answers = perform(locks._core.RELEASE, [each._grant for each in held])

        assert Released.NOT_HELD not in answers, f"freed by ourselves, and told otherwise: {answers}"


def test_a_settlement_that_may_have_been_done_stays_in_doubt() -> None:
    """Also when its user repeats it: the second answer says what is so now, not what the first call did."""
    url = f"memory://{uuid.uuid4().hex}"
    with (
        narrowboat.broker(url, wrap=lambda driver: Struck(driver, ["answer lost"], gone=True)) as broker,
        broker.queue("q").consume() as messages,
    ):
        broker.queue("q").publish(b"x")
        message = messages.receive(1)
        with pytest.raises(SettleUnknown) as first:
            message.ack()
        with pytest.raises(SettleUnknown) as second:
            message.ack()
        with pytest.raises(SettleUnknown):
            message.ack()

    assert first.value.retryable and not second.value.retryable


class Torn(PassingFeed):
    """Settles, and then Ctrl-C strikes before it has returned; the first time only."""

    struck = False

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        answers = self.inner.settle(settlements)
        if not self.struck:
            self.struck = True
            raise KeyboardInterrupt
        return answers


class TornBroker(PassingBroker):
    """A broker of torn feeds."""

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        return Torn(self.inner.open(source, earliest=earliest, wake=wake))


def test_a_settlement_that_was_interrupted_inside_its_driver_stays_in_doubt() -> None:
    """Ctrl-C took the answer away: a repetition that finds the message gone cannot say that nothing was changed."""
    url = f"memory://{uuid.uuid4().hex}"
    with narrowboat.broker(url, wrap=TornBroker) as broker, broker.queue("q").consume() as messages:
        broker.queue("q").publish(b"x")
        message = messages.receive(1)
        with pytest.raises(KeyboardInterrupt):
            message.ack()
        with pytest.raises(SettleUnknown) as again:
            message.ack()

    assert not again.value.retryable
