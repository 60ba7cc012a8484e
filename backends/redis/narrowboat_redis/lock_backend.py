"""The entry object of the locks: what the URL takes and what is claimed. Imports no client library; `open` does."""

from __future__ import annotations

from narrowboat.capabilities import Expiry, LockCapabilities, Scope, Support, Survives, WaitOrder, WakeUp
from narrowboat.contract.backend import Context, LockBackend
from narrowboat.contract.locks import LockProvider
from narrowboat.dsn import Url
from narrowboat_redis.options import SCHEME, Durability, Options
from narrowboat_redis.site import Site, Topology

_SURVIVES = {Durability.MEMORY: Survives.NOTHING, Durability.AOF: Survives.CRASH, Durability.FSYNC: Survives.POWER}


def _capabilities(url: Url, options: Options) -> LockCapabilities:
    site = Site.of(url, options)
    survives = _SURVIVES[options.durability]
    # A server answers before a replica has the grant; with wait= that many replicas have it first, and one may take over. One
    # that forgets everything at a restart takes its replicas with it.
    if options.wait and site.topology is not Topology.SINGLE and options.durability is not Durability.MEMORY:
        survives = Survives.NODE
    return LockCapabilities(
        scope=Scope.NETWORK,
        expiry=Expiry.LEASE,
        survives=survives,
        fencing=Support.NATIVE,
        fencing_survives=Survives.DATA_LOSS,
        order=WaitOrder.FIFO,
        wake=WakeUp.NOTIFIED,
        shared=Support.NATIVE,
        semaphore=Support.NATIVE,
        holders=Support.NATIVE,
        evict=Support.NATIVE,
        ttl_min=0.05,
        dead_waiter_bound=6.0,  # a place in the queue ends 5 s after the last sign of life; who waits behind it waits 1.5 s
    )


def _open(url: Url, options: Options, context: Context) -> LockProvider:
    from narrowboat_redis.errors import translate
    from narrowboat_redis.lock_provider import RedisLocks

    site = Site.of(url, options)
    try:
        return RedisLocks(site, options, context, _capabilities(url, options))
    except OSError as error:  # no more descriptors
        raise translate(error, site, doing="opening") from error


def _prepare(url: Url, options: Options) -> Url:
    import narrowboat_redis.lock_provider  # noqa: F401  # redis-py: half a second, and it may not be installed

    return url


locks = LockBackend(
    scheme=SCHEME,
    summary="over the network, on a Redis server, a cluster, or the primary of some sentinels",
    example="redis://:password@localhost:6379/0",
    options=Options,
    capabilities=_capabilities,
    open=_open,
    prepare=_prepare,
    extra="redis",
)
