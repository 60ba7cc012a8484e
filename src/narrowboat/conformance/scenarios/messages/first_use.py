"""B126: the first users of a place that nobody has used."""

from __future__ import annotations

from typing import Any

from narrowboat.conformance.message_kit import MessageKit, numbered
from narrowboat.conformance.scenario import scenario

USERS = 9


@scenario("B126")
async def many_first_users_of_one_queue(kit: MessageKit) -> None:
    """Many users declare, consume and publish at once where nobody has been, each on its own connection. None fails."""
    url = kit.harness.fresh_url("broker", kit.namespace)

    async def first(number: int, queue: Any) -> None:
        if number % 3 == 0:
            await queue.declare()
        elif number % 3 == 1:
            async with queue.consume():
                pass
        await queue.publish(str(number).encode())

    for name in ("first", "second"):  # a server may take its time for the first; of the second only the queue is new
        queues = [kit.broker(url=url, timeout=30).queue(name, max_deliveries=0) for _ in range(USERS)]
        await kit.together(*(first(number, queue) for number, queue in enumerate(queues)))
        await kit.contains(queues[0], numbered(USERS))
