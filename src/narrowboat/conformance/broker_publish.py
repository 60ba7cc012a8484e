"""B01 to B20: what is published arrives, as it was, where it shall, and nothing else does."""

from __future__ import annotations

import dataclasses
import string
import time
from collections.abc import Sequence
from typing import Any

import narrowboat
from narrowboat import codecs
from narrowboat.conformance.broker_common import (
    depth_is,
    drained,
    first_error,
    nothing,
    one,
    raises,
    refuses,
    take_acked,
)
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.child import Link
from narrowboat.conformance.kit import Faults, Kit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.contract.messages import Outgoing, Receipt
from narrowboat.errors import Conflict, InvalidArgument, NarrowboatError, NotFound, PublishFailed
from narrowboat.layers.passing import PassingBroker


@scenario("B01", "B20")
async def a_hundred_arrive_as_published(kit: Kit) -> None:
    """Bodies, headers, keys and ids arrive equal; a hundred messages are the same set, and nothing comes from nowhere."""
    orders = kit.broker().queue("orders")
    sent = {}
    for n in range(100):
        receipt = await orders.publish(f"body {n}".encode(), headers={"n": str(n)}, key=f"k{n % 7}")
        sent[receipt.id] = (f"body {n}".encode(), {"n": str(n)}, f"k{n % 7}")
    assert len(sent) == 100, "generated ids are unique"
    async with orders.consume() as messages:
        got = await take_acked(kit, messages, 100)
        await nothing(messages)
    assert {m.id: (m.body, dict(m.headers), m.key) for m in got} == sent


