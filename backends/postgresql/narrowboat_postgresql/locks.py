"""Locks in a PostgreSQL database: one function call for each batch, whatever its size.

A name is a row, which contenders lock for the length of a call. Waiters are rows, served in the order in which they came. A
release notifies those that may go, and nobody when nobody waits. Leases end by the server's clock.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Sequence

from narrowboat.capabilities import Expiry, LockCapabilities, Scope, Support, Survives, WaitOrder, WakeUp
from narrowboat.contract.backend import Context, LockBackend
from narrowboat.contract.locks import Busy, Grant, Holder, LockProvider, Mode, Released, Request
from narrowboat.driver.admission import conflict, lost
from narrowboat.dsn import Url
from narrowboat.errors import Conflict, NarrowboatError, Reason
from narrowboat_postgresql.listening import Listening
from narrowboat_postgresql.options import SCHEME, Options, fit
from narrowboat_postgresql.place import Place
from narrowboat_postgresql.session import Session

#: Seconds after its last attempt that a waiter keeps its place. Too short, and a paused process loses it; too long, and a
#: dead one at the head holds up the rest.
PATIENCE = 5.0
#: Seconds between two attempts of a waiter at most: less than half of the patience, so that one may fail.
LOOK_AGAIN = 2.0
#: The same while no notification can be heard.
FALLBACK = 0.25

_LOST = {"expired": Reason.EXPIRED, "evicted": Reason.EVICTED, "taken": Reason.TAKEN}


class Waiting:
    """The waiters of one provider, by name and owner. From any thread."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._owners: dict[str, Callable[[], None]] = {}

    def arm(self, request: Request) -> None:
        """Wake the owner from now on."""
        with self._mutex:
            self._owners[request.owner] = request.wake

    def disarm(self, owner: str) -> None:
        """Forget the owner. Idempotent."""
        with self._mutex:
            self._owners.pop(owner, None)

    def wake(self, owner: str) -> None:
        """Wake it, if it waits here."""
        with self._mutex:
            wake = self._owners.get(owner)
        if wake is not None:
            wake()

    def wake_all(self) -> None:
        """Everybody looks for himself."""
        with self._mutex:
            wakes = list(self._owners.values())
        for wake in wakes:
            wake()


