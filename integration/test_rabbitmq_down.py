"""Calls while RabbitMQ is down: each ends in its own time and one operation timeout, however many of one broker there are.

The server is cut off by a proxy: connections are reset and new ones refused, as when it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from bounds import upper
from integration.servers import RabbitMQServer
from narrowboat.conformance.faults.network import Network
from narrowboat.conformance.scenario import FACES
from narrowboat.conformance.users.faces import wrap
from narrowboat.conformance.users.opening import opened
from narrowboat.errors import NarrowboatError, PublishFailed, Unavailable

#: The operation timeout, and what a call may take beyond it: a fifth, and the machine's own.
TIMEOUT = 3.0
BEYOND = TIMEOUT / 5 + 1.0
#: Seconds that a receive waits.
IDLE = 0.2


@pytest.mark.parametrize("face", FACES)
def test_calls_that_come_while_the_server_is_down_end_in_time(rabbitmq_server: RabbitMQServer, face: str) -> None:
    """Consumers that are idle, and calls that open, count and publish in the course of one timeout, wait for no other."""
    network = Network(rabbitmq_server.url)
    try:
        asyncio.run(_outage(network, face))
    finally:
        network.close()


async def _outage(network: Network, face: str) -> None:
    async with contextlib.AsyncExitStack() as left:
        broker = await left.enter_async_context(
            wrap(opened(network.url, face, timeout=TIMEOUT, prefix=f"t{secrets.token_hex(4)}"))
        )
        queue = broker.queue("orders")
        consumers = [await queue.consume().__aenter__() for _ in range(3)]
        for messages in consumers:
            assert await messages.receive(IDLE) is None

        async def opening() -> None:
            async with queue.consume():
                pass

        async def ends(after: float, what: str, call: Callable[[], Awaitable[object]], own: float = 0.0) -> None:
            await asyncio.sleep(after)
            begun = time.monotonic()
            with pytest.raises((Unavailable, PublishFailed)):
                await call()
            took = time.monotonic() - begun
            assert took < upper(own + TIMEOUT + BEYOND), f"{what} took {took:.1f} s"

        network.cut()
        try:
            results = await asyncio.gather(
                *(ends(0.0, "receive", partial(messages.receive, IDLE), IDLE) for messages in consumers),
                *(ends(after, "depth", queue.depth) for after in (0.1, 2.0)),
                *(ends(after, "consume", opening) for after in (0.2, 2.2)),
                *(ends(after, "publish", partial(queue.publish, b"never")) for after in (0.3, 0.4, 2.4)),
                return_exceptions=True,
            )
        finally:
            network.heal()
        late = [str(each) for each in results if each is not None]
        assert not late, "\n".join(late)
        for messages in consumers:
            with contextlib.suppress(NarrowboatError):
                await messages.close()