@scenario("B02")
async def any_bytes_are_a_body(kit: Kit) -> None:
    """Every byte value, the empty body and a body at the declared maximum arrive as they are."""
    orders = kit.broker().queue("orders")
    largest = bytes(range(256)) * (kit.broker_claims.body_max // 256 + 1)
    bodies = [bytes(range(256)), b"", b"\x00", b"\xff\xfe\x80", largest[: kit.broker_claims.body_max]]
    for body in bodies:
        await orders.publish(body)
    async with orders.consume(prefetch=2) as messages:
        got = await take_acked(kit, messages, len(bodies), within=30)
    assert sorted(m.body for m in got) == sorted(bodies)


@scenario("B02")
async def a_body_beyond_the_maximum_is_refused(kit: Kit) -> None:
    """One byte more than the declared maximum is an InvalidArgument before anything is sent."""
    orders = kit.broker().queue("orders")
    error = await first_error(InvalidArgument, lambda: orders.publish(bytes(kit.broker_claims.body_max + 1)))
    assert str(kit.broker_claims.body_max) in str(error), error
    assert not kit.seen.calls["send"]


@scenario("B03")
async def headers_are_any_text(kit: Kit) -> None:
    """Header names and values of any characters arrive equal: all printable ASCII, unicode, slashes, empty values."""
    headers = {
        "plain": "value",
        "a/b//c": "/",
        "with space": "  kept  ",
        "ünïcödé-鍵": "値 🚤",
        "empty": "",
        "Case": "1",
        "case": "2",
        "quotes'\"": "';--\\",
        "newline": "a\nb\r\n\tc",
        string.ascii_letters + string.digits + string.punctuation: string.printable,
    }
    orders = kit.broker().queue("orders")
    await orders.publish(b"x", headers=headers)
    many = {f"h{n}": str(n) for n in range(200)}
    await orders.publish(b"y", headers=many)
    async with orders.consume() as messages:
        got = {m.body: dict(m.headers) for m in await take_acked(kit, messages, 2)}
    assert got[b"x"] == headers
    assert got[b"y"] == many


@scenario("B03")
async def headers_that_are_no_text_are_refused(kit: Kit) -> None:
    """Bytes, numbers, lone surrogates, reserved names and too much of it are each an InvalidArgument, and nothing is sent."""
    orders = kit.broker().queue("orders")
    bad: list[Any] = [
        {"n": 1},
        {b"n": "v"},
        {"n": b"\xff"},
        {"n": "\ud800"},
        {"": "v"},
        {"narrowboat-id": "mine"},
        {"big": "x" * (kit.broker_claims.headers_max + 1)},
        ["no", "mapping"],
    ]
    for headers in bad:
        await first_error(InvalidArgument, lambda headers=headers: orders.publish(b"x", headers=headers))  # type: ignore[misc]  # bound now
    assert not kit.seen.calls["send"]


@dataclasses.dataclass
class Order:
    """A program's own type."""

    number: int
    items: list[str]


class OrderCodec:
    """A codec for it."""

    name = "order"
    content_type: str | None = "application/x-order"

    def encode(self, data: Order, /) -> bytes:
        """As one line."""
        return f"{data.number}:{','.join(data.items)}".encode()

    def decode(self, body: bytes, /) -> Order:
        """From one line."""
        number, _, items = body.decode().partition(":")
        return Order(int(number), items.split(","))


@scenario("B04")
async def codecs_round_trip(kit: Kit) -> None:
    """What a codec encodes it decodes: JSON documents and a program's own types; the content type goes along."""
    broker = kit.broker()
    documents = [{"a": [1, 2.5, None, True, "ü"]}, [], "text", 0, {"deep": {"er": [[]]}}]
    json = broker.queue("json", codec=codecs.JSON)
    for document in documents:
        await json.publish(document)
    async with json.consume() as messages:
        got = await take_acked(kit, messages, len(documents))
    assert sorted(map(repr, (m.data for m in got))) == sorted(map(repr, documents))
    assert {m.content_type for m in got} == {"application/json"}

    own = broker.queue("own", codec=OrderCodec())
    await own.publish(Order(7, ["tea", "rope"]))
    async with own.consume() as messages:
        message = await one(kit, messages)
        assert message.data == Order(7, ["tea", "rope"])
        assert message.body == b"7:tea,rope"
        await message.ack()


@scenario("B05")
async def ids_and_properties_are_kept(kit: Kit) -> None:
    """A caller's id, correlation id and content type arrive; generated ids are unique; the time of publishing is kept."""
    orders = kit.broker().queue("orders")
    before = time.time()
    receipt = await orders.publish(b"x", id="order/42 ü", correlation_id="c-1", content_type="text/x-test")
    assert receipt.id == "order/42 ü"
    generated = {(await orders.publish(b"y")).id for _ in range(50)}
    after = time.time()
    assert len(generated) == 50
    async with orders.consume() as messages:
        got = await take_acked(kit, messages, 51)
    by_id = {m.id: m for m in got}
    assert set(by_id) == {"order/42 ü", *generated}
    mine = by_id["order/42 ü"]
    assert (mine.correlation_id, mine.content_type) == ("c-1", "text/x-test")
    assert mine.published_at is not None and before - 1 <= mine.published_at <= after + 1


@scenario("B06", faults={Fault.REPLY})
async def publish_waits_for_the_confirm(kit: Kit) -> None:
    """A publish does not return before the backend has confirmed it; then another connection finds the message."""
    faults = Faults()
    orders = kit.broker(faults=faults).queue("orders")
    gate = faults.hold("send", before=True)

    async def publish() -> None:
        await orders.publish(b"x")

    task = kit.spawn(publish())
    assert await kit.blocking(gate.reached.wait, 5)
    await kit.sleep(0.05)
    assert not task.done(), "returned although the backend has not been asked yet"
    gate.open()
    await task
    async with kit.broker().queue("orders").consume() as messages:
        assert (await one(kit, messages)).body == b"x"


def publishes_and_waits(link: Link, url: str) -> None:
    """A child: publish one message, tell, and wait to be killed."""
    broker = narrowboat.broker(url)
    receipt = broker.queue("orders").publish(b"durable")
    link.tell("published", id=receipt.id)
    link.wait("never")


@scenario("B06", tier="P", needs="scope=host", refused=demand("scope=host"), faults={Fault.PROCESS})
async def published_survives_its_publisher(kit: Kit) -> None:
    """A message whose publish returned is delivered although its publisher is killed right then."""
    child = await kit.child(publishes_and_waits, url=kit.broker_url)
    told = await child.event("published")
    child.kill()
    async with kit.broker().queue("orders").consume() as messages:
        message = await one(kit, messages)
        assert (message.id, message.body) == (told["id"], b"durable")
        await message.ack()


@scenario("B07")
async def a_batch_larger_than_the_backend_takes(kit: Kit) -> None:
    """publish_many delivers all of a batch that is larger than one exchange may be: one receipt for each, in order."""
    count = min(kit.broker_claims.batch_max, 2000) + 5
    orders = kit.broker().queue("orders")
    receipts = await orders.publish_many([str(n).encode() for n in range(count)])
    assert len(receipts) == count
    bad = [each for each in receipts if not isinstance(each, Receipt)]
    assert not bad, bad[:3]
    assert kit.seen.calls["send"] == -(-count // kit.broker_claims.batch_max)
    got: dict[str, bytes] = {}
    async with orders.consume(prefetch=500) as messages:
        async for batch in messages.batches(500, wait=0.01):
            got.update((m.id, m.body) for m in batch)
            assert not any(await batch.ack())
            if len(got) >= count:
                break
    assert [got[receipt.id] for receipt in receipts if isinstance(receipt, Receipt)] == [str(n).encode() for n in range(count)]


class _RefusesOdd(PassingBroker):
    """A backend that has no room for every other message of a batch."""

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        taken = iter(self.inner.send([m for m in messages if not m.body.startswith(b"odd")]))
        return [PublishFailed("no room", id=m.id) if m.body.startswith(b"odd") else next(taken) for m in messages]


@scenario("B07")
async def a_batch_that_fails_in_part(kit: Kit) -> None:
    """publish_many gives one outcome for each: the failed ones are named, the others are delivered, nothing is raised."""
    orders = kit.broker(wrap=_RefusesOdd).queue("orders")
    bodies = [f"{'odd' if n % 2 else 'even'} {n}".encode() for n in range(10)]
    outcomes = await orders.publish_many(bodies)
    assert [isinstance(each, Receipt) for each in outcomes] == [n % 2 == 0 for n in range(10)]
    assert all(isinstance(each, PublishFailed) for each in outcomes[1::2])
    assert sorted(await drained(orders)) == sorted(bodies[0::2])


@scenario("B07", "B09")
async def a_batch_with_one_wrong_item_sends_nothing(kit: Kit) -> None:
    """An item that cannot be sent is an InvalidArgument that names its place, and none of the batch is sent."""
    orders = kit.broker().queue("orders")
    wrong: list[Any] = [b"0", b"1", None, b"3"]
    error = await raises(InvalidArgument, orders.publish_many(wrong))
    assert "2" in str(error), error
    assert not kit.seen.calls["send"]
    assert await orders.publish_many([]) == []


@scenario("B08")
async def a_batch_does_not_wait_to_be_full(kit: Kit) -> None:
    """batches() gives what is there after `wait`, not only full batches; what comes late enough to be too many is next."""
    orders = kit.broker().queue("orders")
    await orders.publish_many([b"0", b"1", b"2"])
    async with orders.consume(prefetch=100) as messages:
        begun = time.monotonic()
        sizes: list[int] = []
        async for batch in messages.batches(100, wait=0.05):
            sizes.append(len(batch))
            assert not any(await batch.ack())
            if sum(sizes) == 3:
                break
        assert time.monotonic() - begun < kit.upper(3.0), "a part of a batch was kept back"
        await orders.publish_many([str(n).encode() for n in range(10)])
        sizes.clear()
        async for batch in messages.batches(4, wait=0.05):
            sizes.append(len(batch))
            assert not any(await batch.ack())
            if sum(sizes) == 10:
                break
        assert max(sizes) <= 4, sizes


@scenario("B08")
async def late_arrivals_join_a_batch(kit: Kit) -> None:
    """What arrives while a batch gathers is in it, and the batch ends as soon as it is full."""
    orders = kit.broker().queue("orders")
    await orders.publish(b"early")
    async with orders.consume(prefetch=2) as messages:

        async def first() -> list[bytes]:
            async for batch in messages.batches(2, wait=20.0):
                bodies = [m.body for m in batch]
                assert not any(await batch.ack())
                return bodies
            raise AssertionError("the iteration ended")

        begun = time.monotonic()
        task = kit.spawn(first())
        await kit.eventually(lambda: kit.seen.calls["delivered"], what="the first message is fetched")
        await orders.publish(b"late")
        assert await task == [b"early", b"late"]
        assert time.monotonic() - begun < kit.upper(10), "a full batch waited for its time to be up"


@scenario("B08")
async def receive_keeps_its_deadline(kit: Kit) -> None:
    """receive(timeout) gives None when the time is up, not before, and receive(0) looks once."""
    orders = kit.broker().queue("orders")
    async with orders.consume() as messages:
        begun = time.monotonic()
        assert await messages.receive(0.3) is None
        took = time.monotonic() - begun
        assert took >= 0.3, f"gave up {0.3 - took:g} s early"
        assert took < kit.upper(2.0)
        assert await messages.receive(0) is None
        await orders.publish(b"x")
        message = await messages.receive(0)
        assert message is not None and message.body == b"x"


@scenario("B09")
async def what_cannot_be_encoded_is_not_sent(kit: Kit) -> None:
    """A codec's error, None, text and other types are refused before anything is sent."""
    broker = kit.broker()
    json, plain = broker.queue("json", codec=codecs.JSON), broker.queue("plain")
    for wrong in (object(), float("nan"), {1, 2}):
        await first_error(InvalidArgument, lambda wrong=wrong: json.publish(wrong))  # type: ignore[misc]  # bound now
    values: list[Any] = [None, "text", 7, bytearray(b"x"), ["x"]]
    for value in values:
        await first_error(InvalidArgument, lambda value=value: plain.publish(value))  # type: ignore[misc]  # bound now
    assert not kit.seen.calls["send"]
    await plain.publish(b"good")
    assert await drained(plain) == [b"good"]


@scenario("B10")
async def changing_a_payload_changes_no_redelivery(kit: Kit) -> None:
    """A handler that changes the data, and a publisher that changes its headers afterwards, change no delivery."""
    orders = kit.broker().queue("orders", codec=codecs.JSON)
    headers, data = {"v": "1"}, {"items": [1]}
    await orders.publish(data, headers=headers)
    headers["v"], data["items"] = "2", []
    async with orders.consume() as messages:
        first = await one(kit, messages)
        first.data["items"].append("changed")
        try:
            first.headers["v"] = "changed"
        except TypeError:
            pass
        await first.nack()
        second = await one(kit, messages)
        assert second.data == {"items": [1]}
        assert dict(second.headers) == {"v": "1"}
        await second.ack()


#: Names that are allowed, however odd. No two of them may meet.
NAMES = [
    "a",
    "A",
    "a b",
    "a/b",
    "a%2Fb",
    "a_b",
    "a-b",
    "ünïcödé",
    "鍵",
    "a.b",
    "a..b",
    "x" * 300,
    "x" * 301,
    "'; drop",
    "%",
    "*",
    "#",
]


@scenario("B11")
async def queues_do_not_meet(kit: Kit) -> None:
    """Twenty queues at once, a hundred messages each, under odd names: each gets its own and nothing of the others."""
    broker = kit.broker()
    names = [*NAMES, *(f"plain{n}" for n in range(20 - len(NAMES)))]

    async def use(name: str) -> None:
        queue = broker.queue(name)
        outcomes = await queue.publish_many([f"{name}|{n}".encode() for n in range(100)])
        assert all(isinstance(each, Receipt) for each in outcomes), outcomes[:1]
        async with queue.consume() as messages:
            got = await take_acked(kit, messages, 100, within=30)
            await nothing(messages)
        assert sorted(m.body for m in got) == sorted(f"{name}|{n}".encode() for n in range(100))

    await kit.together(*(use(name) for name in names))


BAD_NAMES: list[Any] = ["", "x" * 1001, "a\nb", "\x00", "orders.dead", "orders.retry", "orders.delayed", 7, None, b"bytes"]


@scenario("B11")
async def names_that_cannot_be(kit: Kit) -> None:
    """Empty, too long, control characters, reserved endings, no text: an InvalidArgument, and nothing is sent."""
    broker = kit.broker()
    for name in BAD_NAMES:
        refuses(InvalidArgument, lambda name=name: broker.queue(name))  # type: ignore[misc]  # bound now
    assert not kit.seen.calls


async def _asks_for_a_topic(kit: Kit) -> None:
    kit.broker().topic("prices")


@scenario("B11", needs="topics", refused=_asks_for_a_topic)
async def names_that_no_topic_can_have(kit: Kit) -> None:
    """The same for topics and for groups, whose names have no dot."""
    broker = kit.broker()
    for name in BAD_NAMES:
        refuses(InvalidArgument, lambda name=name: broker.topic(name))  # type: ignore[misc]  # bound now
    for group in ("", "a.b", "dead", "a\nb"):
        refuses(InvalidArgument, lambda group=group: broker.topic("prices").subscription(group))  # type: ignore[misc]  # bound now
    assert not kit.seen.calls


@scenario("B12", "B16", needs="topics", refused=_asks_for_a_topic)
async def every_group_gets_everything(kit: Kit) -> None:
    """Each group of a topic gets each message once; a group of the same name at another topic gets none of them."""
    broker = kit.broker()
    prices, other = broker.topic("prices"), broker.topic("other")
    async with (
        prices.subscription("a").consume() as a,
        prices.subscription("b").consume() as b,
        other.subscription("a").consume() as c,
    ):
        for n in range(20):
            await prices.publish(str(n).encode())
        for messages in (a, b):
            got = await take_acked(kit, messages, 20)
            assert sorted(int(m.body) for m in got) == list(range(20))
            await nothing(messages)
        await nothing(c)
        await other.publish(b"control")
        assert (await one(kit, c)).body == b"control"


@scenario("B13", needs="topics", refused=_asks_for_a_topic)
async def members_of_a_group_share(kit: Kit) -> None:
    """Members of one group share its messages: together all of them, each exactly once."""
    total = 90
    done: list[int] = []
    topic = kit.broker().topic("prices")
    await topic.subscription("g").declare()
    await topic.publish_many([str(n).encode() for n in range(total)])

    async def member() -> None:
        async with kit.broker().topic("prices").subscription("g").consume(prefetch=5) as messages:
            while len(done) < total and (message := await messages.receive(0.3)) is not None:
                done.append(int(message.body))
                await message.ack()

    await kit.together(member(), member(), member())
    assert sorted(done) == list(range(total))


@scenario("B13")
async def consumers_of_a_queue_share(kit: Kit) -> None:
    """Consumers of one queue, on one connection and on several, share its messages: each goes to exactly one."""
    broker, total = kit.broker(), 90
    done: list[int] = []
    await broker.queue("orders").publish_many([str(n).encode() for n in range(total)])

    async def member(own: Any) -> None:
        async with own.queue("orders").consume(prefetch=5) as messages:
            while len(done) < total and (message := await messages.receive(0.3)) is not None:
                done.append(int(message.body))
                await message.ack()

    await kit.together(member(broker), member(broker), member(kit.broker()))
    assert sorted(done) == list(range(total))


@scenario("B14", "B15", needs="topics", refused=_asks_for_a_topic)
async def a_group_begins_when_it_is_declared(kit: Kit) -> None:
    """A topic without groups drops; a group gets what is published after declare() or consume() has returned, no less."""
    topic = kit.broker().topic("prices")
    await topic.publish(b"before")
    late = kit.broker().topic("prices").subscription("late")
    await late.declare()
    await topic.publish(b"after declare")
    assert await drained(late) == [b"after declare"]
    async with topic.subscription("live").consume() as messages:
        await kit.broker().topic("prices").publish(b"after consume")
        assert (await one(kit, messages)).body == b"after consume"


async def _asks_for_earliest(kit: Kit) -> None:
    kit.broker().topic("prices").subscription("g", start="earliest")


@scenario("B14", needs="replay", refused=_asks_for_earliest)
async def a_group_from_the_earliest(kit: Kit) -> None:
    """A subscription that starts at the earliest begins with what its topic still has; another at the latest does not."""
    topic = kit.broker().topic("prices")
    await topic.subscription("first").declare()
    await topic.publish_many([b"0", b"1", b"2"])
    assert sorted(await drained(topic.subscription("all", start="earliest"))) == [b"0", b"1", b"2"]
    assert await drained(topic.subscription("new")) == []


@scenario("B15")
async def a_queue_keeps_without_consumers(kit: Kit) -> None:
    """What is published to a queue that nobody has ever consumed is kept, also when its publisher has closed."""
    broker = kit.broker()
    await broker.queue("orders").publish_many([b"0", b"1", b"2"])
    await broker.close()
    assert sorted(await drained(kit.broker().queue("orders"))) == [b"0", b"1", b"2"]


@scenario("B16", needs="topics", refused=_asks_for_a_topic)
async def one_name_is_a_queue_or_a_topic(kit: Kit) -> None:
    """Queues and topics share a namespace: one name as both is a Conflict, and what was there works on."""
    broker = kit.broker()
    await broker.queue("orders").declare()
    await raises(Conflict, broker.topic("orders").subscription("g").declare())
    await broker.queue("orders").publish(b"x")
    assert await drained(broker.queue("orders")) == [b"x"]


@scenario("B18")
async def declaring_again_changes_nothing(kit: Kit) -> None:
    """declare() is idempotent and keeps the messages; other properties are a Conflict that changes nothing."""
    broker, other = kit.broker(), kit.broker()
    lease = max(20.0, kit.broker_claims.lease_min)
    orders = broker.queue("orders", lease=lease)
    await orders.declare()
    await orders.publish(b"x")
    await orders.declare()
    await other.queue("orders", lease=lease).declare()
    await raises(Conflict, other.queue("orders", lease=lease + 10).declare())
    assert await drained(orders) == [b"x"]


@scenario("B18")
async def a_queue_deleted_while_consumed(kit: Kit) -> None:
    """A queue deleted under a consumer: the consumer gets a typed error or goes on with the queue made anew; no hang."""
    broker, other = kit.broker(), kit.broker()
    orders = broker.queue("orders")
    await orders.publish(b"old")
    async with orders.consume() as messages:
        message = await one(kit, messages)
        assert await other.queue("orders").delete()
        assert not await other.queue("orders").delete(), "it was there twice"
        await raises(NarrowboatError, message.ack())
        await other.queue("orders").publish(b"new")
        try:
            again = await messages.receive(kit.upper(5))
        except NotFound:
            return
        assert again is not None, "neither a message nor an error"
        assert again.body == b"new"
        await again.ack()


@scenario("B19", tier="S", seconds=180)
async def many_publishers_and_consumers(kit: Kit) -> None:
    """Fifty publishers and fifty consumers on one connection: every message exactly once."""
    each = max(4, int(100 * kit.size))
    broker = kit.broker()
    done: list[bytes] = []
    orders = broker.queue("orders")
    total = 50 * each

    async def publisher(number: int) -> None:
        for n in range(each):
            await orders.publish(f"{number}:{n}".encode())

    async def consumer() -> None:
        async with orders.consume(prefetch=20) as messages:
            while len(done) < total:
                message = await messages.receive(0.2)
                if message is not None:
                    done.append(message.body)
                    await message.ack()

    await kit.together(*(publisher(n) for n in range(50)), *(consumer() for _ in range(50)))
    assert sorted(done) == sorted(f"{number}:{n}".encode() for number in range(50) for n in range(each))
    await depth_is(kit, orders, ready=0, in_flight=0)
