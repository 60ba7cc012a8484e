"""What a scenario about messages is handed: the kit, and the steps that many of these scenarios take.

The steps fill a queue, take from it, expect nothing, settle, and wait for a depth. A step that only some scenarios of one
file take stands in that file.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from narrowboat.conformance.harness import with_query
from narrowboat.conformance.kit import Faults, Kit
from narrowboat.contract.messages import Receipt
from narrowboat.errors import StaleDelivery
from narrowboat.messaging import Outbound

#: Seconds for which `nothing` watches where no lease and no delay says how long. Shorter misses a redelivery that is late.
QUIET = 0.15


class MessageKit(Kit):
    """See the module's text. A queue that it makes is named `orders` and has a connection of its own."""

    # -- time -----------------------------------------------------------------------------------------------------

    @property
    def short_lease(self) -> float:
        """A short lease in seconds, for scenarios that wait for its end. Pauses of the machine do not end it."""
        return self.lease(self.broker_claims.lease_min, 0.6)

    @property
    def long_lease(self) -> float:
        """A lease in seconds that does not end within a scenario: a message that comes back sooner was returned."""
        return max(30.0, self.broker_claims.lease_min)

    def lapse(self, lease: float) -> float:
        """Seconds after which a delivery that nobody settles or extends is redelivered, at the latest."""
        return lease + self.broker_claims.lease_lag

    def returned(self, seconds: float) -> float:
        """`seconds`, and as long as the backend may take until what was given back is deliverable."""
        return seconds + self.broker_claims.return_lag

    def url_with(self, query: str) -> str:
        """The URL of the scenario's messages with one more option, such as "declare=never"."""
        return with_query(self.broker_url, query)

    # -- publish --------------------------------------------------------------------------------------------------

    def queue(self, **terms: Any) -> Any:
        """The queue `orders` on a new connection. The terms are those of `Messaging.queue`."""
        return self.broker().queue("orders", **terms)

    def faulty(self, **terms: Any) -> tuple[Faults, Any]:
        """The plan of the driver calls that fail, and such a queue that is opened with it."""
        faults = Faults()
        return faults, self.broker(faults=faults).queue("orders", **terms)

    async def filled(self, *bodies: bytes, **terms: Any) -> Any:
        """Such a queue, with `bodies` in it."""
        orders = self.queue(**terms)
        await publish_all(orders, bodies)
        return orders

    # -- receive --------------------------------------------------------------------------------------------------

    async def one(self, messages: Any, within: float = 5.0) -> Any:
        """The next message, unsettled. `AssertionError` when none comes within `within` seconds."""
        within = self.returned(within)
        message = await messages.receive(self.upper(within))
        assert message is not None, f"no message came within {within:g} s"
        return message

    async def comes(self, messages: Any, body: bytes, *, attempt: int | None = None, within: float = 5.0) -> None:
        """The next message has this `body`, and is delivered for the `attempt`-th time. It is acknowledged."""
        message = await self.one(messages, within)
        assert message.body == body, f"the next message is {message.body[:80]!r}, and {body[:80]!r} was owed"
        assert attempt in (None, message.attempt), f"{body[:80]!r} came as attempt {message.attempt}, and {attempt} was owed"
        await message.ack()

    async def take(self, messages: Any, count: int, within: float = 10.0, *, ack: bool = False) -> list[Any]:
        """The next `count` messages, unsettled, or each acknowledged before the next. `AssertionError` when fewer come."""
        within = self.returned(within)
        got: list[Any] = []
        deadline = time.monotonic() + self.upper(within)
        while len(got) < count:
            message = await messages.receive(max(0.0, deadline - time.monotonic()))
            assert message is not None, f"{len(got)} of {count} messages came within {within:g} s"
            if ack:
                await message.ack()
            got.append(message)
        return got

    async def nothing(self, messages: Any, seconds: float = QUIET) -> None:
        """No message comes within `seconds`. The time is never stretched: a longer watch is only stricter."""
        message = await messages.receive(seconds)
        if message is not None:
            raise AssertionError(f"no message was owed, and {message.body[:80]!r} came as attempt {message.attempt}")

    async def emptied(self, messages: Any, idle: float = 0.3) -> list[Any]:
        """All messages that come, each acknowledged before the next, until none came for `idle` seconds."""
        got = []
        while (message := await messages.receive(idle)) is not None:
            got.append(message)
            await message.ack()
        return got

    async def drained(self, source: Any, idle: float = 0.3) -> list[bytes]:
        """The bodies of all messages that are ready, acknowledged, until none came for `idle` seconds."""
        async with source.consume() as messages:
            return [message.body for message in await self.emptied(messages, idle)]

    async def contains(self, source: Any, bodies: Iterable[bytes], within: float = 10.0) -> None:
        """`source` has one message for each of `bodies`, in any order, and no other. All are acknowledged."""
        owed = sorted(bodies)
        async with source.consume() as messages:
            got = await self.take(messages, len(owed), within, ack=True)
            await self.nothing(messages, 0.3)
        are_same(owed, [message.body for message in got])

    async def dead_letter(self, source: Any) -> Any:
        """The only dead letter of `source`, acknowledged."""
        async with source.dead_letters().consume() as dead:
            letter = await self.one(dead)
            await letter.ack()
            await self.nothing(dead)
        assert letter.dead is not None and letter.dead.reason, f"the dead letter {letter.id!r} has no reason"
        return letter

    async def share(self, sources: Iterable[Any], total: int) -> None:
        """One consumer for each of `sources`, all at once: together they get `total` numbered messages, each exactly once.

        Nobody leaves because nothing comes: while the members of a group agree who has what, none of them gets anything.
        """
        done: list[bytes] = []
        begun = time.monotonic()

        async def member(source: Any) -> None:
            async with source.consume(prefetch=5) as messages:
                while len(done) < total and not self.over(begun, 10.0):
                    message = await messages.receive(0.3)
                    if message is not None:
                        done.append(message.body)
                        await message.ack()

        await self.together(*(member(source) for source in sources))
        are_same(numbered(total), done)

    async def rush(self, target: Any, source: Callable[[], Any], batches: int, *, delay: float = 0.0) -> None:
        """Batches to `target` become ready while eight consumers wait, each of a `source()`: one of them gets each message.

        The next batch is published once the last one is acked. The first message that comes to two consumers ends it all.
        """
        owed: list[bytes] = []
        done: list[bytes] = []
        twice: list[StaleDelivery] = []
        over = False

        async def consumer() -> None:
            async with source().consume(prefetch=12) as messages:
                while not over:
                    message = await messages.receive(0.3)
                    if message is not None:
                        done.append(message.body)
                        try:
                            await message.ack()
                        except StaleDelivery as error:
                            twice.append(error)

        async def publisher() -> None:
            nonlocal over
            within = self.returned(20 + (delay + self.broker_claims.delay_lag if delay else 0))
            try:
                for batch in range(batches):
                    bodies = [f"{batch}:{number}".encode() for number in range(48)]
                    owed.extend(bodies)
                    await publish_all(target, [Outbound(body, delay=delay) for body in bodies])
                    await self.eventually(lambda: twice or len(done) >= len(owed), within=within, what="all of a batch come")
                    if twice:
                        break
            finally:
                over = True

        await self.together(publisher(), *(consumer() for _ in range(8)))
        assert not twice, f"a message came to two consumers at once: {twice[0]}"
        are_same(owed, done)
        await self.depth_is(source(), ready=0, in_flight=0)

    @asynccontextmanager
    async def taken_over(self, count: int) -> AsyncIterator[list[Any]]:
        """Deliveries whose lease has ended, while another consumer has the messages.

        After the block that consumer still has all of them: it acks each, nothing comes back, and none is a dead letter.
        """
        lease = self.short_lease
        orders, other = self.queue(lease=lease, max_deliveries=0), self.queue(lease=lease, max_deliveries=0)
        await publish_all(orders, numbered(count))
        async with orders.consume(auto_extend=False) as messages:
            ended = await self.take(messages, count)
            async with other.consume() as theirs:
                copies = await self.take(theirs, count, self.lapse(lease) + 5)
                yield ended
                # The peer keeps its copies for as long as it likes where it can extend them, and for a lease where it cannot.
                await self.nothing(messages, lease if self.can("extension") else lease / 3)
                for copy in copies:
                    await copy.ack()
        await self.depth_is(orders, ready=0, in_flight=0, dead=0)

    async def batches(self, messages: Any, size: int, total: int, *, wait: float) -> list[Any]:
        """Batches of up to `size` messages, each acknowledged, until they have `total` messages together."""
        got: list[Any] = []
        async for batch in messages.batches(size, wait=wait):
            got.append(batch)
            outcomes = await batch.ack()
            assert not any(outcomes), f"an ack in a batch failed: {outcomes}"
            if sum(map(len, got)) >= total:
                return got
        raise AssertionError(f"the iteration ended after {sum(map(len, got))} of {total} messages")

    # -- run() and iteration --------------------------------------------------------------------------------------

    @asynccontextmanager
    async def at_work(self, source: Any, handle: Callable[[Any], Awaitable[None]], **terms: Any) -> AsyncIterator[None]:
        """Another user runs `source.run(handle)` until the block is left. The terms are those of `run`."""
        task = self.spawn(source.run(handle, signals=False, **terms))
        yield
        source.stop()
        await task

    @asynccontextmanager
    async def iterating(self, messages: Any, handle: Callable[[Any], Awaitable[None]]) -> AsyncIterator[None]:
        """Another user hands every message of `messages` to `handle` until the block is left."""

        async def loop() -> None:
            async for message in messages:
                await handle(message)

        task = self.spawn(loop())
        try:
            yield
        finally:
            messages.stop()
            await asyncio.wait([task], timeout=self.upper(10))
        assert task.done(), "messages.stop() did not end the iteration"
        task.result()

    # -- depth ----------------------------------------------------------------------------------------------------

    async def until_in_flight(self, source: Any, count: int) -> None:
        """Wait until `count` messages of `source` are in flight: by its depth, or by what our drivers delivered."""

        async def reached() -> bool:
            if not self.can("depth"):
                return self.seen.members["delivered"] - self.seen.members["settle"] >= count
            depth = await source.depth()
            if depth.in_flight is None:  # the backend cannot count them; all are in flight once none is ready
                return bool(depth.ready == 0)
            return bool(depth.in_flight == count)

        await self.eventually(reached, what=f"{count} messages are in flight")

    async def depth_is(self, source: Any, within: float = 5.0, **counts: int) -> None:
        """Wait until `depth()` says so, for example `ready=0, in_flight=0`. A count that the backend cannot know is left out.

        Nothing is compared on a backend without `depth`: there a scenario proves the rest by what is delivered.
        """
        if not self.can("depth"):
            return
        last: list[Any] = [None]

        async def as_told() -> bool:
            last[0] = depth = await source.depth()
            return all(getattr(depth, name) in (None, count) for name, count in counts.items())

        await self.eventually(as_told, within=self.returned(within), what=lambda: f"depth() says {counts}; it said {last[0]}")


