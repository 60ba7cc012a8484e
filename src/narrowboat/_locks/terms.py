"""What a lock's options come to, checked before anything is sent. A backend's claims decide what is allowed."""

from __future__ import annotations

from typing import Any

from narrowboat._engine.checks import flag, seconds, text
from narrowboat.capabilities import Expiry, LockCapabilities, Support
from narrowboat.contract.locks import Mode
from narrowboat.errors import InvalidArgument, Unsupported

#: Longest label in characters; what is longer is cut.
LABEL_MAX = 200


class Terms:
    """One lock's."""

    __slots__ = ("at_least", "label", "limit", "mode", "name", "reentrant", "renew", "timeout", "ttl")

    def __init__(
        self,
        backend: str,
        claims: LockCapabilities,
        default_label: str,
        name: str,
        *,
        ttl: Any,
        at_least: Any,
        timeout: Any,
        mode: Any,
        limit: Any,
        reentrant: Any,
        renew: Any,
        label: Any,
    ) -> None:
        self.name = text("lock name", name)
        self.ttl = _ttl(backend, claims, ttl)
        self.at_least = _at_least(backend, claims, at_least)
        self.timeout = check_timeout(timeout)
        self.mode, self.limit = _mode(mode, limit)
        self.reentrant = flag("reentrant", reentrant)
        self.renew = flag("renew", renew)
        self.label = default_label if label is None else text("label", label)[:LABEL_MAX]
        if self.reentrant and self.mode is Mode.SEMAPHORE:
            raise InvalidArgument("reentrant=True with limit=: a semaphore's permits belong to nobody, so nothing can nest")
        needed = {Mode.SHARED: claims.shared, Mode.SEMAPHORE: claims.semaphore}.get(self.mode, Support.NATIVE)
        if needed is Support.ABSENT:
            raise Unsupported(f"{backend} does not claim {self.mode.value} locks", backend=backend)


def _ttl(backend: str, claims: LockCapabilities, ttl: Any) -> float:
    """Seconds. Where a session is the lease, the longest time that the caller accepts until a dead holder's lock is free."""
    if claims.expiry is Expiry.LEASE:
        return seconds("ttl", ttl, low=claims.ttl_min, high=claims.ttl_max, allowed=_range(claims))
    wanted = seconds("ttl", ttl, low=0.001, high=claims.ttl_max, allowed=_range(claims))
    if wanted < claims.ttl_min:
        raise Unsupported(
            f"ttl={wanted:g} s: on {backend} a session is the lease, and the lock of a holder that died is free after up to "
            f"{claims.ttl_min:g} s. Accept that with ttl={claims.ttl_min:g} or more, or set a shorter ?session_ttl= in the URL "
            "where the server allows it",
            backend=backend,
        )
    return wanted


def _at_least(backend: str, claims: LockCapabilities, at_least: Any) -> float:
    """Seconds; 0 where there is no minimum hold."""
    allowed = f"0 to {claims.ttl_max:g} seconds, as a number or a timedelta"
    wanted = seconds("at_least", at_least, low=0.0, high=claims.ttl_max, allowed=allowed)
    if wanted and claims.at_least is Support.ABSENT:
        session = claims.expiry is Expiry.SESSION
        why = "a session is the lease, and a name is free when that ends" if session else "it is not claimed"
        raise Unsupported(
            f"at_least={wanted:g} s: {backend} cannot keep a name taken after its holder has gone: {why}. Nothing was sent. "
            "Hold the lock for that long, or take a backend that claims `at_least`; `narrowboat backends` shows which",
            backend=backend,
        )
    return wanted


def _range(claims: LockCapabilities) -> str:
    return f"{claims.ttl_min:g} to {claims.ttl_max:g} seconds, as a number or a timedelta"


def _mode(mode: object, limit: object) -> tuple[Mode, int | None]:
    allowed = "'exclusive' or 'shared'; give limit=n for a semaphore"
    if limit is not None:
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 1_000_000:
            raise InvalidArgument(f"limit={limit!r}: expected a whole number from 1 to 1000000")
        if mode != "exclusive":
            raise InvalidArgument(f"limit={limit} with mode={mode!r}: a semaphore has no other mode, leave mode= away")
        return Mode.SEMAPHORE, limit
    if mode == "exclusive":
        return Mode.EXCLUSIVE, None
    if mode == "shared":
        return Mode.SHARED, None
    raise InvalidArgument(f"mode={mode!r}: allowed are {allowed}")


def check_timeout(timeout: object) -> float | None:
    """Seconds to wait: None for ever, 0 for exactly one try."""
    if timeout is None:
        return None
    return seconds("timeout", timeout, low=0.0, high=10 * 365 * 86400.0, allowed="0 or more seconds, or None for ever")
