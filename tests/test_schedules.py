"""Tasks that are cancelled anywhere in acquire and consume, under schedules from seeds: nothing is lost, and nothing is left.

A few hundred schedules by default; NARROWBOAT_SCHEDULES=5000 explores more. A seed that fails is the test's number.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from schedules import SeededLoop, explore, seeds

import narrowboat
from narrowboat.aio.messaging.consumer import Messages
from narrowboat.aio.messaging.message import Message
from narrowboat.clock import LoopClock
from narrowboat.errors import InvalidArgument, LockTimeout, StaleDelivery
from narrowboat_memory.messages import Messages as Kept
from narrowboat_memory.names import LockSpace
from narrowboat_memory.space import space

#: Schedules are grouped, so that a run of thousands is not thousands of tests.
GROUPS = 10


async def acquiring(loop: SeededLoop) -> None:
    """Four tasks contend for a name or two, by two faces; some are cancelled, some twice."""
    name, draw = uuid.uuid4().hex, loop.random
    mode: dict[str, Any] = draw.choice([{}, {"mode": "semaphore"}, {"mode": "shared"}])
    if mode.get("mode") == "semaphore":
        mode = {"limit": 2}
    clock = LoopClock(loop, lambda: draw.choice([0, 0, 0.01, 0.1]))
    inside: list[int] = []
    most = 2 if "limit" in mode else 4 if mode else 1

    async with (
        narrowboat.aio.locks(f"memory://{name}", clock=clock, random=draw.random) as mine,
        narrowboat.aio.locks(f"memory://{name}", clock=clock, random=draw.random) as others,
    ):

        async def contend(number: int) -> None:
            face = draw.choice([mine, others])
            for _ in range(draw.randrange(1, 3)):
                with contextlib.suppress(LockTimeout):
                    async with face.lock("name", ttl=30, timeout=draw.choice([None, 0.5, 3]), **mode):
                        inside.append(number)
                        try:
                            assert len(inside) <= most
                            await asyncio.sleep(draw.choice([0, 0, 1, 20]))
                        finally:
                            inside.remove(number)

        tasks = [asyncio.create_task(contend(number)) for number in range(4)]
        for task in tasks:
            for _ in range(draw.choice([0, 1, 1, 2])):
                loop.cancel_at(draw.randrange(1, 60), task)
            if draw.random() < 0.3:
                lane: Any = draw.choice([mine, others])._core.claims
                loop.cancel_while(lambda lane=lane: lane._under_way, task)  # type: ignore[misc]  # mypy: a default is no capture
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        loop.spare()
        assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends), ends

        # No permit is lost: it is there within some exchanges, without waiting for a lease to end.
        await asyncio.sleep(1)
        begun = loop.time()
        held = [await mine.lock("name", ttl=30, timeout=1, **mode).acquire() for _ in range(1 if most == 1 else 2)]
        assert loop.time() - begun < 0.5
        for each in held:
            await each.release()
        assert await mine.holders() == []
        assert mine._core.waiting == others._core.waiting == set()
        assert not mine._core.holders.held and not others._core.holders.held
    assert space(LockSpace, name, "").names == {}


async def consuming(loop: SeededLoop) -> None:
    """Two consumers at a time take six messages; they are cancelled, nack, or leave in the middle, and others come."""
    name, draw = uuid.uuid4().hex, loop.random
    clock = LoopClock(loop, lambda: draw.choice([0, 0, 0.01, 0.1]))
    acked: set[bytes] = set()
    begun: set[bytes] = set()  # an ack was begun, and may have arrived

    async with narrowboat.aio.broker(f"memory://{name}", clock=clock, random=draw.random) as broker:
        queue = broker.queue("q", lease=draw.choice([5, 30]), max_deliveries=0, ordered=draw.random() < 0.3)
        await queue.declare()
        core: Any = broker._core

        async def publish() -> None:
            for number in range(6):
                await queue.publish(b"%d" % number, key=f"k{number % 2}")
                await asyncio.sleep(draw.choice([0, 0, 1]))

        async def one_by_one(messages: Messages[bytes]) -> AsyncIterator[Message[bytes]]:
            style = draw.randrange(3)
            if style == 0:
                async for message in messages:
                    yield message
            elif style == 1:  # calls that are cut off, while the consumer goes on
                for _ in range(8):
                    cut: list[Message[bytes]] = []
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(draw.choice([0, 0.01, 0.1, 3])):
                            batches: Any = messages.batches(2, wait=2)
                            async with contextlib.aclosing(batches):
                                cut += await anext(batches, [])
                    for message in cut:
                        yield message
            else:
                async for batch in messages.batches(2, wait=draw.choice([0, 2])):
                    for message in batch:
                        yield message

        async def consume() -> None:
            async with queue.consume(prefetch=draw.randrange(1, 4), idle=draw.choice([0.5, 3])) as messages:
                async for message in one_by_one(messages):
                    assert message.body not in acked  # what was acknowledged never comes back
                    await asyncio.sleep(draw.choice([0, 0, 0, 2]))
                    what = draw.random()
                    if what < 0.15:
                        await message.nack(draw.choice([0, 1]))
                    elif what < 0.25:
                        break
                    else:
                        begun.add(message.body)
                        with contextlib.suppress(StaleDelivery):
                            await message.ack()
                            acked.add(message.body)

        publishing = asyncio.create_task(publish())
        for _ in range(3):
            tasks = [asyncio.create_task(consume()) for _ in range(2)]
            for task in tasks:
                for _ in range(draw.choice([0, 1, 1, 2])):
                    loop.cancel_at(draw.randrange(1, 120), task)
                if draw.random() < 0.3:
                    lane: Any = draw.choice([core.fetches, core.settlements])
                    loop.cancel_while(lambda lane=lane: lane._under_way, task)  # type: ignore[misc]  # as above
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends), ends
        loop.spare()
        await publishing
        await asyncio.sleep(1)  # what was posted is done
        depth = await queue.depth()
        assert depth.in_flight == 0  # consumers that have gone have returned what they had
        rest = []
        async with queue.consume(prefetch=10, idle=3) as messages:
            async for message in messages:
                assert message.body not in acked
                rest.append(message.body)
                await message.ack()
        every = {b"%d" % number for number in range(6)}
        assert every - begun <= set(rest) <= every - acked  # none is lost, and none comes twice
        assert len(rest) == len(set(rest))
        depth = await queue.depth()
        assert (depth.ready, depth.in_flight, depth.delayed, depth.dead) == (0, 0, 0, 0)
        assert core.consumers == core.kept == set()
        assert space(Kept, name, "").bell.waiting() == []


@pytest.mark.parametrize("group", range(GROUPS))
@pytest.mark.parametrize("main", [acquiring, consuming])
def test_nothing_is_lost_and_nothing_is_left(main: Any, group: int) -> None:
    """Whatever is cancelled at whatever step: the lock can be taken at once, each message is there or acknowledged."""
    for seed in seeds(300)[group::GROUPS]:
        try:
            explore(seed, main)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


def test_a_seed_is_the_whole_schedule() -> None:
    """The same seed takes the same number of steps; another one does not."""

    def steps(seed: int) -> int:
        async def main(loop: SeededLoop) -> int:
            await consuming(loop)
            return loop.steps

        return explore(seed, main)

    assert steps(1) == steps(1)
    assert len({steps(seed) for seed in range(10)}) > 5


def test_no_thread_is_started() -> None:
    """With a `LoopClock`, all work is done by the loop."""
    before = set(threading.enumerate())

    async def main(loop: SeededLoop) -> set[threading.Thread]:
        async with narrowboat.aio.locks("memory://threads", clock=LoopClock(loop)) as locks, locks.lock("name", ttl=3):
            await asyncio.sleep(30)  # renewed meanwhile
            return set(threading.enumerate())

    assert explore(1, main) <= before


def test_a_loop_clock_is_refused_where_a_call_blocks(tmp_path: Path) -> None:
    """The sync face, and every backend but memory."""

    async def main(loop: SeededLoop) -> None:
        clock = LoopClock(loop)
        for make in (narrowboat.locks, narrowboat.broker):
            with pytest.raises(InvalidArgument, match="narrowboat.aio"):
                make("memory://x", clock=clock)
        for aio in (narrowboat.aio.locks, narrowboat.aio.broker):
            with pytest.raises(InvalidArgument, match="memory backend"):
                aio(f"sqlite:///{tmp_path}/x.db", clock=clock)

    explore(1, main)
