"""What several message scenarios do: take, take nothing, drain, wait for a depth. No scenario is in here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from narrowboat.conformance.checks.history_queues import History, Verdict, check
from narrowboat.conformance.kit import Kit
from narrowboat.errors import NarrowboatError, PublishFailed, PublishUnknown

#: Seconds in which "nothing comes" is watched, where no lease or delay says how long to watch.
QUIET = 0.15


def lease_of(kit: Kit) -> float:
    """A short lease that the backend can keep, in seconds, and that the pauses of this machine do not end."""
    return kit.lease(kit.broker_claims.lease_min, 0.6)


async def one(kit: Kit, messages: Any, within: float = 5.0) -> Any:
    """The next message; `AssertionError` when none comes."""
    message = await messages.receive(kit.upper(within))
    assert message is not None, f"no message came within {within:g} s"
    return message


async def take(kit: Kit, messages: Any, count: int, within: float = 10.0, *, ack: bool = False) -> list[Any]:
    """The next `count` messages, unsettled, or each acknowledged before the next; `AssertionError` when fewer come."""
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
    """No message comes within `seconds`. Never stretched: watching longer is only stricter."""
    message = await messages.receive(seconds)
    assert message is None, f"nothing was to come, and {message!r} came: {message.body[:80]!r}"


async def emptied(messages: Any, idle: float = 0.3) -> list[Any]:
    """All that comes, each acknowledged before the next, until nothing came for `idle` seconds."""
    got = []
    while (message := await messages.receive(idle)) is not None:
        got.append(message)
        await message.ack()
    return got


async def drained(source: Any, idle: float = 0.3) -> list[bytes]:
    """The bodies of all that is ready, acknowledged, until nothing came for `idle` seconds."""
    async with source.consume() as messages:
        return [message.body for message in await emptied(messages, idle)]


async def published(
    history: History, queue: Any, id: str, key: str | None = None, failed: tuple[type[NarrowboatError], ...] = (PublishFailed,)
) -> None:
    """Publish under `id`, and write down what came of it; `failed` are the errors that say that nothing was sent."""
    try:
        await queue.publish(b"x", id=id, key=key)
    except PublishUnknown:
        history.uncertain(id, key)
    except failed:
        history.failed(id)
    else:
        history.published(id, key)


async def acked(history: History, message: Any, doubt: tuple[type[NarrowboatError], ...] = ()) -> bool:
    """Write down that it was delivered, and ack it; whether that was answered. An error is one of `doubt`, or goes on."""
    history.delivered(message.id, message.attempt)
    try:
        await message.ack()
    except doubt:
        history.ack_unknown(message.id)
        return False
    history.acked(message.id)
    return True


async def judged(
    kit: Kit, history: History, source: Any, idle: float, doubt: tuple[type[NarrowboatError], ...] = (), **terms: Any
) -> Verdict:
    """What the history comes to once `source` was emptied, until nothing came for `idle` seconds; terms as for `check`."""
    async with source.consume() as messages:
        while (message := await messages.receive(idle)) is not None:
            await acked(history, message, doubt)
    return check(history, drained=True, **terms)


@asynccontextmanager
async def at_work(kit: Kit, source: Any, handle: Callable[[Any], Awaitable[None]]) -> AsyncIterator[asyncio.Task[Any]]:
    """`source.run(handle)` by another user, stopped when the block is left."""
    task = kit.spawn(source.run(handle, signals=False))
    yield task
    source.stop()
    await task


@asynccontextmanager
async def running(kit: Kit, messages: Any, handle: Callable[[Any], Awaitable[None]]) -> AsyncIterator[asyncio.Task[None]]:
    """A user who takes every message of `messages` and hands it to `handle`, until the block is left."""

    async def loop() -> None:
        async for message in messages:
            await handle(message)

    task = kit.spawn(loop())
    try:
        yield task
    finally:
        messages.stop()
        await asyncio.wait([task], timeout=kit.upper(10))
    assert task.done(), "messages.stop() did not end the iteration"
    task.result()


async def until_in_flight(kit: Kit, source: Any, count: int) -> None:
    """Until `count` messages of `source` are in somebody's hands: by its depth, else by what this scenario's drivers gave."""

    async def reached() -> bool:
        if not kit.can("depth"):
            return kit.seen.members["delivered"] - kit.seen.members["settle"] >= count
        depth = await source.depth()
        if depth.in_flight is None:  # it cannot be known here; whoever asks has taken everything, so nothing is left
            return bool(depth.ready == 0)
        return bool(depth.in_flight == count)

    await kit.eventually(reached, what=f"{count} messages in flight")


async def depth_is(kit: Kit, source: Any, within: float = 5.0, **counts: int) -> None:
    """Until `depth()` says so, for example `ready=0, in_flight=0`; what the backend cannot know is not compared.

    Where there is no depth nothing is: a scenario says the rest by what is delivered. Without dead letters there are none.
    """
    if not kit.can("depth"):
        return
    last: list[Any] = [None]

    async def as_told() -> bool:
        last[0] = depth = await source.depth()
        return all(getattr(depth, name) in (None, count) for name, count in counts.items())

    await kit.eventually(as_told, within=within, what=lambda: f"depth {counts}, the last was {last[0]}")


async def asks_for_a_topic(kit: Kit) -> None:
    """The call that is refused where there are no topics."""
    kit.broker().topic("prices")


async def asks_for_dead_letters(kit: Kit) -> None:
    """The call that is refused where there are no dead letters."""
    kit.broker().queue("orders").dead_letters()


async def asks_for_delay(kit: Kit) -> None:
    """The call that is refused where there are no delays."""
    await kit.broker().queue("orders", max_deliveries=0).publish(b"x", delay=1)