class PostgresLocks(LockProvider):
    """A connection for attempts, one for what frees, and two that are made when they are needed: to look, and to listen."""

    def __init__(self, url: Url, options: Options, context: Context) -> None:
        self.capabilities = capabilities(url, options)
        self._place = Place(url, options, context.timeout)
        self._taking, self._freeing, self._looking = (Session(self._place) for _ in range(3))
        self._waiting = Waiting()
        self._channel = f"{options.schema}.l.{secrets.token_hex(8)}"
        self._listening = Listening(
            self._place, "wake", lambda channel, owner: self._waiting.wake(owner), self._waiting.wake_all
        )

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        """Take or queue, the whole batch in one call."""
        for request in requests:
            if request.wait:
                self._waiting.arm(request)
        answers = self._take(requests)
        late = [at for at, answer in enumerate(answers) if isinstance(answer, Busy) and requests[at].wait]
        if late and not self._listening.hears(self._channel) and self._listen():
            # What was notified before this moment was not heard.
            for at, answer in zip(late, self._take([requests[at] for at in late]), strict=True):
                answers[at] = answer
        for request, answer in zip(requests, answers, strict=True):
            if request.wait and not isinstance(answer, Busy):
                self._waiting.disarm(request.owner)
        if late and not self._listening.hears(self._channel):
            return [Busy(min(each.retry_after, FALLBACK)) if isinstance(each, Busy) else each for each in answers]
        return answers

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Start leases afresh."""
        asked = [{**_generation(at, grant), "ttl": grant.ttl} for at, grant in enumerate(grants)]
        answers: list[Grant | NarrowboatError] = list(grants)
        for at, verdict in self._freeing.call("renew", json.dumps(asked), doing="a renewal"):
            if verdict != b"renewed":
                grant = grants[int(at or b"")]
                answers[int(at or b"")] = lost(grant, _LOST[(verdict or b"").decode()], backend=SCHEME)
        return answers

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Free each lease and notify the next waiters. A lease that is over is answered `NOT_HELD`."""
        asked = [_generation(at, grant) for at, grant in enumerate(grants)]
        answers: list[Released | NarrowboatError] = [Released.NOT_HELD] * len(grants)
        for at, ran in self._freeing.call("release", json.dumps(asked), doing="a release"):
            if ran == b"t":
                answers[int(at or b"")] = Released.RELEASED
        for grant in grants:
            self._waiting.disarm(grant.owner)  # an interrupt may have struck between the grant and the end of the wait
        return answers

    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        """Delete the owners' rows, once no attempt that was left in the middle can land any more."""
        left = self._taking.take_left()
        if left:
            try:
                self._freeing.end(left)
            except BaseException:  # an interrupt as well: what is forgotten here may still take a lock
                self._taking.give_left(left)
                raise
        asked = [{"key": fit(request.name), "owner": request.owner} for request in requests]
        self._freeing.call("withdraw", json.dumps(asked), doing="a withdrawal")
        for request in requests:
            self._waiting.disarm(request.owner)
        return [None] * len(requests)

    def holders(self, name: str | None) -> list[Holder]:
        """Whose lease runs."""
        key = None if name is None else fit(name)
        found = []
        for row in self._looking.call("holders", key, doing="a look at the holders"):
            held, token, label, mode, size, since, rest, waiters = [None if each is None else each.decode() for each in row]
            found.append(
                Holder(
                    held or "",
                    int(token or 0),
                    label or "",
                    Mode(mode or ""),
                    None if size is None else int(size),
                    float(since or 0),
                    float(rest or 0),
                    int(waiters or 0),
                )
            )
        return sorted(found, key=lambda holder: (holder.name, holder.token))

    def evict(self, name: str, token: int) -> bool:
        """Break that generation; its holder learns of it at its next renewal."""
        if not 0 <= token < 2**63:
            return False
        (row,) = self._looking.call("evict", fit(name), str(token), doing="an eviction")
        return row[0] == b"t"

    def ping(self) -> None:
        """An empty batch: it fails where any call would."""
        self._looking.call("release", "[]", doing="a ping")

    def close(self) -> None:
        """End the thread and close the connections."""
        self._listening.close()
        for session in (self._taking, self._freeing, self._looking):
            session.close()

    def _listen(self) -> bool:
        try:
            self._listening.want(self._channel)
        except RuntimeError:  # no thread is left: the waiters poll, and the next one tries again
            return False
        return self._listening.await_channel(self._channel, self._place.timeout)

    def _take(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        asked = [
            {
                "at": at,
                "key": fit(name),
                "name": name,
                "owner": owner,
                "ttl": ttl,
                "mode": mode.value,
                "size": limit,
                "wait": wait,
                "label": label,
            }
            for at, (name, owner, ttl, mode, limit, wait, _, label) in enumerate(requests)
        ]
        rows = self._taking.call(
            "attempt", json.dumps(asked), self._channel, str(PATIENCE), str(LOOK_AGAIN), doing=_named("an attempt", requests)
        )
        answers: list[Grant | Busy | NarrowboatError] = [Busy(LOOK_AGAIN)] * len(requests)
        for at, verdict, token, pause, mode, size in rows:
            request = requests[int(at or b"")]
            answer: Grant | Busy | NarrowboatError
            if verdict == b"granted":
                answer = Grant(request.name, request.owner, int(token or b""), request.ttl, request.mode, request.limit)
            elif verdict == b"busy":
                answer = Busy(float(pause or b""))
            else:
                other = Mode((mode or b"").decode()), None if size is None else int(size)
                answer = Conflict(conflict(request.name, request.mode, request.limit, *other), backend=SCHEME)
            answers[int(at or b"")] = answer
        return answers


def _generation(at: int, grant: Grant) -> dict[str, object]:
    return {"at": at, "key": fit(grant.name), "owner": grant.owner, "token": grant.token}


def _named(what: str, requests: Sequence[Request]) -> str:
    return f"{what} to take {requests[0].name!r}" + (f" and {len(requests) - 1} more" if len(requests) > 1 else "")


def capabilities(url: Url, options: Options) -> LockCapabilities:
    """What `postgresql://` claims."""
    return LockCapabilities(
        scope=Scope.NETWORK,
        expiry=Expiry.LEASE,
        survives=Survives.POWER,
        fencing=Support.NATIVE,
        fencing_survives=Survives.POWER,
        order=WaitOrder.FIFO,
        wake=WakeUp.NOTIFIED,
        shared=Support.NATIVE,
        semaphore=Support.NATIVE,
        holders=Support.NATIVE,
        evict=Support.NATIVE,
        at_least=Support.NATIVE,
        dead_waiter_bound=PATIENCE + LOOK_AGAIN + 1.0,
    )


def prepare(url: Url, options: Options) -> Url:
    """Refuse what this scheme does not take, and load the client library."""
    import narrowboat_postgresql.library  # noqa: F401  # which importing the backend must not

    Place(url, options, 1.0)
    return url


locks = LockBackend(
    scheme=SCHEME,
    summary="rows in a PostgreSQL database, with a lease each",
    options=Options,
    capabilities=capabilities,
    open=PostgresLocks,
    prepare=prepare,
    extra="postgresql",
    example="postgresql://shop@db.example/shop",
)
