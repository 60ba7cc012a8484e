"""Programs of message calls, and one backend under such a program: what can be compared of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from broker_calls import DASHBOARD, PRICES, message
from narrowboat.contract import (
    Ack,
    Address,
    Broker,
    Delivery,
    Depth,
    Feed,
    Kind,
    Nack,
    Outcome,
    Properties,
    Reject,
    Return,
    Source,
)
from narrowboat.errors import NarrowboatError
from programs import draw_steps

QUEUES = (Address(Kind.QUEUE, "plain"), Address(Kind.QUEUE, "sorted"), Address(Kind.QUEUE, "ranked"))
GROUPS = (DASHBOARD, Address(Kind.SUBSCRIPTION, "prices", "sorted"), Address(Kind.SUBSCRIPTION, "prices", "ranked"))
PROPERTIES = {
    "plain": Properties(lease=5.0),
    "sorted": Properties(lease=3.0, ordered=True),
    "ranked": Properties(lease=4.0, priorities=3),
    "dashboard": Properties(lease=5.0),
}

#: the name of a method of `Side`, and its arguments
Step = tuple[Any, ...]
#: the kind of an answer, the id in it and whether it was a duplicate
Answer = tuple[str, str | None, bool | None]

_outcome = st.sampled_from([Ack(), Ack(), Ack(), Nack(), Nack(2.0), Reject("why", 2), Return()])


@st.composite
def programs(draw: st.DrawFn) -> list[Step]:
    """Calls on one or two sources, so that they meet; now and then on something else."""
    few = draw(st.lists(st.sampled_from([*QUEUES, *GROUPS]), min_size=1, max_size=2, unique=True))
    topics = [PRICES] * (2 * sum(address in GROUPS for address in few))
    address = st.sampled_from(few)
    somewhere = st.sampled_from([*few * 4, *(source.dead for source in few), PRICES, Address(Kind.TOPIC, "plain"), DASHBOARD])
    fields = st.fixed_dictionaries(
        {
            "to": st.sampled_from([*few * 2, *topics, PRICES]),
            "key": st.sampled_from([None, "a", "a", "b"]),
            "delay": st.sampled_from([0.0, 0.0, 0.0, 1.0, 4.0]),
            "priority": st.sampled_from([0, 0, 1, 2, 5]),
            "ttl": st.sampled_from([None, None, None, 6.0, 20.0]),
            "name": st.sampled_from([None, None, None, "same", "other"]),
        }
    )
    pick = st.integers(0, 7)
    send_some = st.tuples(st.just("send"), st.lists(fields, min_size=1, max_size=6))
    receive = st.tuples(st.just("receive"), address, st.integers(1, 5))
    settle_some = st.tuples(st.just("settle"), st.lists(st.tuples(pick, _outcome), min_size=1, max_size=4))
    advance = st.tuples(st.just("advance"), st.sampled_from([0.5, 1.0, 2.0, 3.5, 8.0]))
    kinds = {
        "send": (4, send_some),
        "receive": (6, receive),
        "settle": (6, settle_some),
        "advance": (4, advance),
        "extend": (1, st.tuples(st.just("extend"), pick, st.sampled_from([1.0, 9.0]))),
        "close": (1, st.tuples(st.just("close"), address)),
        "declare": (1, st.tuples(st.just("declare"), address, st.booleans())),
        "depth": (1, st.tuples(st.just("depth"), somewhere)),
        "purge": (1, st.tuples(st.just("purge"), somewhere)),
        "delete": (1, st.tuples(st.just("delete"), somewhere)),
    }
    return [draw(receive), draw(send_some), *draw_steps(draw, kinds, 25, 60)]


class Side:
    """One backend under a program, and what can be compared of its answers."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.feeds: dict[Address, Feed] = {}
        self.taken: list[tuple[Feed, Delivery]] = []  # oldest first; the same on both sides
        self.done: list[tuple[Feed, Delivery]] = []

    def feed(self, address: Address) -> Feed:
        if address not in self.feeds:
            source = Source(address, PROPERTIES[address.group or address.name])
            self.feeds[address] = self.broker.open(source, earliest=False, wake=lambda: None)
        return self.feeds[address]

    def run(self, step: Step) -> Any:
        try:
            return getattr(self, step[0])(*step[1:])
        except NarrowboatError as error:
            return type(error).__name__

    def send(self, messages: list[dict[str, Any]]) -> list[Answer]:
        batch = [
            message(fields["to"], fields["name"] or fields["id"], dedup=fields["name"] is not None, **_fields(fields))
            for fields in messages
        ]
        return [_plain(answer) for answer in self.broker.send(batch)]

    def receive(self, address: Address, limit: int) -> Any:
        feed = self.feed(address)
        received = feed.receive(limit)
        self.taken += [(feed, delivery) for delivery in received.deliveries]
        return [
            (d.id, d.key, d.attempt, d.priority, d.expires_in and round(d.expires_in, 3), sorted(d.headers.items()))
            for d in received.deliveries
        ], None if received.deliveries else round(received.retry_after, 3)

    def settle(self, picks: Sequence[tuple[int, Outcome]]) -> list[Answer]:
        answers = []
        chosen = [(self.pick(index), outcome) for index, outcome in picks if self.taken]
        for feed in dict.fromkeys(feed for (feed, _), _ in chosen):
            batch = [(delivery, outcome) for (other, delivery), outcome in chosen if other is feed]
            answers += [_plain(answer) for answer in feed.settle(batch)]
        done = [delivery for (_, delivery), _ in chosen]
        self.taken = [item for item in self.taken if item[1] not in done]
        self.done += [item for item, _ in chosen]
        return answers

    def pick(self, index: int) -> tuple[Feed, Delivery]:
        """One of the latest that are out; now and then one that was settled before."""
        items = self.done if index == 7 and self.done else self.taken
        return items[-1 - index % len(items)]

    def extend(self, index: int, seconds: float) -> Answer | None:
        if not self.taken:
            return None
        feed, delivery = self.pick(index)
        return _plain(feed.extend([delivery], seconds)[0])

    def close(self, address: Address) -> None:
        feed = self.feeds.pop(address, None)
        if feed is not None:
            feed.close()

    def declare(self, address: Address, earliest: bool) -> None:
        self.broker.declare(Source(address, PROPERTIES[address.group or address.name]), earliest=earliest)

    def depth(self, address: Address) -> Depth:
        return self.broker.depth(address)

    def purge(self, address: Address) -> int:
        return self.broker.purge(address)

    def delete(self, address: Address) -> bool:
        return self.broker.delete(address)


def _fields(fields: dict[str, Any]) -> dict[str, Any]:
    delay, ttl = fields["delay"], fields["ttl"]
    return {"key": fields["key"], "delay": delay, "priority": fields["priority"], "ttl": ttl}


def _plain(answer: object) -> Answer:
    return (type(answer).__name__, getattr(answer, "id", None), getattr(answer, "duplicate", None))
