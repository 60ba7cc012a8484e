"""What a seal promises beside the contract. Each check runs with the real seal, and must fail with each seal that breaks it."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from mutants.sealing import all_mutants, name_of

import narrowboat
from broker_calls import open_driver
from narrowboat import events
from narrowboat.contract import (
    Ack,
    Address,
    Broker,
    Delivery,
    Feed,
    Kind,
    Nack,
    Outcome,
    Outgoing,
    Properties,
    Reject,
    Source,
)
from narrowboat.contract.messages import DEAD_REASON
from narrowboat.errors import ConfigurationError, InvalidArgument, NarrowboatError
from narrowboat.layers.changing import UNOPENED
from narrowboat.layers.passing import PassingBroker, PassingFeed
from narrowboat.layers.sealed import Keyring, Seal
from narrowboat.layers.sealed.format import MARKER
from narrowboat.layers.sealed.keyring import document_of
from narrowboat.layers.sealed.keys import ED25519, GCM, HMAC, KINDS, Key, public_half
from narrowboat.layers.sealed.layer import ROTATE_AT, SealedBroker
from narrowboat_memory import broker as memory

ORDERS = Address(Kind.QUEUE, "orders")
PAYROLL = Address(Kind.QUEUE, "payroll")
REASON = SealedBroker.REASON
NOW = 1_796_000_000.0

_count = itertools.count()


def key(id: str = "k1", kind: str = GCM, since: float = 0.0) -> Key:
    secret = os.urandom(32)
    return Key(id, kind, since, secret, public_half(secret) if kind == ED25519 else None)


def ring(*keys: Key, **options: Any) -> Keyring:
    document = document_of(keys or [key()])
    return Keyring(lambda: document, **options)


def place() -> str:
    """The URL of a broker that nobody else has."""
    return f"memory://sealed-{os.getpid()}-{next(_count)}"


def driver(url: str) -> Broker:
    """The driver behind a URL, as the core has it: what the server sees."""
    made: Broker = open_driver(memory, url)
    return made


def outgoing(to: Address = ORDERS, body: bytes = b"secret body", **fields: Any) -> Outgoing:
    message = Outgoing(to, os.urandom(8).hex(), body, {}, None, NOW, 0.0, 0, None, None, None, None, False)
    return message._replace(**fields)


def full(**fields: Any) -> Outgoing:
    """A message that has everything."""
    some: dict[str, Any] = {
        "headers": {"ünï": "secret header", "b": ""},
        "key": "42",
        "correlation_id": "c-7",
        "content_type": "text/plain",
        "reply_to": Address(Kind.INBOX, "narrowboat.inbox." + "0" * 32),
    }
    return outgoing(**{**some, **fields})


def feed_of(broker: Broker, address: Address = ORDERS) -> Feed:
    return broker.open(Source(address, Properties()), earliest=False, wake=lambda: None)


def received(broker: Broker, address: Address = ORDERS) -> list[Delivery]:
    return feed_of(broker, address).receive(100).deliveries


def again(delivery: Delivery, to: Address = ORDERS, **changes: Any) -> Outgoing:
    """What the server has of a message, as a message of its own: what who can write to the server may send."""
    message = outgoing(
        to,
        delivery.body,
        id=delivery.id,
        headers=delivery.headers,
        key=delivery.key,
        published_at=delivery.published_at,
        correlation_id=delivery.correlation_id,
        content_type=delivery.content_type,
        reply_to=delivery.reply_to,
    )
    return message._replace(**changes)


class Watched(PassingBroker):
    """Keeps what a driver is asked to settle, and what to enlist."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self.settlements: list[tuple[Delivery, Outcome]] = []
        self.enlisted: list[Outgoing] = []

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        return _WatchedFeed(inner, self)

    def enlist(self, connection: Any, message: Outgoing) -> None:
        self.enlisted.append(message)


class _WatchedFeed(PassingFeed):
    def __init__(self, inner: Feed, watched: Watched) -> None:
        super().__init__(inner)
        self._watched = watched

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        self._watched.settlements += settlements
        return self.inner.settle(settlements)


