"""B106 and B111: several brokers in one process, and one broker in several event loops, threads and processes."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from narrowboat import Message, Messaging
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.message_kit import MessageKit, received
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.opening import opened
from narrowboat.errors import NarrowboatError


@scenario("B106")
async def two_brokers_do_not_mix(kit: MessageKit) -> None:
    """Two brokers in one process have two namespaces and the same queue names. No message of one reaches the other."""
    here = kit.queue()
    there = kit.broker(url=kit.harness.broker_url(f"{kit.namespace}-other")).queue("orders")
    await here.publish(b"here")
    await there.publish(b"there")
    await kit.contains(here, [b"here"])
    await kit.contains(there, [b"there"])


@scenario("B106")
async def namespaces_and_names_do_not_mix(kit: MessageKit) -> None:
    """A queue's name is its own in each namespace, even where a namespace and a name together read like another pair."""
    here = kit.namespace
    queues: dict[tuple[str, str], Any] = {}
    for space in (here, f"{here}.a", f"{here}-a"):
        broker = kit.broker(url=kit.harness.broker_url(space))
        queues |= {(space, name): broker.queue(name) for name in ("n", "a.n", "a-n")}
    for (space, name), queue in queues.items():
        await queue.publish(f"{space} {name}".encode())
    for (space, name), queue in queues.items():
        await kit.contains(queue, [f"{space} {name}".encode()])


@scenario("B111")
async def two_event_loops_share_a_broker(kit: MessageKit) -> None:
    """Two event loops, and on the sync face two threads, use one broker. Both publish and consume."""
    orders = await kit.filled(b"first")

    async def elsewhere() -> None:
        await orders.publish(b"second")
        await kit.contains(orders, [b"first", b"second"])

    if kit.face == "asyncio":
        await kit.blocking(asyncio.run, elsewhere())
    else:
        await kit.spawn(elsewhere())
    await orders.publish(b"third")
    await kit.contains(orders, [b"third"])


def forks(link: Link, url: str) -> None:
    """A child: open a broker, take a message, fork. The fork publishes and consumes; then the parent goes on."""
    broker = opened(url)
    orders = broker.queue("orders")
    orders.publish(b"parent's")
    with orders.consume(prefetch=1) as messages:
        message = received(messages)
        os.waitpid(link.fork(lambda: _in_the_fork(link, broker, message)), 0)
        message.ack()
        link.tell("parent acked")
    broker.close()


def _in_the_fork(link: Link, broker: Messaging, message: Message[bytes]) -> None:
    try:
        message.ack()
    except NarrowboatError as error:
        link.tell("refused", error=type(error).__name__)
    else:
        raise AssertionError("the fork settled what was delivered to its parent")
    other = broker.queue("other")
    other.publish(b"child's")
    with other.consume() as theirs:
        mine = received(theirs)
        mine.ack()
    link.tell("worked", body=mine.body.decode())
    broker.close()


@scenario("B111", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def a_forked_child_starts_afresh(kit: MessageKit) -> None:
    """After a fork the child cannot settle the parent's delivery, and works on its own connection. The parent goes on."""
    child = await kit.child(forks, url=kit.broker_url)
    await child.event("refused")
    assert (await child.event("worked"))["body"] == "child's"
    await child.event("parent acked")
    assert await child.exit() == 0
    await kit.depth_is(kit.queue(), ready=0, in_flight=0)
