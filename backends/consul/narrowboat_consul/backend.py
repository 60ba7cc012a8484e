"""The entry object: what `consul://` claims, and how it is opened.

What opens it is in `provider`, not in a file named `locks`: a submodule, once imported, hides a package's attribute of
the same name, and the entry point would then give the module.
"""

from __future__ import annotations

from narrowboat.capabilities import Expiry, LockCapabilities, Scope, Support, Survives, WaitOrder, WakeUp
from narrowboat.contract.backend import Context, LockBackend
from narrowboat.contract.locks import LockProvider
from narrowboat.dsn import Url
from narrowboat_consul.options import SCHEME, Options, Site

#: Seconds by which Consul may be late beyond twice the session's ttl: its timers, the write of the end, the wake-up.
LATE = 2.0
#: As `session.SLACK`, which this file may not import: that would load the client library.
MARGIN = 1.0


def _capabilities(url: Url, options: Options) -> LockCapabilities:
    Site.of(url, options)  # refuses a URL that makes no sense, before anything is opened
    bound = 2.0 * options.session_ttl + options.lock_delay
    return LockCapabilities(
        scope=Scope.NETWORK,
        expiry=Expiry.SESSION,
        survives=Survives.NODE,
        fencing=Support.NATIVE,
        fencing_survives=Survives.NODE,
        order=WaitOrder.ANY,
        wake=WakeUp.NOTIFIED,
        shared=Support.EMULATED,
        semaphore=Support.EMULATED,
        holders=Support.NATIVE,
        evict=Support.NATIVE,
        ttl_min=bound,
        margin=MARGIN,
        expiry_lag=LATE,
        wake_bound=0.5,
        dead_waiter_bound=bound + LATE,
    )


def _open(url: Url, options: Options, context: Context) -> LockProvider:
    from narrowboat_consul.provider import ConsulLocks

    site = Site.of(url, options)
    try:
        return ConsulLocks(site, context, _capabilities(url, options))
    except (OSError, RuntimeError) as error:  # no descriptor for what wakes the thread
        from narrowboat_consul.errors import no_room

        raise no_room(site, error) from error


def _prepare(url: Url, options: Options) -> Url:
    import narrowboat_consul.provider  # noqa: F401  # what `open` imports, and too late once the main thread has ended

    return url


locks = LockBackend(
    scheme=SCHEME,
    summary="one session for each provider, blocking queries, ModifyIndex as token",
    example="consul://:TOKEN@localhost:8500/shop",
    options=Options,
    capabilities=_capabilities,
    open=_open,
    prepare=_prepare,
    extra="consul",
)