Make = Callable[..., Any]  #: `Seal`, or one that is broken


# -- the checks -----------------------------------------------------------------------------------------------------


def a_message_comes_back_whole(make: Make) -> None:
    """With everything that it has, and with nothing else."""
    for kind in KINDS:
        server = driver(place())
        sealed = make(ring(key(kind=kind))).wrap(server)
        for message in (outgoing(body=b""), full(), full(headers={}), full(reply_to=None, key=None)):
            sealed.send([message])
            (delivery,) = received(sealed)
            assert (delivery.body, dict(delivery.headers)) == (message.body, message.headers), kind
            assert delivery[3:4] + delivery[8:11] == message[4:5] + message[9:12]
            assert (delivery.id, delivery.published_at, delivery.malformed) == (message.id, NOW, "")
            server.delete(ORDERS)


def the_server_sees_no_body_header_or_reply_address(make: Make) -> None:
    """What brokers need stays in clear: id, key, content type, correlation id. The marker tells version and key."""
    server = driver(place())
    make(ring()).wrap(server).send([full()])
    (seen,) = received(server)

    assert list(seen.headers) == [MARKER] and seen.headers[MARKER].startswith("v1.k1.")
    assert seen.reply_to is None
    assert (seen.key, seen.content_type, seen.correlation_id) == ("42", "text/plain", "c-7")
    assert b"secret" not in seen.body


def a_message_that_is_moved_is_refused(make: Make) -> None:
    """To another queue, to a topic of that name, to an inbox; and so is one of a queue whose name only begins alike."""
    for kind in KINDS:
        server = driver(place())
        sealed = make(ring(key(kind=kind))).wrap(server)
        sealed.send([outgoing()])
        (seen,) = received(server)
        server.send([again(seen, PAYROLL)])
        (found,) = received(sealed, PAYROLL)
        assert found.refused == REASON and "another queue" in found.malformed, kind


def what_is_changed_on_the_server_is_refused(make: Make) -> None:
    """Body, id, key, content type, correlation id, the marker; with a signing key headers and reply address as well."""
    for kind in KINDS:
        server = driver(place())
        sealed = make(ring(key(kind=kind))).wrap(server)
        sealed.send([full()])
        (seen,) = received(server)
        marker = seen.headers[MARKER]
        other = "B" if marker[-30] != "B" else "C"
        changes: list[dict[str, Any]] = [
            {"body": seen.body[:-1] + bytes([seen.body[-1] ^ 1])},
            {"body": seen.body + b"x"},
            {"id": "other"},
            {"key": None},
            {"key": "43"},
            {"content_type": None},
            {"correlation_id": "c-8"},
            {"headers": {**seen.headers, MARKER: marker[:-30] + other + marker[-29:]}},
            {"headers": {**seen.headers, MARKER: "v1.k1." + "A" * 6 + marker[12:]}},
            {"headers": {**seen.headers, MARKER: marker.replace("v1.", "v2.")}},
            {"headers": {**seen.headers, MARKER: ""}},
        ]
        if kind != GCM:
            changes += [
                {"headers": {MARKER: marker}},
                {"headers": {**seen.headers, "more": ""}},
                {"reply_to": None},
                {"reply_to": Address(Kind.INBOX, "narrowboat.inbox." + "1" * 32)},
            ]
        feed = feed_of(sealed)
        for change in changes:
            server.send([again(seen, **change)])
            (found,) = feed.receive(1).deliveries
            assert found.refused == REASON, (kind, change)
        server.send([again(seen, priority=0, ttl=60.0, delay=0.0)])
        assert [each.refused for each in feed.receive(1).deliveries] == [""], "what changes on the way is not bound"


