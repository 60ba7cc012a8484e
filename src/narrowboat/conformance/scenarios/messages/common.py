"""The steps that message scenarios share: fill a queue, take from it, expect nothing, settle, wait for a depth.

Use them when you write a scenario about messages. This file holds no scenario.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from narrowboat.conformance.checks.history_queues import History, Verdict, check
from narrowboat.conformance.kit import Faults, Kit
from narrowboat.contract.messages import Receipt
from narrowboat.errors import BrokerError, NarrowboatError, PublishFailed, PublishUnknown, Unavailable

#: Seconds for which `nothing` watches where no lease and no delay says how long. Shorter misses a redelivery that is late.
QUIET = 0.15

#: Seconds that one driver call may block in scenarios that break the network or the server.
OPERATION = 2.0


# -- times ------------------------------------------------------------------------------------------------------------


def lease_of(kit: Kit) -> float:
    """A short lease in seconds, for scenarios that wait for its end. Pauses of the machine do not end it."""
    return kit.lease(kit.broker_claims.lease_min, 0.6)


def lease_for_outages(kit: Kit) -> float:
    """A lease in seconds that outlives one driver call that times out."""
    return max(kit.broker_claims.lease_min, 3.0)


def long_lease(kit: Kit) -> float:
    """A lease in seconds that does not end within a scenario: what comes back sooner was returned."""
    return max(30.0, kit.broker_claims.lease_min)


def lapse(kit: Kit, lease: float) -> float:
    """Seconds after which a delivery that nobody settles or extends is redelivered, at the latest."""
    return lease + kit.broker_claims.lease_lag


# -- publish ----------------------------------------------------------------------------------------------------------


def numbered(count: int) -> list[bytes]:
    """That many bodies: b"0", b"1" and so on."""
    return [str(n).encode() for n in range(count)]


async def publish_all(source: Any, bodies: Sequence[Any]) -> list[Receipt]:
    """Publish `bodies` as one batch. `AssertionError` unless each of them gets a receipt."""
    outcomes = await source.publish_many(bodies)
    refused = [each for each in outcomes if not isinstance(each, Receipt)]
    assert not refused, f"{len(refused)} of {len(bodies)} messages got no receipt; the first got {refused[0]!r}"
    assert len(outcomes) == len(bodies), f"{len(bodies)} messages got {len(outcomes)} outcomes"
    return list(outcomes)


async def filled(kit: Kit, *bodies: bytes, **terms: Any) -> Any:
    """The queue `orders` of a new connection, with `bodies` in it. The terms are those of `Messaging.queue`."""
    orders = kit.broker().queue("orders", **terms)
    await publish_all(orders, bodies)
    return orders


def two_queues(kit: Kit, **terms: Any) -> tuple[Any, Any]:
    """The queue `orders` on two connections, with the same terms."""
    return kit.broker().queue("orders", **terms), kit.broker().queue("orders", **terms)


def faulty(kit: Kit, **terms: Any) -> tuple[Any, Faults]:
    """The queue `orders` of a new connection, and the plan by which its driver's calls fail."""
    faults = Faults()
    return kit.broker(faults=faults).queue("orders", **terms), faults


def with_query(url: str, query: str) -> str:
    """`url` with one more option, such as "declare=never"."""
    return f"{url}{'&' if '?' in url else '?'}{query}"


# -- receive ----------------------------------------------------------------------------------------------------------


async def one(kit: Kit, messages: Any, within: float = 5.0) -> Any:
    """The next message, unsettled. `AssertionError` when none comes within `within` seconds."""
    message = await messages.receive(kit.upper(within))
    assert message is not None, f"no message came within {within:g} s"
    return message


async def comes(kit: Kit, messages: Any, body: bytes, *, attempt: int | None = None, within: float = 5.0) -> Any:
    """The next message has this `body`, and is delivered for the `attempt`-th time. It is acknowledged."""
    message = await one(kit, messages, within)
    assert message.body == body, f"the next message is {message.body[:80]!r}, and {body[:80]!r} was owed"
    assert attempt in (None, message.attempt), f"{body[:80]!r} came as attempt {message.attempt}, and {attempt} was owed"
    await message.ack()
    return message


