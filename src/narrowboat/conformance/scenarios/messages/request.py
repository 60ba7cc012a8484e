"""B107 and B123: requests: each gets its own reply, or an error in time. A reply goes to an inbox and nowhere else."""

from __future__ import annotations

from typing import Any

from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.faults.layers import Redirected
from narrowboat.conformance.harness import with_option
from narrowboat.conformance.message_kit import MessageKit, numbered
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import InvalidArgument, RequestTimeout


async def _asks_for_a_reply(kit: MessageKit) -> None:
    await kit.queue(max_deliveries=0).request(b"x", timeout=1)


@scenario("B107", needs="request_reply", refused=_asks_for_a_reply)
async def many_requests_at_once(kit: MessageKit) -> None:
    """Each of many concurrent requests gets its own reply."""
    asking, answering = kit.queue(max_deliveries=0), kit.queue(max_deliveries=0)

    async def answer(message: Any) -> None:
        await message.reply(b"re " + message.body)

    async def ask(body: bytes) -> bytes:
        return bytes((await asking.request(body, timeout=kit.upper(20))).body)

    async with kit.at_work(answering, answer, concurrency=2):
        assert await kit.together(*map(ask, numbered(20))) == [b"re " + body for body in numbered(20)]


@scenario("B107", needs="request_reply", refused=_asks_for_a_reply)
async def a_late_reply_is_dropped(kit: MessageKit) -> None:
    """A request without a reply in time raises RequestTimeout, a TimeoutError, and not early. Nobody gets the late reply."""
    quote = kit.queue(max_deliveries=0)
    with kit.within(3.0, "a request without a reply", least=0.3):
        error = await fails(RequestTimeout, quote.request(b"first", timeout=0.3))
    assert isinstance(error, TimeoutError)
    async with kit.queue(max_deliveries=0).consume() as messages:
        late = await kit.one(messages)
        asking = kit.spawn(quote.request(b"second", timeout=kit.upper(10)))
        second = await kit.one(messages)
        await late.reply(b"late")
        await second.reply(b"in time")
        assert (await asking).body == b"in time"
        await late.ack()
        await second.ack()


@scenario("B123", needs="request_reply", refused=_asks_for_a_reply)
async def a_reply_goes_to_an_inbox_only(kit: MessageKit) -> None:
    """A message that asks for its reply at a queue gets none: a typed error, nothing is sent, and it can be settled."""
    payroll = kit.broker().queue("payroll", max_deliveries=0)
    for url, allowed in ((kit.broker_url, False), (with_option(kit.broker_url, "reply_to", "any"), True)):
        quote = kit.broker(url=url, wrap=Redirected).queue("quote", max_deliveries=0)
        async with payroll.consume() as paid, quote.consume() as messages:
            asking = kit.spawn(quote.request(b"pay me", timeout=kit.upper(10)))
            message = await kit.one(messages)
            if allowed:
                await message.reply(b"paid")
                await kit.comes(paid, b"paid")
            else:
                error = await fails(InvalidArgument, message.reply(b"paid"))
                assert "payroll" in str(error) and "reply_to=any" in str(error), (
                    f"the error names neither queue nor option: {error}"
                )
                await kit.nothing(paid)
            assert not message.settled and not message.lost
            await message.ack()
            await kit.cancel(asking)