def numbered(count: int) -> list[bytes]:
    """That many bodies: b"0", b"1" and so on."""
    return [str(n).encode() for n in range(count)]


async def publish_all(source: Any, bodies: Iterable[Any]) -> list[Receipt]:
    """Publish `bodies` as one batch. `AssertionError` unless each of them gets a receipt."""
    bodies = list(bodies)
    outcomes = await source.publish_many(bodies)
    refused = [each for each in outcomes if not isinstance(each, Receipt)]
    assert not refused, f"{len(refused)} of {len(bodies)} messages got no receipt; the first got {refused[0]!r}"
    assert len(outcomes) == len(bodies), f"{len(bodies)} messages got {len(outcomes)} outcomes"
    return list(outcomes)


def are_same(owed: Iterable[bytes], seen: Iterable[bytes]) -> None:
    """Both are the same bodies, each as often, in any order."""
    wanted, found = Counter(owed), Counter(seen)
    missing, strange = ([body[:20] for body in some][:5] for some in (wanted - found, found - wanted))
    assert wanted == found, f"{wanted.total()} messages were owed, {found.total()} came; missing {missing}, not owed {strange}"


def received(messages: Any) -> Any:
    """The next message of a sync consumer, for a child process. `AssertionError` when none comes within 10 s."""
    message = messages.receive(10)
    assert message is not None, "the child got no message within 10 s"
    return message


# -- calls that are refused where that is not claimed -----------------------------------------------------------------


async def asks_for_a_topic(kit: Kit) -> None:
    """The call that a backend without topics refuses."""
    kit.broker().topic("prices")


async def asks_for_dead_letters(kit: Kit) -> None:
    """The call that a backend without dead letters refuses."""
    kit.broker().queue("orders").dead_letters()


async def asks_for_delay(kit: Kit) -> None:
    """The call that a backend without delays refuses."""
    await kit.broker().queue("orders", max_deliveries=0).publish(b"x", delay=1)
