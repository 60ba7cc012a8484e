"""B106 and B111: several brokers in one process, and one broker in several event loops, threads and processes."""

from __future__ import annotations

import asyncio
import os

import narrowboat
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.message_kit import MessageKit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.opening import opened


@scenario("B106")
async def two_brokers_do_not_mix(kit: MessageKit) -> None:
    """Two brokers of two namespaces in one process, same queue names: nothing of one reaches the other."""
    here = kit.broker()
    separator = "&" if "?" in kit.harness.url else "?"
    other_url = f"{kit.harness.url}{separator}prefix={kit.namespace}-other" if "prefix=" not in kit.harness.url else ""
    there = kit.broker(url=other_url or kit.harness.broker_url(kit.namespace + "-other"))
    await here.queue("orders").publish(b"here")
    await there.queue("orders").publish(b"there")
    assert await kit.drained(here.queue("orders")) == [b"here"]
    assert await kit.drained(there.queue("orders")) == [b"there"]


@scenario("B111")
async def two_event_loops_share_a_broker(kit: MessageKit) -> None:
    """One broker used from two event loops, and on the sync face from two threads: both publish and consume."""
    broker = kit.broker()
    orders = broker.queue("orders")
    await orders.publish(b"first")
    if kit.face == "asyncio":

        async def elsewhere() -> list[bytes]:
            await orders.publish(b"second")
            return await kit.drained(orders)

        assert sorted(await kit.blocking(asyncio.run, elsewhere())) == [b"first", b"second"]
    else:

        async def other_thread() -> list[bytes]:
            await orders.publish(b"second")
            return await kit.drained(orders)

        assert sorted(await kit.spawn(other_thread())) == [b"first", b"second"]
    await orders.publish(b"third")
    assert await kit.drained(orders) == [b"third"]


def forks(link: Link, url: str) -> None:
    """A child: open a broker, take a message, fork; the forked child publishes and consumes; then the parent goes on."""
    broker = opened(url)
    orders = broker.queue("orders")
    orders.publish(b"parent's")
    with orders.consume(prefetch=1) as messages:
        message = messages.receive(10)
        assert message is not None
        os.waitpid(link.fork(lambda: _in_the_fork(link, broker, message)), 0)
        message.ack()
        link.tell("parent acked")
    broker.close()


def _in_the_fork(link: Link, broker: narrowboat.Messaging, message: narrowboat.Message[bytes]) -> None:
    try:
        message.ack()
    except narrowboat.NarrowboatError as error:
        link.tell("refused", error=type(error).__name__)
    else:
        raise AssertionError("the fork settled what was delivered to its parent")
    other = broker.queue("other")
    other.publish(b"child's")
    with other.consume() as theirs:
        mine = theirs.receive(10)
        assert mine is not None, "the fork published a message and did not get it within 10 s"
        mine.ack()
    link.tell("worked", body=mine.body.decode())
    broker.close()


@scenario("B111", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def a_forked_child_starts_afresh(kit: MessageKit) -> None:
    """After a fork the child cannot settle the parent's delivery and works on a connection of its own; the parent goes on."""
    child = await kit.child(forks, url=kit.broker_url)
    await child.event("refused")
    assert (await child.event("worked"))["body"] == "child's"
    await child.event("parent acked")
    assert await child.exit() == 0
    await kit.depth_is(kit.queue(), ready=0, in_flight=0)
