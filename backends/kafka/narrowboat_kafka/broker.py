"""The entry object of messages on Kafka: what its URL takes and what it claims. Imports no client library; opening does."""

from __future__ import annotations

import dataclasses

from narrowboat.capabilities import (
    BrokerCapabilities,
    Concurrency,
    Kept,
    LeaseNature,
    Scope,
    SettleFencing,
    Settlement,
    Support,
    Survives,
    Threads,
    WakeUp,
)
from narrowboat.contract import Broker, BrokerBackend, Context
from narrowboat.dsn import Url
from narrowboat_kafka.options import LOCK_HEAD, SCHEME, SHARING, Groups, Options, endpoint

#: What the server takes in one record unless it is told otherwise (`message.max.bytes`, 1,048,588), less headers and key.
BODY_MAX = 960 * 1024
HEADERS_MAX = 48 * 1024


def capabilities(url: Url, options: Options) -> BrokerCapabilities:
    """What `kafka://` claims. Replay only where the URL says for how long topics keep messages."""
    endpoint(url, options)
    claims = _classic(options)
    if url.driver == SHARING:
        claims = dataclasses.replace(claims, threads=Threads.OWN)
    return claims if options.groups is Groups.CLASSIC else _share(claims, options)


def _share(claims: BrokerCapabilities, options: Options) -> BrokerCapabilities:
    """What is different where the server shares out the messages one by one. What is in a queue, it tells no client of ours."""
    return dataclasses.replace(
        claims,
        lease=LeaseNature.MESSAGE,
        extension=Support.ABSENT,
        lease_min=max(0.5, options.lock_min - LOCK_HEAD),
        lease_max=options.lock_max - LOCK_HEAD,
        lease_lag=LOCK_HEAD + 2.0,
        topics=Support.ABSENT,
        replay=Support.ABSENT,
        kept=Kept.UNTIL_CONSUMED,
        depth=Support.ABSENT,
    )


def _classic(options: Options) -> BrokerCapabilities:
    return BrokerCapabilities(
        scope=Scope.NETWORK,
        survives=Survives.NODE if options.replication > 1 else Survives.CRASH,
        settlement=Settlement.DURABLE,
        settle_fencing=SettleFencing.SERVER,
        kept=Kept.RETENTION if options.retention > 0 else Kept.UNTIL_CONSUMED,
        lease=LeaseNature.MEMBERSHIP,
        wake=WakeUp.NOTIFIED,
        topics=Support.NATIVE,
        order=Support.ABSENT,
        delay=Support.EMULATED,
        priority=Support.ABSENT,
        ttl=Support.EMULATED,
        dedup=Support.ABSENT,
        replay=Support.NATIVE if options.retention > 0 else Support.ABSENT,
        dead_letters=Support.EMULATED,
        request_reply=Support.ABSENT,
        depth=Support.EMULATED,
        uncounted_release=Support.EMULATED,
        alter=Support.EMULATED,
        concurrency=Concurrency.MULTIPLEXED,
        body_max=BODY_MAX,
        headers_max=HEADERS_MAX,
        delay_max=options.delay_max,
        delay_lag=2.0,
        # A consumer that dies is missed after its session, and the others have to agree about its partitions.
        lease_lag=options.session + 5.0,
    )


def _open(url: Url, options: Options, context: Context) -> Broker:
    from narrowboat_kafka.driver import KafkaBroker

    return KafkaBroker(url, options, capabilities(url, options), context)


def _prepare(url: Url, options: Options) -> Url:
    import narrowboat_kafka.driver  # noqa: F401  # what `open` imports, and too late once the main thread has ended
    from narrowboat_kafka import clients

    clients.load(url)
    return url


def _note(scheme: str) -> str:
    from narrowboat_kafka import clients

    return clients.at_hand(scheme)


broker = BrokerBackend(
    scheme=SCHEME,
    summary="queues and topics on Apache Kafka, with acknowledgement of single messages",
    options=Options,
    capabilities=capabilities,
    open=_open,
    prepare=_prepare,
    extra="kafka",
    example="kafka://localhost:9092",
    note=_note,
)
