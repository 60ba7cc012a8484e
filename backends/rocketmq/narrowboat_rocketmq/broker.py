"""The entry object: what `rocketmq://` and `rocketmqs://` claim, known from the URL alone. Imports no client library."""

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
    Threads,
    WakeUp,
)
from narrowboat.contract import Broker, BrokerBackend, Context
from narrowboat.dsn import Url
from narrowboat_rocketmq.options import SCHEME, Options, endpoint

#: Bytes: the server takes 4 MiB for a message, with its headers and all the rest.
BODY_MAX = 4 * 1024 * 1024 - 128 * 1024


def capabilities(url: Url, options: Options) -> BrokerCapabilities:
    """What `rocketmq://` claims. What needs the administration is claimed where the URL names a name server."""
    endpoint(url, options)  # refuses what the URL cannot mean
    return BrokerCapabilities(
        scope=Scope.NETWORK,
        survives=Survives.CRASH,
        settlement=Settlement.RECEIVED,
        settle_fencing=SettleFencing.CLIENT_CLOCK,
        kept=Kept.RETENTION,
        lease=LeaseNature.MESSAGE,
        wake=WakeUp.NOTIFIED,
        topics=Support.NATIVE,
        order=Support.ABSENT,  # not yet proven: see the page
        delay=Support.NATIVE,
        priority=Support.ABSENT,
        ttl=Support.EMULATED,
        dedup=Support.ABSENT,
        replay=Support.ABSENT,
        dead_letters=Support.EMULATED,
        request_reply=Support.ABSENT,
        depth=Support.EMULATED,
        uncounted_release=Support.ABSENT,
        alter=Support.EMULATED if options.admin else Support.ABSENT,
        alter_lag=math.inf,  # what a running consumer polls for was begun under the old lease
        threads=Threads.OWN,  # two hold the calls of each consumer
        concurrency=Concurrency.MULTIPLEXED,
        body_max=BODY_MAX,
        batch_max=1000,
        delay_max=86400.0,
        delay_lag=5.0,
        lease_min=10.0,
        lease_max=12 * 3600.0 - 60.0,
        lease_lag=5.0,
        return_lag=10.0,
        wake_bound=1.0,
    )


def _open(url: Url, options: Options, context: Context) -> Broker:
    from narrowboat_rocketmq.driver import RocketBroker

    return RocketBroker(url, options, capabilities(url, options), context)


def _prepare(url: Url, options: Options) -> Url:
    import narrowboat_rocketmq.driver  # noqa: F401  # grpc, which costs time and may not be installed

    return url


broker = BrokerBackend(
    scheme=SCHEME,
    summary="messages on RocketMQ 5, by the gRPC of its proxy, each with a lease of its own",
    options=Options,
    capabilities=capabilities,
    open=_open,
    prepare=_prepare,
    extra="rocketmq",
    example="rocketmq://key:secret@proxy:8081/namespace?admin=namesrv:9876",
)
