"""Moves dead letters back to the source that they come from, at least once each.

Each is moved exactly once unless the process dies half way. Dead letters that come during the redrive are left.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from narrowboat._messages.checks import check_count
from narrowboat._messages.consumer import Consumer
from narrowboat._messages.delivery import TrackedDelivery
from narrowboat._messages.settle import ACK
from narrowboat._messages.source import SourceCore
from narrowboat.capabilities import Support
from narrowboat.contract.messages import DEAD_PREFIX, Address, Delivery, Outgoing, Receipt
from narrowboat.errors import InvalidArgument, NotFound

#: Messages that a redrive moves in one exchange. More is little faster; all of them move twice if it is killed half way.
BATCH = 100
#: Dead letters that are held while some are looked for. Those behind them are not found; more would fill the memory.
HELD_MOST = 100_000


async def redrive(dead: SourceCore[Any], count: int | None, ids: Iterable[str] | None = None) -> int:
    """Move up to `count` dead letters back, oldest first; all that are there now without a count. How many it moved.

    `ids`: only these, the oldest letter of each. The others are looked through meanwhile, and go back at the end.
    """
    wanted = None if ids is None else _check_ids(ids)
    left = check_count("count", count, 0, 2**63) if count is not None else await _present(dead)
    if wanted is not None:
        most = len(wanted) if count is None else min(len(wanted), left)
        left = await _present(dead)
        return await _pass(dead, left, max(1, min(left, HELD_MOST)), most, wanted)
    # No more is fetched than is moved: what goes back may go behind those that were never fetched.
    moved, rest = 0, left % BATCH
    for share, ahead in ((left - rest, BATCH), (rest, rest)):
        found = await _pass(dead, share, ahead, share) if share else 0
        moved += found
        if found < share:
            break
    return moved


async def _pass(dead: SourceCore[Any], left: int, ahead: int, most: int, wanted: set[str] | None = None) -> int:
    """Look at `left` letters, `ahead` of them fetched at a time, and move up to `most`: those wanted. How many it moved."""
    assert dead.origin is not None
    moved = 0
    consumer: Consumer[TrackedDelivery[Any]] = dead.consumer(
        TrackedDelivery, prefetch=ahead, auto_extend=True, max_extend=3600.0
    )
    await dead.open(consumer)
    try:
        while left > 0 and moved < most:
            entries = await _take(consumer, min(left, BATCH))
            if not entries:
                break
            left -= len(entries)
            if not left:
                await consumer.closing.give_back()  # before they are settled, or others come in their place
            if wanted is not None:
                entries = _chosen(entries, wanted, most - moved)
            if entries:
                moved += await _move(consumer, entries, dead.origin.address)
    finally:
        await consumer.closing.close()
    return moved


def _check_ids(ids: object) -> set[str]:
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise InvalidArgument(f"ids={ids!r}: expected several ids, such as [{str(ids)!r}]")
    found = set(ids)
    if wrong := [each for each in found if not isinstance(each, str)]:
        raise InvalidArgument(f"ids: {wrong[0]!r} is no id: ids are text")
    return found


def _chosen(entries: list[TrackedDelivery[Any]], wanted: set[str], most: int) -> list[TrackedDelivery[Any]]:
    """Those of `entries` that are wanted, up to `most`; they are not wanted again."""
    chosen: list[TrackedDelivery[Any]] = []
    for entry in entries:
        if entry.id in wanted and len(chosen) < most:
            wanted.discard(entry.id)
            chosen.append(entry)
    return chosen


async def _present(dead: SourceCore[Any]) -> int:
    """How many there are now: a redrive must not chase what dies again meanwhile."""
    if dead.core.capabilities.depth is Support.ABSENT:
        return 2**63
    try:
        ready = (await dead.depth()).ready
    except NotFound:
        return 0
    return 2**63 if ready is None else ready


async def _take(consumer: Consumer[TrackedDelivery[Any]], count: int) -> list[TrackedDelivery[Any]]:
    """Up to `count`, as far as they are there now: a part of them, settled alone, would make room for what is not asked for."""
    entries: list[TrackedDelivery[Any]] = []
    while len(entries) < count:
        more: list[TrackedDelivery[Any]] = []
        await consumer.receive(count - len(entries), consumer.core.clock(), more)
        if not more:
            break
        entries += more
    return entries


async def _move(consumer: Consumer[TrackedDelivery[Any]], entries: list[TrackedDelivery[Any]], to: Address) -> int:
    answers = await consumer.core.publish([republished(entry._delivery, to) for entry in entries])
    sent = [entry for entry, answer in zip(entries, answers, strict=True) if isinstance(answer, Receipt)]
    settled = await consumer.settlement.settle(sent, ACK)
    for answer in (*answers, *settled):
        if isinstance(answer, Exception):
            raise answer  # what was not acknowledged stays a dead letter
    return len(sent)


def republished(delivery: Delivery, to: Address) -> Outgoing:
    """A dead letter as it was: same id, body, key and headers, without what was added when it died."""
    headers = {name: value for name, value in delivery.headers.items() if not name.startswith(DEAD_PREFIX)}
    return Outgoing(
        to,
        delivery.id,
        delivery.body,
        headers,
        delivery.key,
        delivery.published_at if delivery.published_at is not None else 0.0,
        0.0,
        delivery.priority,
        None,
        delivery.correlation_id,
        delivery.content_type,
        delivery.reply_to,
        dedup=False,  # its id was seen within the window, by its first publish
        origin=delivery.tag,
    )
