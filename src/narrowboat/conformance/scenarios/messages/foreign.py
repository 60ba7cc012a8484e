"""B120 and B121: what other programs leave in a queue, and what others have got meanwhile."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from narrowboat import events
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.faults.layers import Ending, Unreadable
from narrowboat.conformance.kit import Kit, plain
from narrowboat.conformance.scenario import scenario
from narrowboat.conformance.scenarios.messages.common import asks_for_dead_letters, depth_is, one, running
from narrowboat.errors import NarrowboatError, StaleDelivery

#: How often an entry of somebody else's is handed out before it dies.
DELIVERIES = 2


class _Lines(logging.Handler):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Kept."""
        self.lines.append(record.getMessage())


class _Neighbours:
    """Two queues of one broker: in `orders` others leave their entries; what we publish there and beside it is handled."""

    def __init__(self, kit: Kit, **arguments: Any) -> None:
        self._kit = kit
        self.told: list[events.Event] = []
        broker = kit.broker(listeners=[self.told.append], **arguments)
        self.orders = broker.queue("orders", max_deliveries=DELIVERIES)
        self.other = broker.queue("other", max_deliveries=DELIVERIES)
        self.handled: set[bytes] = set()
        self.strange: dict[str, list[Any]] = {}  #: by id, what was handed out and is none of ours

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Both queues are consumed from."""
        async with (
            self.orders.consume() as messages,
            self.other.consume() as beside,
            running(self._kit, messages, self.handle),
            running(self._kit, beside, self.handle),
        ):
            yield

    async def publish(self, number: int) -> list[bytes]:
        """One of ours into each queue: their bodies."""
        for queue in (self.orders, self.other):
            await queue.publish(f"{queue.name} {number}".encode())
        return [f"{queue.name} {number}".encode() for queue in (self.orders, self.other)]

    async def handle(self, message: Any) -> None:
        """Ours are acked, all others nacked."""
        if message.body.startswith((b"orders ", b"other ")):
            self.handled.add(message.body)
            await message.ack()
            return
        self.strange.setdefault(message.id, []).append(plain(message))
        await message.nack()

    async def is_buried(self, label: str, leave: Callable[[], object], number: int) -> Any:
        """`leave` an entry between two of ours: it dies, what is ours is handled. Its dead letter, acked."""
        ours = await self.publish(2 * number)
        await self._kit.blocking(leave)
        ours += await self.publish(2 * number + 1)
        await self._kit.eventually(
            lambda: self.handled.issuperset(ours), what=lambda: f"{label}: {set(ours) - self.handled} was not handled"
        )
        async with self.orders.dead_letters().consume() as dead:
            letter = await one(self._kit, dead, 10.0)
            assert letter.dead is not None and letter.dead.reason, f"{label}: died without a reason"
            await letter.ack()
        return letter


@scenario("B120", needs="dead_letters", refused=asks_for_dead_letters)
async def what_cannot_be_read_is_handed_out_and_dies(kit: Kit) -> None:
    """A message that the driver cannot take apart is handed out raw, told, counted, and dies with its body and the problem."""
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
    assert letter.body == body and Unreadable.PROBLEM in letter.dead.reason, letter.dead
    assert letter.dead.attempts == DELIVERIES
    told = {(each.source, each.id, each.problem) for each in here.told if isinstance(each, events.Malformed)}
    assert ("orders", receipt.id, Unreadable.PROBLEM) in told, f"told: {told}"
    assert any(receipt.id in line and Unreadable.PROBLEM in line for line in handler.lines), f"logged: {handler.lines}"


@scenario("B120", needs="dead_letters", refused=asks_for_dead_letters, faults={Fault.FOREIGN}, seconds=240)
async def what_others_leave_stops_nobody(kit: Kit) -> None:
    """Each entry that another program can leave is handed out or dies with a reason; neighbours and other queues go on."""
    here = _Neighbours(kit)
    await here.orders.declare()
    async with here.at_work():
        for number, (label, leave) in enumerate(kit.harness.plant_entries(kit.namespace, "orders")):
            here.strange.clear()
            letter = await here.is_buried(label, leave, number)
            claims = [each.attempt for each in here.strange.get(letter.id, [])]
            assert claims == list(range(1, len(claims) + 1)), f"{label}: handed out at attempts {claims}"
            assert len(claims) <= DELIVERIES, f"{label}: handed out {len(claims)} times"
            known = {each.id for each in here.told if isinstance(each, events.Malformed | events.DeadLettered)}
            assert letter.id in known, f"{label}: nothing was told of it"
    await depth_is(kit, here.orders, ready=0, in_flight=0, delayed=0, dead=0)


@scenario("B121")
async def what_others_have_is_not_handed_out(kit: Kit) -> None:
    """What was buffered under a claim that has ended is handed to nobody; what is in hands is lost at once, and stale."""
    layers: list[Ending] = []

    def ending(driver: Any) -> Ending:
        layers.append(Ending(driver))
        return layers[-1]

    mine, peer = kit.broker(wrap=ending).queue("orders"), kit.broker().queue("orders")
    await mine.publish_many([b"x"] * 5)
    async with mine.consume(prefetch=5) as messages:
        first = await one(kit, messages)
        async with peer.consume() as others:
            assert not first.lost
            await kit.blocking(layers[0].end)
            assert first.lost, "its claim has ended, and it does not know"
            await _only_what_is_not_acked(kit, messages, others, {first.id: first.attempt})
            await fails(StaleDelivery, first.ack())
    await depth_is(kit, mine, ready=0, in_flight=0)


@scenario("B121", tier="N", faults={Fault.PROXY}, alone=True)
async def nor_after_the_connection_was_reset(kit: Kit) -> None:
    """A connection is reset under a consumer that has buffered: what a peer acked meanwhile is handed to no handler."""
    network = await kit.network()
    mine, peer = kit.broker(url=network.url).queue("orders"), kit.broker().queue("orders")
    await mine.publish_many([b"x"] * 20)
    async with mine.consume(prefetch=20) as messages:
        first = await one(kit, messages)
        async with peer.consume() as others:
            await kit.blocking(network.reset)
            acked = await _only_what_is_not_acked(kit, messages, others, {first.id: first.attempt}, within=10.0)
            assert first.lost or first.id not in acked, "a peer has acked it, and it believes that it is ours"


async def _only_what_is_not_acked(
    kit: Kit, messages: Any, others: Any, attempts: dict[str, int], within: float = 0.5
) -> set[str]:
    """Peers take what they get and ack it; of what we are handed afterwards they have acked nothing. What they acked."""
    acked: set[str] = set()
    while (theirs := await others.receive(within if not acked else 0.5)) is not None:
        attempts[theirs.id] = max(theirs.attempt, attempts.get(theirs.id, 0))
        try:
            await theirs.ack()
        except NarrowboatError:
            continue
        acked.add(theirs.id)
    while (message := await messages.receive(0.5)) is not None:
        assert message.id not in acked, f"{message.id} was handed out after a peer had acked it"
        assert message.attempt >= attempts.get(message.id, 0), f"attempt {message.attempt} after {attempts[message.id]}"
        await message.ack()
    return acked