def what_has_no_seal_is_refused(make: Make) -> None:
    """Unless its source is named. What has a seal must open there as well."""
    server = driver(place())
    keys = ring()
    server.send([outgoing(), outgoing(PAYROLL)])
    lenient = make(keys, clear=["payroll"]).wrap(server)

    assert [each.refused for each in received(lenient)] == [REASON]
    assert [each.body for each in received(lenient, PAYROLL) if not each.refused] == [b"secret body"]
    server.send([outgoing(PAYROLL, headers={MARKER: "v1.k1.none"})])
    assert [each.refused for each in received(lenient, PAYROLL)] == [REASON]


def no_two_messages_have_one_nonce(make: Make) -> None:
    """In one batch, and in two; nor has one that is published again."""
    server = driver(place())
    sealed = make(ring()).wrap(server)
    message = outgoing()
    for _ in range(2):
        sealed.send([message] * 50)
    nonces = {each.headers[MARKER][-16:] for each in received(server)}
    assert len(nonces) == 100


def the_newest_key_seals_and_all_open(make: Make) -> None:
    """A key seals once it has begun. What was sealed with an older one is opened for as long as that is there."""
    old, new, tomorrow = key("old", since=1.0), key("new", since=NOW - 1), key("tomorrow", since=NOW + 86400)
    server = driver(place())
    Seal(ring(old)).wrap(server).send([outgoing(id="1")])
    Seal(ring(tomorrow)).wrap(server).send([outgoing(id="2")])
    sealed = make(ring(old, new, tomorrow, wall=lambda: NOW)).wrap(server)
    sealed.send([outgoing(id="3")])

    assert [each.headers[MARKER].split(".")[1] for each in received(server)] == ["old", "tomorrow", "new"]
    server.purge(ORDERS)
    server.delete(ORDERS)
    Seal(ring(old)).wrap(server).send([outgoing()])
    assert [each.refused for each in received(sealed)] == [""]


