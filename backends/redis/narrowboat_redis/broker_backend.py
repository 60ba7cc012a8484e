"""The entry object of messages on Redis: what its URL takes and what it claims. Imports no client library; opening does."""

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
from narrowboat.contract import Broker, BrokerBackend, Context
from narrowboat.dsn import Url
from narrowboat_redis.message_options import Durability, MessageOptions
from narrowboat_redis.options import SCHEME
from narrowboat_redis.site import Site

_SURVIVES = {Durability.MEMORY: Survives.NOTHING, Durability.AOF: Survives.CRASH, Durability.FSYNC: Survives.POWER}


def capabilities(url: Url, options: MessageOptions) -> BrokerCapabilities:
    """What `redis://` claims. How durable the server is depends on its own settings: the URL says what they are to be."""
    Site.of(url, options)  # refuses what cannot work before anything is sent
    return BrokerCapabilities(
        scope=Scope.NETWORK,
        survives=_SURVIVES[options.durability],
        settlement=Settlement.DURABLE,
        settle_fencing=SettleFencing.SERVER,
        kept=Kept.UNTIL_CONSUMED,
        lease=LeaseNature.MESSAGE,
        wake=WakeUp.NOTIFIED,
        topics=Support.NATIVE,
        order=Support.EMULATED,
        delay=Support.EMULATED,
        priority=Support.EMULATED,
        ttl=Support.EMULATED,
        dedup=Support.EMULATED if options.dedup > 0 else Support.ABSENT,
        replay=Support.ABSENT,
        dead_letters=Support.EMULATED,
        request_reply=Support.EMULATED,
        depth=Support.NATIVE,
        uncounted_release=Support.EMULATED,
        body_max=16 * 1024 * 1024,
        headers_max=64 * 1024,
        batch_max=1000,
        priorities_max=9,
        delay_max=30 * 86400.0,
        dedup_window=options.dedup,
    )


def _open(url: Url, options: MessageOptions, context: Context) -> Broker:
    from narrowboat_redis.errors import translate
    from narrowboat_redis.message_broker import RedisBroker

    site = Site.of(url, options)
    try:
        return RedisBroker(site, options, capabilities(url, options), context)
    except OSError as error:  # no more descriptors
        raise translate(error, site, doing="opening") from error


def _prepare(url: Url, options: MessageOptions) -> Url:
    import narrowboat_redis.message_broker  # noqa: F401  # the client library

    return url


broker = BrokerBackend(
    scheme=SCHEME,
    summary="messages in the streams of a Redis server, sentinel set-up or cluster",
    example="redis://:password@localhost:6379/0",
    options=MessageOptions,
    capabilities=capabilities,
    open=_open,
    prepare=_prepare,
    extra="redis",
)