async def take(kit: Kit, messages: Any, count: int, within: float = 10.0, *, ack: bool = False) -> list[Any]:
    """The next `count` messages, unsettled, or each acknowledged before the next. `AssertionError` when fewer come."""
    got: list[Any] = []
    deadline = time.monotonic() + kit.upper(within)
    while len(got) < count:
        message = await messages.receive(max(0.0, deadline - time.monotonic()))
        assert message is not None, f"{len(got)} of {count} messages came within {within:g} s"
        if ack:
            await message.ack()
        got.append(message)
    return got


async def nothing(messages: Any, seconds: float = QUIET) -> None:
    """No message comes within `seconds`. The time is never stretched: a longer watch is only stricter."""
    message = await messages.receive(seconds)
    assert message is None, f"no message was owed, and {message!r} came: {message.body[:80]!r}"


async def emptied(messages: Any, idle: float = 0.3) -> list[Any]:
    """All messages that come, each acknowledged before the next, until none came for `idle` seconds."""
    got = []
    while (message := await messages.receive(idle)) is not None:
        got.append(message)
        await message.ack()
    return got


async def drained(source: Any, idle: float = 0.3) -> list[bytes]:
    """The bodies of all messages that are ready, acknowledged, until none came for `idle` seconds."""
    async with source.consume() as messages:
        return [message.body for message in await emptied(messages, idle)]


async def contains(kit: Kit, source: Any, bodies: Iterable[bytes], within: float = 10.0) -> None:
    """`source` has one message for each of `bodies`, in any order, and no other. All are acknowledged."""
    owed = sorted(bodies)
    async with source.consume() as messages:
        got = await take(kit, messages, len(owed), within, ack=True)
        await nothing(messages, 0.3)
    _same(owed, sorted(message.body for message in got))


def _same(owed: list[bytes], seen: list[bytes]) -> None:
    missing = [body for body in owed if body not in seen]
    strange = [body for body in seen if body not in owed]
    assert owed == seen, f"{missing[:5]} did not come, {strange[:5]} came and was not owed, or a message came twice"


async def dead_letter(kit: Kit, source: Any) -> Any:
    """The only dead letter of `source`, acknowledged."""
    async with source.dead_letters().consume() as dead:
        letter = await one(kit, dead)
        await letter.ack()
        await nothing(dead)
    assert letter.dead is not None, f"the dead letter {letter.id} does not say why it is dead"
    return letter


def received(messages: Any) -> Any:
    """The next message of a sync consumer, for a child process. `AssertionError` when none comes within 10 s."""
    message = messages.receive(10)
    assert message is not None, "the child got no message within 10 s"
    return message


async def share(kit: Kit, sources: Iterable[Any], total: int) -> None:
    """One consumer for each of `sources`, all at once: together they get `total` numbered messages, each exactly once."""
    done: list[bytes] = []

    async def member(source: Any) -> None:
        async with source.consume(prefetch=5) as messages:
            while len(done) < total and (message := await messages.receive(0.3)) is not None:
                done.append(message.body)
                await message.ack()

    await kit.together(*(member(source) for source in sources))
    _same(sorted(numbered(total)), sorted(done))


async def batches(messages: Any, size: int, total: int, wait: float) -> list[Any]:
    """Acknowledge batches of up to `size` messages until they have `total` messages together."""
    got: list[Any] = []
    async for batch in messages.batches(size, wait=wait):
        got.append(batch)
        outcomes = await batch.ack()
        assert not any(outcomes), f"an ack in a batch failed: {outcomes}"
        if sum(map(len, got)) >= total:
            break
    return got


# -- histories --------------------------------------------------------------------------------------------------------


async def published(
    history: History, queue: Any, id: str, key: str | None = None, failed: tuple[type[NarrowboatError], ...] = (PublishFailed,)
) -> None:
    """Publish under `id`, and record the outcome. `failed` are the errors that say that nothing was sent."""
    try:
        await queue.publish(b"x", id=id, key=key)
    except PublishUnknown:
        history.uncertain(id, key)
    except failed:
        history.failed(id)
    else:
        history.published(id, key)


async def acked(history: History, message: Any, doubt: tuple[type[NarrowboatError], ...] = ()) -> bool:
    """Record the delivery, and ack it. Whether the ack was answered: an error of `doubt` is recorded as unknown."""
    history.delivered(message.id, message.attempt)
    try:
        await message.ack()
    except doubt:
        history.ack_unknown(message.id)
        return False
    history.acked(message.id)
    return True