def the_claimed_body_fits_with_all_that_goes_inside(make: Make) -> None:
    """The largest body that is claimed, with the largest headers and an address for replies."""
    server = driver(place())
    seal = make(ring())
    claims, plain = seal.claims(server.capabilities), server.capabilities
    name = "x" * (claims.headers_max // 2)
    largest = outgoing(
        body=bytes(claims.body_max), headers={name: name}, reply_to=Address(Kind.INBOX, "é" * 1000), key="é" * 1000
    )
    (answer,) = seal.wrap(server).send([largest])
    assert not isinstance(answer, Exception)
    (refused, sent) = seal.wrap(server).send([outgoing(body=bytes(plain.body_max)), outgoing()])
    assert isinstance(refused, InvalidArgument) and "up to" in str(refused)
    assert sent.id


def what_is_stored_in_a_transaction_is_sealed(make: Make) -> None:
    """As what is sent."""
    watched = Watched(driver(place()))
    make(ring()).wrap(watched).enlist("connection", full())
    assert [list(each.headers) for each in watched.enlisted] == [[MARKER]]


def a_driver_settles_what_it_handed_out(make: Make) -> None:
    """One that publishes a message again, for a delay or as a dead letter, publishes it sealed."""
    watched = Watched(driver(place()))
    sealed = make(ring()).wrap(watched)
    sealed.send([full(), outgoing()])
    feed = feed_of(sealed)
    deliveries = feed.receive(10).deliveries
    feed.extend(deliveries, 60.0)
    assert feed.settle([(deliveries[0], Nack(9.0)), (deliveries[1], Reject("no", 1))]) == [None, None]
    assert all(MARKER in each.headers and b"secret" not in each.body for each, _ in watched.settlements)
    assert all(feed.current(each) for each in deliveries)


def a_body_beyond_the_limit_is_not_opened(make: Make) -> None:
    """It is told apart from a forgery, to listeners alone."""
    server = driver(place())
    sealed = make(ring(), limit=100).wrap(server)
    sealed.send([outgoing(body=bytes(80)), outgoing(body=bytes(81))])
    assert [(each.refused, each.malformed) for each in received(sealed)] == [
        ("", ""),
        (REASON, "it has 101 bytes, and up to 100 are opened"),
    ]


def what_cannot_be_opened_is_a_dead_letter_and_its_neighbours_are_handled(make: Make) -> None:
    """At once, with a reason that is always the same, and an event with what was found. No handler sees it."""
    url = place()
    told: list[Any] = []
    with narrowboat.broker(url) as clear, narrowboat.broker(url, wrap=make(ring()).wrap, listeners=[told.append]) as broker:
        orders = broker.queue("orders", max_deliveries=0)
        orders.publish(b"1")
        clear.queue("orders").publish(b"forged", id="forged")
        Seal(ring(key("strange"))).wrap(driver(url)).send([outgoing(id="strange")])
        orders.publish(b"2")
        with orders.consume(idle=0.1) as messages:
            bodies = []
            for message in messages:
                bodies.append(message.body)
                message.ack()
        assert bodies == [b"1", b"2"]
        with clear.queue("orders").dead_letters().consume(idle=0.1) as messages:
            assert [(each.id, each.dead.reason) for each in messages] == [("forged", REASON), ("strange", REASON)]
    problems = {each.id: each.problem for each in told if isinstance(each, events.Malformed)}
    assert "no seal" in problems["forged"] and "'strange' is not in the keyring" in problems["strange"]
    assert {each.id for each in told if isinstance(each, events.DeadLettered)} == {"forged", "strange"}


def a_redrive_of_what_cannot_be_opened_seals_nothing(make: Make) -> None:
    """It goes back as it was, and opens once its key is there. A forgery stays one."""
    url, strange = place(), key("strange")
    document = [document_of([key()])]
    keys = Keyring(lambda: document[0], stamp=lambda: document[0])
    Seal(ring(strange)).wrap(driver(url)).send([full(id="strange", reply_to=None)])
    with narrowboat.broker(url) as clear, narrowboat.broker(url, wrap=make(keys).wrap) as broker:
        clear.queue("orders").publish(b"forged", id="forged")
        orders = broker.queue("orders")
        for _ in range(2):
            with orders.consume(idle=0.1) as messages:
                assert [each.id for each in messages] == []
            with orders.dead_letters().consume(idle=0.1) as messages:
                letters = {each.id: each for each in messages}
            assert set(letters) == {"forged", "strange"} and all(UNOPENED in each.headers for each in letters.values())
            assert orders.dead_letters().redrive() == 2
        document[0] = document_of([*keys.keys, strange])
        with orders.consume(idle=0.1) as messages:
            found = [(each.id, each.body, dict(each.headers)) for each in messages]
        assert found == [("strange", b"secret body", full().headers)]


def within_the_window_a_copy_of_what_was_acknowledged_is_refused(make: Make) -> None:
    """A message that was not acknowledged comes again, and so do dead letters, whatever their age."""
    url = place()
    server, now = driver(url), [NOW]
    sealed = make(ring(), window=300.0, wall=lambda: now[0]).wrap(server)
    sealed.send([outgoing(id="1"), outgoing(id="2")])
    seen = received(server)
    server.delete(ORDERS)
    server.send([again(each) for each in seen])
    feed = feed_of(sealed)
    one, two = feed.receive(10).deliveries
    feed.settle([(one, Ack()), (two, Nack())])
    server.send([again(each) for each in seen])
    assert sorted((each.id, each.refused) for each in feed.receive(10).deliveries) == [("1", REASON), ("2", ""), ("2", "")]
    for now[0], found in ((NOW + 301, "sealed 301 s ago"), (NOW - 7200, "sealed 7200 s in the future")):
        server.send([again(each._replace(id="3")) for each in seen[:1]])
        server.send([again(seen[0], Address(Kind.QUEUE, "orders.dead"))])
        problems = [each.malformed for each in feed.receive(10).deliveries]
        assert problems[0].startswith("the key"), "what is not genuine says nothing of clocks"
        sealed.send([outgoing(id=f"n{found}")])
        assert [each.refused for each in feed.receive(10).deliveries] == [""]
        server.send([again(seen[1])])
        assert [each.malformed[: len(found) + 7] for each in feed.receive(10).deliveries] == [f"it was {found}"]
    assert {each.refused for each in received(sealed, Address(Kind.QUEUE, "orders.dead"))} == {""}


def within_the_window_an_id_may_be_published_again(make: Make) -> None:
    """Another message of that id is no copy, on any backend that does not deduplicate it."""
    sealed = make(ring(), window=300.0, wall=lambda: NOW + 60).wrap(driver(place()))
    feed = None
    for published in (NOW, NOW + 60):
        sealed.send([outgoing(id="nightly", published_at=published)])
        feed = feed or feed_of(sealed)
        (delivery,) = feed.receive(10).deliveries
        assert (delivery.refused, delivery.published_at) == ("", published)
        feed.settle([(delivery, Ack())])


def a_redrive_of_what_was_moved_among_the_dead_letters_seals_nothing(make: Make) -> None:
    """A queue may have the name of a subscription, and its dead letters that of the subscription's."""
    url = place()
    server = driver(url)
    with narrowboat.broker(url, wrap=make(ring()).wrap) as broker:
        orders = broker.queue("prices.g")
        orders.publish(b"genuine")
        with orders.consume(idle=0.1) as messages:
            for message in messages:
                message.reject("later")
        feed = feed_of(server, Address(Kind.SUBSCRIPTION, "prices", "h"))
        broker.topic("prices").publish(b"moved", id="moved")
        server.send([again(each, Address(Kind.QUEUE, "prices.g.dead")) for each in feed.receive(10).deliveries])
        assert orders.dead_letters().redrive() == 2
        with orders.consume(idle=0.1) as messages:
            assert [each.body for each in messages] == [b"genuine"]
        (letter,) = received(server, Address(Kind.QUEUE, "prices.g.dead"))
        assert (letter.id, letter.headers[DEAD_REASON]) == ("moved", REASON)


CHECKS = [
    a_message_comes_back_whole,
    the_server_sees_no_body_header_or_reply_address,
    a_message_that_is_moved_is_refused,
    what_is_changed_on_the_server_is_refused,
    what_has_no_seal_is_refused,
    no_two_messages_have_one_nonce,
    the_newest_key_seals_and_all_open,
    the_claimed_body_fits_with_all_that_goes_inside,
    what_is_stored_in_a_transaction_is_sealed,
    a_driver_settles_what_it_handed_out,
    a_body_beyond_the_limit_is_not_opened,
    what_cannot_be_opened_is_a_dead_letter_and_its_neighbours_are_handled,
    a_redrive_of_what_cannot_be_opened_seals_nothing,
    a_redrive_of_what_was_moved_among_the_dead_letters_seals_nothing,
    within_the_window_a_copy_of_what_was_acknowledged_is_refused,
    within_the_window_an_id_may_be_published_again,
]


def names(functions: Iterable[Any]) -> list[str]:
    return [each.__name__ for each in functions]


@pytest.mark.parametrize("check", CHECKS, ids=names(CHECKS))
def test_the_seal_keeps(check: Callable[[Make], None]) -> None:
    check(Seal)


@pytest.mark.parametrize(("mutant", "check"), [(m, c) for m in all_mutants() for c in m.CHECKS], ids=str)
def test_a_broken_seal_is_caught(mutant: Make, check: str) -> None:
    found = next(each for each in CHECKS if each.__name__ == check)
    with pytest.raises(AssertionError):
        found(mutant)


def test_each_mutant_says_what_it_breaks() -> None:
    assert len(all_mutants()) >= 12
    assert all((each.__doc__ or "").endswith(".") for each in all_mutants())
    assert len({name_of(each) for each in all_mutants()}) == len(all_mutants())


@pytest.mark.parametrize("kind", KINDS)
def test_a_redrive_without_the_keyring_keeps_the_seal(kind: str) -> None:
    url, keys = place(), ring(key(kind=kind))
    with narrowboat.broker(url, wrap=Seal(keys).wrap) as broker, narrowboat.broker(url) as operator:
        orders = broker.queue("orders")
        orders.publish(b"lamp", headers={"a": "b"})
        with orders.consume(idle=0.1) as messages:
            for message in messages:
                message.reject("no")
        assert operator.queue("orders").dead_letters().redrive() == 1
        with orders.consume(idle=0.1) as messages:
            assert [(each.body, dict(each.headers)) for each in messages] == [(b"lamp", {"a": "b"})]


# -- what no mutant breaks ------------------------------------------------------------------------------------------


def test_a_subscription_opens_what_was_sealed_for_its_topic_and_its_dead_letters_too() -> None:
    """Each group, and a redrive to one of them."""
    with narrowboat.broker(place(), wrap=Seal(ring()).wrap) as broker:
        prices = broker.topic("pri.ces")
        groups = [prices.subscription(name) for name in ("a", "b")]
        for group in groups:
            group.declare()
        prices.publish(b"kettle 12.50")
        for group in groups:
            with group.consume(idle=0.1) as messages:
                for message in messages:
                    assert message.body == b"kettle 12.50"
                    message.reject("no")
            assert group.dead_letters().redrive() == 1
            with group.consume(idle=0.1) as messages:
                assert [message.body for message in messages] == [b"kettle 12.50"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_and_its_reply_are_sealed_on_both_faces(kind: str) -> None:
    keys, url = ring(key(kind=kind)), place()

    async def asks() -> bytes:
        async with narrowboat.aio.broker(url, wrap=Seal(keys).wrap) as broker:
            queue = broker.queue("orders")

            async def answers() -> None:
                async with queue.consume() as messages:
                    async for message in messages:
                        await message.reply(message.body + b"!")
                        await message.ack()
                        return

            answering = asyncio.create_task(answers())
            reply = await queue.request(b"how much", timeout=20)
            await answering
            return reply.body

    assert asyncio.run(asks()) == b"how much!"


def test_a_keyring_of_public_halves_opens_and_does_not_seal() -> None:
    signing = key(kind=ED25519)
    verifying = Keyring(lambda: document_of([signing], public=True))
    url = place()
    with (
        narrowboat.broker(url, wrap=Seal(ring(signing)).wrap) as producer,
        narrowboat.broker(url, wrap=Seal(verifying).wrap) as consumer,
    ):
        producer.queue("orders").publish(b"signed")
        with pytest.raises(ConfigurationError, match="only public halves, which verify. Nothing was sent"):
            consumer.queue("orders").publish(b"x")
        with consumer.queue("orders").consume(idle=0.1) as messages:
            assert [each.body for each in messages] == [b"signed"]


def test_an_interrupt_while_messages_are_opened_loses_none() -> None:
    server = driver(place())
    sealed = SealedBroker(server, Seal(ring()))
    sealed.send([outgoing(id=str(number)) for number in range(4)])
    feed = feed_of(sealed)
    arrived, struck = sealed.arrived, [3]

    def strikes(source: Address, delivery: Delivery) -> Delivery:
        struck[0] -= 1
        if struck[0] == 0:
            raise KeyboardInterrupt
        return arrived(source, delivery)

    sealed.arrived = strikes  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        feed.receive(10)
    sealed.send([outgoing(id="4")])
    assert [each.id for each in feed.receive(3).deliveries] == ["0", "1", "2"]
    assert [each.id for each in feed.receive(3).deliveries] == ["3"]
    assert [each.id for each in feed.receive(3).deliveries] == ["4"]


def test_a_key_that_has_sealed_much_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    seal, one = Seal(ring()), key()
    for _ in range(3):
        seal.count(one, b"orders", ROTATE_AT - 1)
    seal.count(key(kind=HMAC), b"payroll", 2 * ROTATE_AT)
    assert [each.getMessage()[:40] for each in caplog.records] == ["the key 'k1' has sealed 134217726 messag"]


@pytest.mark.parametrize("wrong", [{"clear": "orders"}, {"window": 0}, {"window": -1.0}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        Seal(ring(), **wrong)
