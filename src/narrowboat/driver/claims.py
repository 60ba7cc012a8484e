"""What a backend claims that keeps each message by itself: with a lease of its own, until some consumer has settled it.

Such backends differ in how far they reach, in what they outlive, and in who does the work; the rest is said here once. One
whose server thinks in logs or connections claims otherwise, and writes its `BrokerCapabilities` out.

    >>> keeper(Scope.HOST, Survives.POWER, work=Support.NATIVE, dedup=300.0).replay
    <Support.ABSENT: 'absent'>
"""

from __future__ import annotations

from narrowboat.capabilities import (
    BrokerCapabilities,
    Kept,
    LeaseNature,
    Scope,
    SettleFencing,
    Settlement,
    Support,
    Survives,
    WakeUp,
)


def keeper(
    scope: Scope,
    survives: Survives,
    *,
    work: Support,
    dedup: float,
    retention: float = 0.0,
    alter: Support = Support.ABSENT,
    listing: Support = Support.ABSENT,
    oldest: Support = Support.ABSENT,
) -> BrokerCapabilities:
    """The claims of a keeper of messages.

    Args:
        scope: how far apart two of its users may be.
        survives: what a message outlives whose publish returned.
        work: `NATIVE` or `EMULATED`: order, delay, priority, ttl, dedup, dead letters, replies and uncounted returns.
        dedup: seconds for which a second message of one id is dropped; 0: never.
        retention: seconds for which topics keep messages for replay; 0: they do not.
        alter: whether what is stored with a source can be altered.
        listing: whether it tells which sources there are.
        oldest: whether it tells for how long the oldest message has waited.
    """
    return BrokerCapabilities(
        scope=scope,
        survives=survives,
        settlement=Settlement.DURABLE,
        settle_fencing=SettleFencing.SERVER,
        kept=Kept.UNTIL_CONSUMED,
        lease=LeaseNature.MESSAGE,
        wake=WakeUp.NOTIFIED,
        topics=Support.NATIVE,
        order=work,
        delay=work,
        priority=work,
        ttl=work,
        dedup=work if dedup > 0 else Support.ABSENT,
        replay=work if retention > 0 else Support.ABSENT,
        dead_letters=work,
        request_reply=work,
        depth=Support.NATIVE,
        uncounted_release=work,
        alter=alter,
        listing=listing,
        oldest=oldest,
        body_max=16 * 1024 * 1024,
        priorities_max=9,
        delay_max=30 * 86400.0,
        dedup_window=dedup,
    )
