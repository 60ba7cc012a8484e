"""What several message scenarios do: take, take nothing, drain, expect an error or a refusal. No scenario is in here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from narrowboat.conformance.kit import Kit

E = TypeVar("E", bound=BaseException)

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


async def drained(source: Any, idle: float = 0.3) -> list[bytes]:
    """The bodies of all that is ready, acknowledged, until nothing came for `idle` seconds."""
    bodies = []
    async with source.consume() as messages:
        while (message := await messages.receive(idle)) is not None:
            bodies.append(message.body)
            await message.ack()
    return bodies


async def raises(kind: type[E], call: Awaitable[object]) -> E:
    """What `call` raised, which must be a `kind`."""
    try:
        value = await call
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, and the call returned {value!r}")


def refuses(kind: type[E], call: Callable[[], object]) -> E:
    """What `call`, a call that waits for nothing, raised; it must be a `kind`."""
    try:
        value = call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, and the call returned {value!r}")


async def first_error(kind: type[E], call: Callable[[], Any]) -> E:
    """`raises` for a call that may refuse its arguments either at once or when it is awaited."""
    try:
        value = call()
        if hasattr(value, "__await__"):
            value = await value
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, and the call returned {value!r}")


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
