"""B54: deduplication: a message with a given id is delivered once within the window, and again after it."""

from __future__ import annotations

import time

from narrowboat.conformance.message_kit import MessageKit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.messaging import Outbound


@scenario("B54", needs="dedup", refused=demand)
async def one_id_is_delivered_once(kit: MessageKit) -> None:
    """A second message with a given id is dropped within the window, and its receipt says so, also after the first ack."""
    orders = kit.queue(max_deliveries=0)
    assert not (await orders.publish(b"1", id="a")).duplicate
    assert (await orders.publish(b"2", id="a")).duplicate
    assert (await kit.queue(max_deliveries=0).publish(b"3", id="a")).duplicate
    await kit.contains(orders, [b"1"])
    assert (await orders.publish(b"4", id="a")).duplicate, "the id was forgotten when its message was acknowledged"
    assert not (await orders.publish(b"5", id="b")).duplicate
    for _ in range(3):
        assert not (await orders.publish(b"no id")).duplicate
    outcomes = await orders.publish_many([Outbound(b"6", id="c"), Outbound(b"7", id="c")])
    assert [getattr(each, "duplicate", each) for each in outcomes] == [False, True]
    await kit.contains(orders, [b"5", b"6", b"no id", b"no id", b"no id"])
    other = kit.broker().queue("other", max_deliveries=0)
    assert not (await other.publish(b"8", id="a")).duplicate, "another queue had that id, and each has its own"


@scenario("B54", tier="T", needs="dedup", refused=demand)
async def an_id_is_accepted_after_the_window(kit: MessageKit) -> None:
    """After the window an id is accepted again. Where the claimed window is long, the URL's `dedup` makes it short."""
    url, window = kit.url_with("dedup=0.5"), 0.5
    if kit.broker_claims.dedup_window < 5:
        url, window = kit.broker_url, kit.broker_claims.dedup_window
    orders = kit.broker(url=url).queue("orders", max_deliveries=0)
    await orders.publish(b"1", id="a")
    begun = time.monotonic()

    async def accepted() -> bool:
        return not (await orders.publish(b"2", id="a")).duplicate

    await kit.sleep(window)
    await kit.eventually(accepted, within=window + 5, every=0.05, what="the id is accepted again")
    assert time.monotonic() - begun >= window
    await kit.contains(orders, [b"1", b"2"])
