"""B107 and B123: requests: each gets its own reply, or an error in time; no request says where else we publish."""

from __future__ import annotations

import time
from typing import Any

from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.faults.layers import Redirected
from narrowboat.conformance.harness import with_option
from narrowboat.conformance.message_kit import MessageKit
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import InvalidArgument, RequestTimeout


async def _asks_for_a_reply(kit: MessageKit) -> None:
    await kit.broker().queue("quote", max_deliveries=0).request(b"x", timeout=1)


@scenario("B107", needs="request_reply", refused=_asks_for_a_reply)
async def many_requests_at_once(kit: MessageKit) -> None:
    """Each of many concurrent requests gets its own reply."""
    asking, answering = kit.broker(), kit.broker().queue("quote", max_deliveries=0)

    async def answer(message: Any) -> None:
        await message.reply(b"re " + message.body)

    task = kit.spawn(answering.run(answer, signals=False, concurrency=2))

    async def ask(n: int) -> bytes:
        reply = await asking.queue("quote", max_deliveries=0).request(str(n).encode(), timeout=kit.upper(20))
        return bytes(reply.body)

    assert await kit.together(*(ask(n) for n in range(20))) == [f"re {n}".encode() for n in range(20)]
    answering.stop()
    await task


@scenario("B107", needs="request_reply", refused=_asks_for_a_reply)
async def a_late_reply_is_dropped(kit: MessageKit) -> None:
    """A request without a reply in time is RequestTimeout, a TimeoutError, not early; the late reply reaches nobody."""
    quote = kit.broker().queue("quote", max_deliveries=0)
    begun = time.monotonic()
    error = await fails(RequestTimeout, quote.request(b"first", timeout=0.3))
    assert isinstance(error, TimeoutError)
    assert 0.3 <= time.monotonic() - begun < kit.upper(3.0)
    async with kit.broker().queue("quote", max_deliveries=0).consume() as messages:
        late = await kit.one(messages)

        async def ask() -> bytes:
            return bytes((await quote.request(b"second", timeout=kit.upper(10))).body)

        asking = kit.spawn(ask())
        second = await kit.one(messages)
        await late.reply(b"late")
        await second.reply(b"in time")
        assert await asking == b"in time"
        await late.ack()
        await second.ack()


@scenario("B123", needs="request_reply", refused=_asks_for_a_reply)
async def a_reply_goes_to_an_inbox_only(kit: MessageKit) -> None:
    """A message that asks for its reply at a queue gets none: a typed error, nothing sent, and it is still ours to settle."""
    payroll = kit.broker().queue("payroll", max_deliveries=0)
    for url, allowed in ((kit.broker_url, False), (with_option(kit.broker_url, "reply_to", "any"), True)):
        quote = kit.broker(url=url, wrap=Redirected).queue("quote", max_deliveries=0)
        async with payroll.consume() as paid, quote.consume() as messages:
            asking = kit.spawn(quote.request(b"pay me", timeout=kit.upper(10)))
            message = await kit.one(messages)
            if allowed:
                await message.reply(b"paid")
                answer = await kit.one(paid)
                assert answer.body == b"paid"
                await answer.ack()
            else:
                error = await fails(InvalidArgument, message.reply(b"paid"))
                assert "payroll" in str(error) and "reply_to=any" in str(error), error
                await kit.nothing(paid)
            assert not message.settled and not message.lost
            await message.ack()
            await kit.cancel(asking)
