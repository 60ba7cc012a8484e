"""B120 and B121: entries that other programs leave in a queue, and messages that other consumers have by now."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from narrowboat import events
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.faults.layers import Ending, Unreadable
from narrowboat.conformance.kit import plain
from narrowboat.conformance.message_kit import MessageKit, asks_for_dead_letters, publish_all
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import NarrowboatError, StaleDelivery

#: How often a foreign entry is delivered before it is dead.
DELIVERIES = 2


class _Lines(logging.Handler):
    """The lines that were logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.lines.append(record.getMessage())


class _Neighbours:
    """Two queues of one broker. Others leave entries in `orders`; our own messages there and in `other` are handled."""

    def __init__(self, kit: MessageKit, **arguments: Any) -> None:
        self._kit = kit
        self.told: list[events.Event] = []
        broker = kit.broker(listeners=[self.told.append], **arguments)
        self.orders = broker.queue("orders", max_deliveries=DELIVERIES)
        self.other = broker.queue("other", max_deliveries=DELIVERIES)
        self.handled: set[bytes] = set()
        self.strange: dict[str, list[Any]] = {}  #: by id, the deliveries that are not our own

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Consume from both queues."""
        async with (
            self.orders.consume() as messages,
            self.other.consume() as beside,
            self._kit.iterating(messages, self.handle),
            self._kit.iterating(beside, self.handle),
        ):
            yield

    async def publish(self, number: int) -> list[bytes]:
        """One message of our own into each queue. Returns their bodies."""
        bodies = {queue: f"{queue.name} {number}".encode() for queue in (self.orders, self.other)}
        for queue, body in bodies.items():
            await queue.publish(body)
        return list(bodies.values())

    async def handle(self, message: Any) -> None:
        """Ack our own messages, nack all others."""
        if message.body.startswith((b"orders ", b"other ")):
            self.handled.add(message.body)
            await message.ack()
            return
        self.strange.setdefault(message.id, []).append(plain(message))
        await message.nack()

    async def is_buried(self, label: str, leave: Callable[[], object], number: int) -> Any:
        """`leave` an entry between messages of our own. It dies, ours are handled. Returns its dead letter, acked."""
        ours = await self.publish(2 * number)
        await self._kit.blocking(leave)
        ours += await self.publish(2 * number + 1)
        await self._kit.eventually(
            lambda: self.handled.issuperset(ours), what=lambda: f"{label}: {set(ours) - self.handled} was not handled"
        )
        async with self.orders.dead_letters().consume() as dead:
            letter = await self._kit.one(dead, 10.0)
            assert letter.dead is not None and letter.dead.reason, f"{label}: its dead letter has no reason"
            await letter.ack()
        return letter


@scenario("B120", needs="dead_letters", refused=asks_for_dead_letters)
async def what_cannot_be_read_is_handed_out_and_dies(kit: MessageKit) -> None:
    """A message that the driver cannot decode is delivered raw and counted. It dies with its body and the problem."""
    handler = _Lines()
    body = Unreadable.MARK + b" \x80 raw"
    here = _Neighbours(kit, wrap=Unreadable)
    logging.getLogger("narrowboat").addHandler(handler)
    try:
        async with here.at_work():
            receipt = await here.orders.publish(body)
            letter = await here.is_buried("unreadable", lambda: None, 0)
    finally:
        logging.getLogger("narrowboat").removeHandler(handler)
    (claims,) = here.strange.values()
    assert [(each.body, each.attempt) for each in claims] == [(body, n + 1) for n in range(DELIVERIES)]
    assert letter.body == body and Unreadable.PROBLEM in letter.dead.reason, f"the dead letter is {letter.dead}"
    assert letter.dead.attempts == DELIVERIES
    told = {(each.source, each.id, each.problem) for each in here.told if isinstance(each, events.Malformed)}
    assert ("orders", receipt.id, Unreadable.PROBLEM) in told, f"no event names the message and the problem: {told}"
    assert any(receipt.id in line and Unreadable.PROBLEM in line for line in handler.lines), (
        f"no line names the message and the problem: {handler.lines}"
    )


@scenario("B120", needs="dead_letters", refused=asks_for_dead_letters, faults={Fault.FOREIGN}, seconds=240)
async def what_others_leave_stops_nobody(kit: MessageKit) -> None:
    """Each entry that another program can leave is delivered or dies with a reason. Neighbours and other queues go on."""
    here = _Neighbours(kit)
    await here.orders.declare()
    async with here.at_work():
        for number, (label, leave) in enumerate(kit.harness.plant_entries(kit.namespace, "orders")):
            here.strange.clear()
            letter = await here.is_buried(label, leave, number)
            claims = [each.attempt for each in here.strange.get(letter.id, [])]
            assert claims == list(range(1, len(claims) + 1)), f"{label}: delivered as attempts {claims}"
            assert len(claims) <= DELIVERIES, f"{label}: delivered {len(claims)} times"
            known = {each.id for each in here.told if isinstance(each, events.Malformed | events.DeadLettered)}
            assert letter.id in known, f"{label}: no event told of it"
    await kit.depth_is(here.orders, ready=0, in_flight=0, delayed=0, dead=0)


@scenario("B121")
async def what_others_have_is_not_handed_out(kit: MessageKit) -> None:
    """A claim ends under a consumer. No handler gets what was buffered; what is in hand is lost at once, and stale."""
    layers: list[Ending] = []

    def ending(driver: Any) -> Ending:
        layers.append(Ending(driver))
        return layers[-1]

    mine, peer = kit.broker(wrap=ending).queue("orders"), kit.queue()
    await publish_all(mine, [b"x"] * 5)
    async with mine.consume(prefetch=5) as messages:
        first = await kit.one(messages)
        async with peer.consume() as others:
            assert not first.lost
            await kit.blocking(layers[0].end)
            assert first.lost, "its claim has ended, and it does not know"
            await _only_what_is_not_acked(kit, messages, others, first, 5)
            await fails(StaleDelivery, first.ack())
    await kit.depth_is(mine, ready=0, in_flight=0)


@scenario("B121", tier="N", faults={Fault.PROXY}, alone=True)
async def nor_after_the_connection_was_reset(kit: MessageKit) -> None:
    """A connection is reset under a consumer with a buffer. No handler gets a message that a peer acked meanwhile."""
    network = await kit.network()
    mine, peer = kit.broker(url=network.url).queue("orders"), kit.queue()
    await publish_all(mine, [b"x"] * 20)
    async with mine.consume(prefetch=20) as messages:
        first = await kit.one(messages)
        async with peer.consume() as others:
            await kit.blocking(network.reset)
            acked = await _only_what_is_not_acked(kit, messages, others, first, 20)
            assert first.lost or first.id not in acked, "a peer has acked the first message, and it is not lost to us"


async def _only_what_is_not_acked(kit: MessageKit, messages: Any, others: Any, first: Any, owed: int) -> set[str]:
    """A peer and we ack what each gets, until `owed` messages are. We get none of what it acked. Returns the ids that it acked.

    We take turns: while the members of a group agree who has what, which may take a second or two, none of them gets anything.
    """
    theirs: set[str] = set()
    ours: set[str] = set()
    attempts = {first.id: first.attempt}
    begun = time.monotonic()
    while len(theirs | ours) < owed and not kit.over(begun, 10.0):
        while (message := await others.receive(0.5)) is not None:
            attempts[message.id] = max(message.attempt, attempts.get(message.id, 0))
            try:
                await message.ack()
            except NarrowboatError:
                continue
            theirs.add(message.id)
        while (message := await messages.receive(0.5)) is not None:
            assert message.id not in theirs, f"{message.id} was delivered after a peer had acked it"
            assert message.attempt >= attempts.get(message.id, 0), f"attempt {message.attempt} after {attempts[message.id]}"
            await message.ack()
            ours.add(message.id)
    return theirs
