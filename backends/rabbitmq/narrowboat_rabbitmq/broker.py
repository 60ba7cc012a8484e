"""The entry object: what `amqp://` and `amqps://` claim, known from the URL alone. Imports no client library."""

from __future__ import annotations

import math

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
    WakeUp,
)
from narrowboat.contract import Broker, BrokerBackend, Context
from narrowboat.dsn import Url
from narrowboat_rabbitmq.options import SCHEME, SILENCES, Options, QueueType, endpoint
from narrowboat_rabbitmq.protocol.ladder import LONGEST, STEP


def capabilities(url: Url, options: Options) -> BrokerCapabilities:
    """What `amqp://` claims. Priorities only where the URL gives the queues their levels."""
    endpoint(url, options)  # refuses what the URL cannot mean
    priorities = options.priorities if options.queue_type is QueueType.CLASSIC else 0
    return BrokerCapabilities(
        scope=Scope.NETWORK,
        survives=Survives.POWER,
        settlement=Settlement.RECEIVED,
        settle_fencing=SettleFencing.SERVER,
        kept=Kept.UNTIL_CONSUMED,
        lease=LeaseNature.CONNECTION,
        wake=WakeUp.NOTIFIED,
        topics=Support.NATIVE,
        order=Support.ABSENT,
        delay=Support.EMULATED,
        priority=Support.NATIVE if priorities else Support.ABSENT,
        ttl=Support.EMULATED,
        dedup=Support.ABSENT,
        replay=Support.ABSENT,
        dead_letters=Support.EMULATED,
        request_reply=Support.NATIVE,
        depth=Support.EMULATED,
        uncounted_release=Support.EMULATED,
        alter=Support.EMULATED,
        alter_lag=math.inf,  # each look at what is stored may cost a channel, and a line in the server's log
        concurrency=Concurrency.MULTIPLEXED,
        body_max=16 * 1024 * 1024,
        batch_max=10_000,
        priorities_max=priorities,
        delay_max=LONGEST,
        delay_lag=STEP + 0.5,
        lease_min=float(SILENCES * options.heartbeat),
        lease_lag=1.0,
    )


def _open(url: Url, options: Options, context: Context) -> Broker:
    from narrowboat_rabbitmq.driver import RabbitBroker

    return RabbitBroker(endpoint(url, options), options, capabilities(url, options), context)


def _prepare(url: Url, options: Options) -> Url:
    import narrowboat_rabbitmq.driver  # noqa: F401  # pika, which costs time and may not be installed

    return url


broker = BrokerBackend(
    scheme=SCHEME,
    system="rabbitmq",
    summary="messages on RabbitMQ, in quorum queues, over one connection and its I/O thread",
    options=Options,
    capabilities=capabilities,
    open=_open,
    prepare=_prepare,
    extra="rabbitmq",
    example="amqp://user:password@host-a,host-b/vhost",
)
