"""B122 and B134: what calls come to when the server cannot be reached, and how soon, the same on every backend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.kit import Faults
from narrowboat.conformance.message_kit import MessageKit
from narrowboat.conformance.scenario import scenario
from narrowboat.contract.messages import Broker, Outgoing, Receipt
from narrowboat.errors import NarrowboatError, PublishFailed, PublishUnknown, SettleUnknown, Unavailable
from narrowboat.layers.passing import PassingBroker


class _Away(PassingBroker):
    """A server that is away for three sends: refused as a whole, refused for each message, cut off before the answer."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self.sends = 0

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Fail the first three."""
        self.sends += 1
        refused = Unavailable("connection refused", sent=False)
        if self.sends == 1:
            raise refused
        if self.sends == 2:
            return [refused for _ in messages]
        if self.sends == 3:
            return [Unavailable("no answer") for _ in messages]
        return self.inner.send(messages)


async def _all_fail(queue: Any) -> None:
    """A batch of two raises nothing, and each of its messages has failed."""
    outcomes = await queue.publish_many([b"never", b"never"])
    assert {type(each) for each in outcomes} == {PublishFailed}, f"the outcomes are {outcomes}, and PublishFailed was owed"


@scenario("B122")
async def what_is_known_not_to_be_sent_has_failed(kit: MessageKit) -> None:
    """A message that was not sent is PublishFailed. One that was sent and not answered is PublishUnknown."""
    starts = [0]

    def down(driver: Broker) -> Broker:
        starts[0] += 1
        if starts[0] <= 2:
            raise Unavailable("no server at that address")
        return _Away(driver)

    orders = kit.broker(wrap=down).queue("orders", max_deliveries=0)
    error = await fails(PublishFailed, orders.publish(b"never"))
    assert error.retryable and error.id and isinstance(error.__cause__, Unavailable), repr(error)
    await _all_fail(orders)
    await fails(PublishFailed, orders.publish(b"never"))
    await _all_fail(orders)
    await fails(PublishUnknown, orders.publish(b"never"))
    await orders.publish(b"sent")
    await kit.contains(orders, [b"sent"])


@scenario("B122", tier="N", faults={Fault.PROXY}, alone=True)
async def a_refused_connection_is_a_failed_publish(kit: MessageKit) -> None:
    """The server refuses connections. A publish is PublishFailed and is never delivered; afterwards publishes succeed."""
    network = await kit.network()
    orders = kit.broker(url=network.url, timeout=3.0).queue("orders", max_deliveries=0)
    await kit.blocking(network.refuse)
    error = await fails(PublishFailed, orders.publish(b"never"))
    assert error.retryable, repr(error)
    await _all_fail(orders)
    await kit.blocking(network.heal)

    async def published() -> bool:
        try:
            await orders.publish(b"sent")
        except PublishFailed:
            return False
        return True

    await kit.eventually(published, within=30.0, what="a publish after the server came back")
    await kit.contains(kit.queue(max_deliveries=0), [b"sent"])


@scenario("B134", tier="T")
async def calls_that_nobody_answers_end_together(kit: MessageKit) -> None:
    """Ten calls of one broker, begun within half a timeout, have no answer. Each ends in its own time and one timeout."""
    faults, timeout, idle = Faults(), kit.operation, 0.2
    for name in ("a", "b", "c"):  # a first use may take longer than the timeout of what follows
        await kit.broker().queue(name, max_deliveries=0).declare()
    broker = kit.broker(faults=faults, timeout=timeout)
    queues = [broker.queue(name, max_deliveries=0) for name in ("a", "b", "c")]
    consumers = [await queue.consume().__aenter__() for queue in queues]
    held = []
    for queue, messages in zip(queues, consumers, strict=True):
        await queue.publish(b"x")
        held.append(await kit.one(messages))

    def no_answer(items: object) -> None:
        time.sleep(timeout)
        raise Unavailable("no answer")

    for operation in ("receive", "send", "settle", "declare", "open"):
        faults.call(operation, no_answer, times=1000)

    async def opened() -> None:
        async with queues[0].consume():
            pass

    async def ends(number: int, call: Callable[[], Awaitable[object]], own: float = 0.0) -> None:
        await asyncio.sleep(number * 0.05 * timeout)
        what = f"call {number} of ten that nobody answers"
        with kit.within(own + 1.5 * timeout, what, measure=what):
            await fails((Unavailable, PublishFailed, PublishUnknown, SettleUnknown), call(), what=what)

    calls: list[tuple[Callable[[], Awaitable[object]], float]] = [
        *((partial(messages.receive, idle), idle) for messages in consumers),
        (queues[0].declare, 0.0),
        (opened, 0.0),
        *((partial(queue.publish, b"never"), 0.0) for queue in queues[:2]),
        *((message.ack, 0.0) for message in held),
    ]
    await kit.together(*(ends(number, call, own) for number, (call, own) in enumerate(calls)))
    faults.clear()
    for messages in consumers:
        await messages.close()