async def judged(
    history: History, source: Any, idle: float, doubt: tuple[type[NarrowboatError], ...] = (), **terms: Any
) -> Verdict:
    """Empty `source` until no message came for `idle` seconds, and check the history. The terms are those of `check`."""
    async with source.consume() as messages:
        while (message := await messages.receive(idle)) is not None:
            await acked(history, message, doubt)
    return check(history, drained=True, **terms)


class Traffic:
    """Publishers and consumers of one queue that bear outages, and the history of what came of each message.

    They work until `end` is called. Only they and `judged` write the history.
    """

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._ended = asyncio.Event()
        self.history = History()
        self.answered: dict[str, float] = {}  #: when the ack of each id was answered, by the monotonic clock

    def end(self) -> None:
        """Let each publisher and consumer return after what it is doing."""
        self._ended.set()

    async def publish(self, name: str, *, keyed: bool = False, pause: float = 0.005) -> None:
        """A publisher: messages with ids of its own, and `name` as their key where they are `keyed`."""
        for number in itertools.count():
            if self._ended.is_set():
                return
            failed = (PublishFailed, Unavailable)
            await published(self.history, self._queue, f"{name}-{number}", name if keyed else None, failed)
            await asyncio.sleep(pause)

    async def consume(self, prefetch: int) -> None:
        """A consumer that acks each message, and goes on after it was told that the server cannot be reached."""
        async with self._queue.consume(prefetch=prefetch) as messages:
            while not self._ended.is_set():
                try:
                    message = await messages.receive(0.2)
                except Unavailable:
                    await asyncio.sleep(0.1)
                    continue
                if message is not None and await acked(self.history, message, (BrokerError,)):
                    self.answered[message.id] = time.monotonic()


# -- run() and iteration ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def at_work(kit: Kit, source: Any, handle: Callable[[Any], Awaitable[None]], **terms: Any) -> AsyncIterator[None]:
    """Another user runs `source.run(handle)` until the block is left. The terms are those of `run`."""
    task = kit.spawn(source.run(handle, signals=False, **terms))
    yield
    source.stop()
    await task


@asynccontextmanager
async def running(kit: Kit, messages: Any, handle: Callable[[Any], Awaitable[None]]) -> AsyncIterator[None]:
    """Another user hands every message of `messages` to `handle` until the block is left."""

    async def loop() -> None:
        async for message in messages:
            await handle(message)

    task = kit.spawn(loop())
    try:
        yield
    finally:
        messages.stop()
        await asyncio.wait([task], timeout=kit.upper(10))
    assert task.done(), "messages.stop() did not end the iteration"
    task.result()


# -- depth ------------------------------------------------------------------------------------------------------------


async def until_in_flight(kit: Kit, source: Any, count: int) -> None:
    """Wait until `count` messages of `source` are in flight: by its depth, or by what this scenario's drivers delivered."""

    async def reached() -> bool:
        if not kit.can("depth"):
            return kit.seen.members["delivered"] - kit.seen.members["settle"] >= count
        depth = await source.depth()
        if depth.in_flight is None:  # the backend cannot count them; all are in flight once none is ready
            return bool(depth.ready == 0)
        return bool(depth.in_flight == count)

    await kit.eventually(reached, what=f"{count} messages in flight")


async def depth_is(kit: Kit, source: Any, within: float = 5.0, **counts: int) -> None:
    """Wait until `depth()` says so, for example `ready=0, in_flight=0`. A count that the backend cannot know is left out.

    Nothing is compared on a backend without `depth`: there a scenario proves the rest by what is delivered.
    """
    if not kit.can("depth"):
        return
    last: list[Any] = [None]

    async def as_told() -> bool:
        last[0] = depth = await source.depth()
        return all(getattr(depth, name) in (None, count) for name, count in counts.items())

    await kit.eventually(as_told, within=within, what=lambda: f"depth {counts}, the last was {last[0]}")


# -- calls that are refused -------------------------------------------------------------------------------------------


async def asks_for_a_topic(kit: Kit) -> None:
    """The call that a backend without topics refuses."""
    kit.broker().topic("prices")


async def asks_for_dead_letters(kit: Kit) -> None:
    """The call that a backend without dead letters refuses."""
    kit.broker().queue("orders").dead_letters()


async def asks_for_delay(kit: Kit) -> None:
    """The call that a backend without delays refuses."""
    await kit.broker().queue("orders", max_deliveries=0).publish(b"x", delay=1)
