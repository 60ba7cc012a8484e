"""Locks on a Redis server: leases in hashes, a queue for each name, one script call to acquire and one to release.

A batch is one pipeline. Attempts have one connection, renewals and releases another, so that no release queues behind an
attempt. A third connection wakes waiters (waiting.py). The scripts in `*.lua` decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from narrowboat.capabilities import Expiry, LockCapabilities, Scope, Support, Survives, WaitOrder, WakeUp
from narrowboat.contract.backend import Context, LockBackend
from narrowboat.contract.locks import Busy, Grant, Holder, LockProvider, Mode, Released, Request
from narrowboat.driver.admission import conflict, lost
from narrowboat.dsn import Url
from narrowboat.errors import Conflict, NarrowboatError, Reason, Unavailable
from narrowboat_redis.client import RedisClient
from narrowboat_redis.endpoint import Deployment, RedisEndpoint
from narrowboat_redis.errors import translate, typed
from narrowboat_redis.names import Keys
from narrowboat_redis.options import SCHEME, Durability, Options
from narrowboat_redis.persistence import SURVIVES, check_durability
from narrowboat_redis.records import LETTERS, MODES, Records
from narrowboat_redis.resp import pack, pack_arguments
from narrowboat_redis.scripts import Packed, command, script
from narrowboat_redis.waiting import FALLBACK, Waiting

ATTEMPT = script("attempt_free.lua", "locks.lua", "attempt.lua")
RELEASE = script("release_quiet.lua", "locks.lua", "release.lua")
RENEW = script("locks.lua", "renew.lua")
WITHDRAW = script("locks.lua", "withdraw.lua")

_ATTEMPT = ATTEMPT.head(6, 5)
_RELEASE = RELEASE.head(4, 3)
_RENEW = RENEW.head(5, 4)
_WITHDRAW = WITHDRAW.head(5, 3)

#: The share of the timeout in which the replicas have to confirm a grant. A batch waits twice if it has to load its scripts.
_WAIT_SHARE = 0.3


class RedisLocks(LockProvider):
    """Two connections and, once somebody waits, a third with a thread."""

    def __init__(self, url: Url, options: Options, context: Context) -> None:
        self.capabilities = _capabilities(url, options)
        self.endpoint = endpoint = RedisEndpoint.of(url, options)
        self._keys = Keys(options.prefix)
        self._timeout = context.timeout
        self._take = RedisClient(endpoint, context.timeout)
        self._free = RedisClient(endpoint, context.timeout, fail_fast=True)
        self._records = Records(endpoint, self._keys, context.timeout)
        self._waiting = Waiting(endpoint, self._keys, self._free, context.timeout)
        self._replicas = options.wait
        #: The durability to check before the first grant. None: it is checked already, or nothing is claimed.
        self._durability = None if options.durability is Durability.MEMORY else options.durability
        milliseconds = max(1, int(context.timeout * _WAIT_SHARE * 1000))
        self._tail = pack(b"WAIT", b"%d" % options.wait, b"%d" % milliseconds) if options.wait else None
        channel = self._keys.channel
        self._channel = pack_arguments((channel,))
        self._waiter = pack_arguments((self._waiting.provider, channel))
        self._trier = pack_arguments((b"", channel))

    # -- taking ---------------------------------------------------------------------------------------------------

    @typed
    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        """Take the names, or queue for them: the whole batch in one pipeline."""
        ends = self._check(self._take)
        if len(requests) == 1 and self._tail is None:  # a lone caller: every step counts
            request = requests[0]
            (reply,) = self._take.run((self._attempt(request),), doing="taking locks", ends=ends)
            if type(reply) is bytes and reply.isdigit() and len(reply) < 17:
                self._waiting.disarm(request.name, request.owner)
                return [Grant(request.name, request.owner, int(reply), request.ttl, request.mode, request.limit)]
            return self._answers(requests, [reply])
        calls = [self._attempt(request) for request in requests]
        return self._answers(requests, self._take.run(calls, doing="taking locks", tail=self._tail, ends=ends))

    def _check(self, client: RedisClient) -> float | None:
        """Check once that the server is as durable as the URL says. Returns the call's deadline where it has asked."""
        if self._durability is None:
            return None
        ends = client.ends()
        check_durability(client, self.endpoint, self._durability, ends)
        self._durability = None
        return ends

    def _answers(self, requests: Sequence[Request], replies: list[Any]) -> list[Grant | Busy | NarrowboatError]:
        """The answers to a batch, from the replies. A waiter is armed first."""
        waiting = self._waiting
        answers = [self._answer(request, reply) for request, reply in zip(requests, replies, strict=False)]
        if self._tail is not None:
            self._confirm(requests, answers, replies[len(requests) :])
        busy = [index for index, answer in enumerate(answers) if type(answer) is Busy and requests[index].wait]
        if busy:
            for index in busy:
                waiting.arm(requests[index])
            self._listen(requests, answers, busy)
        for request, answer in zip(requests, answers, strict=True):
            if request.wait and type(answer) is not Busy:
                waiting.disarm(request.name, request.owner)
        return answers

    def _attempt(self, request: Request) -> Packed:
        name, owner, ttl, mode, limit, wait, _, label = request
        keys = self._keys.of(name)
        ours = owner.encode()
        gone = keys.gone + ours
        milliseconds = b"%d" % math.ceil(ttl * 1000)
        rest = b" %b %b %d %b" % (milliseconds, LETTERS[mode], limit or 0, label.encode())
        return Packed(
            b"%b%b$%d\r\n%b\r\n%b$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n%b"
            % (
                _ATTEMPT,
                keys.attempt_head,
                len(gone),
                gone,
                keys.attempt_tail,
                len(ours),
                ours,
                len(milliseconds),
                milliseconds,
                len(rest),
                rest,
                self._waiter if wait else self._trier,
            ),
            keys.held,
            ATTEMPT,
        )

    def _answer(self, request: Request, reply: Any) -> Grant | Busy | NarrowboatError:
        name, owner, ttl, mode, limit = request[:5]
        if type(reply) is bytes and reply.isdigit() and len(reply) < 17:
            return Grant(name, owner, int(reply), ttl, mode, limit)
        if type(reply) is int:
            if reply == 0:  # more dead waiters are ahead than one call drops
                self._waiting.hurry()
                return Busy(FALLBACK)
            return Busy(reply / 1000 if self._waiting.listening else min(reply / 1000, FALLBACK))
        if reply is None:  # withdrawn: this attempt came late, and its caller has left
            return Busy(FALLBACK)
        if isinstance(reply, list):
            if reply[0] not in MODES:
                return self._foreign(name, reply)
            other = MODES[reply[0]]
            size = int(reply[1]) if other is Mode.SEMAPHORE else None
            return Conflict(conflict(name, mode, limit, other, size), backend=self.endpoint.scheme)
        return translate(reply, self.endpoint, doing=f"taking the lock {name!r}")

    def _foreign(self, name: str, reply: list[bytes]) -> Conflict:
        """The `Conflict` for foreign data that prevents a grant."""
        if reply[0] == b"token":
            key = self._keys.of(name).token.decode()
            text = (
                f"lock {name!r}: the last token of its part of the names, {reply[1][:40].decode(errors='replace')!r} in the "
                f"key {key}, cannot be one of ours. Nothing was granted. If the server's clock was set back by more than a "
                "day, set it right; else somebody wrote that key: delete it, and tokens go on from the server's clock."
            )
        else:
            text = (
                f"lock {name!r}: something that is not ours, or is damaged, stands under that name, or more than 20,000 "
                "holders. Nothing was granted. See it with `narrowboat holders`, and remove it with `narrowboat evict`."
            )
        return Conflict(text, backend=self.endpoint.scheme)

    def _listen(self, requests: Sequence[Request], answers: list[Grant | Busy | NarrowboatError], busy: list[int]) -> None:
        """Make sure that waiters are woken. If the subscription began only now, look again: a release meanwhile was missed."""
        try:
            again = self._waiting.listen(self._timeout)
        except NarrowboatError as error:
            for index in busy:
                answers[index] = error
            return
        if again:
            later = [requests[index] for index in busy]
            replies = self._take.run([self._attempt(request) for request in later], doing="taking locks", tail=self._tail)
            found = [self._answer(request, reply) for request, reply in zip(later, replies, strict=False)]
            if self._tail is not None:
                self._confirm(later, found, replies[len(later) :])
            for index, answer in zip(busy, found, strict=True):
                answers[index] = answer

    def _confirm(
        self, requests: Sequence[Request], answers: list[Grant | Busy | NarrowboatError], confirmed: list[Any]
    ) -> None:
        """Undo the grants of a batch that too few replicas have confirmed. The owners may try again."""
        failure = self._unconfirmed(confirmed)
        if failure is None:
            return
        grants = [(index, answer) for index, answer in enumerate(answers) if isinstance(answer, Grant)]
        if grants:
            self._take.run([self._release(grant) for _, grant in grants], doing="undoing grants")
            for index, _ in grants:
                answers[index] = failure

    def _unconfirmed(self, confirmed: list[Any]) -> NarrowboatError | None:
        for reply in confirmed:
            if not isinstance(reply, int):
                return translate(reply, self.endpoint, doing="waiting for replicas")
            if reply < self._replicas:
                return Unavailable(
                    f"{self.endpoint}: {reply} of the {self._replicas} replicas that wait= asks for confirmed in time. What "
                    "they did not confirm is not counted as ours. See INFO replication; the call may be repeated.",
                    backend=self.endpoint.scheme,
                )
        return None

    # -- keeping and freeing --------------------------------------------------------------------------------------

    @typed
    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Start leases afresh, the whole batch in one pipeline."""
        replies = self._free.run([self._renew(grant) for grant in grants], doing="renewing locks", tail=self._tail)
        failure = None if self._tail is None else self._unconfirmed(replies[len(grants) :])
        answers: list[Grant | NarrowboatError] = []
        for grant, reply in zip(grants, replies, strict=False):
            if type(reply) is int:
                answers.append(grant if failure is None else failure)
            elif type(reply) is bytes:
                answers.append(lost(grant, Reason(reply.decode()), backend=self.endpoint.scheme))
            else:
                answers.append(translate(reply, self.endpoint, doing=f"renewing the lock {grant.name!r}"))
        return answers

    def _renew(self, grant: Grant) -> Packed:
        keys = self._keys.of(grant.name)
        owner = grant.owner.encode()
        arguments = (keys.gone + owner, owner, b"%d" % grant.token, b"%d" % math.ceil(grant.ttl * 1000))
        return Packed(_RENEW + keys.common + pack_arguments(arguments) + self._channel, keys.held, RENEW)

    @typed
    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Free the leases and notify the next waiters. A lease that has expired is dropped, and was not held."""
        if len(grants) == 1:
            (reply,) = self._free.run((self._release(grants[0]),), doing="releasing locks")
            if reply == 1:
                self._waiting.disarm(grants[0].name, grants[0].owner)
                return [Released.RELEASED]
            replies = [reply]
        else:
            replies = self._free.run([self._release(grant) for grant in grants], doing="releasing locks")
        answers: list[Released | NarrowboatError] = []
        for grant, reply in zip(grants, replies, strict=True):
            if type(reply) is int:
                answers.append(Released.RELEASED if reply else Released.NOT_HELD)
            else:
                answers.append(translate(reply, self.endpoint, doing=f"releasing the lock {grant.name!r}"))
            self._waiting.disarm(grant.name, grant.owner)  # an interrupt may have struck between its grant and that
        return answers

    def _release(self, grant: Grant) -> Packed:
        keys = self._keys.of(grant.name)
        owner, token = grant.owner.encode(), b"%d" % grant.token
        return Packed(
            b"%b%b$%d\r\n%b\r\n$%d\r\n%b\r\n%b" % (_RELEASE, keys.common, len(owner), owner, len(token), token, self._channel),
            keys.held,
            RELEASE,
        )

    @typed
    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        """Remove the owners wherever they are, and leave a mark for an attempt that is still on its way."""
        replies = self._free.run([self._withdraw(request) for request in requests], doing="withdrawing")
        answers: list[NarrowboatError | None] = []
        for request, reply in zip(requests, replies, strict=True):
            doing = f"withdrawing from the lock {request.name!r}"
            answers.append(None if type(reply) is int else translate(reply, self.endpoint, doing=doing))
            self._waiting.disarm(request.name, request.owner)
        return answers

    def _withdraw(self, request: Request) -> Packed:
        keys = self._keys.of(request.name)
        owner = request.owner.encode()
        member = b"%b %b %d %b" % (owner, LETTERS[request.mode], request.limit or 0, self._waiting.provider)
        arguments = (keys.gone + owner, owner, member)
        return Packed(_WITHDRAW + keys.common + pack_arguments(arguments) + self._channel, keys.held, WITHDRAW)

    # -- looking --------------------------------------------------------------------------------------------------

    @typed
    def holders(self, name: str | None) -> list[Holder]:
        """The holders whose leases run by the server's clock, by token. Without a name it scans all keys of the server."""
        return self._records.holders(name)

    @typed
    def evict(self, name: str, token: int) -> bool:
        """Break that generation, or remove foreign data. A holder learns of it at its next renewal."""
        return self._records.evict(name, token)

    @typed
    def ping(self) -> None:
        """Write a key that expires at once. It fails where a lock would."""
        ends = self._check(self._free)
        call = command(self._keys.probe, b"SET", self._keys.probe, b"w", b"PX", b"1")
        self._free.ask(call, "answering a ping", ends)

    def close(self) -> None:
        """End the thread and all connections. Idempotent."""
        self._waiting.close()
        self._take.close()
        self._free.close()
        self._records.close()


def _capabilities(url: Url, options: Options) -> LockCapabilities:
    endpoint = RedisEndpoint.of(url, options)
    survives = SURVIVES[options.durability]
    # A server answers before a replica has the grant. With wait=, that many replicas have it first, and one may take over. But
    # a server that comes back empty empties its replicas.
    if options.wait and endpoint.deployment is not Deployment.SINGLE and options.durability is not Durability.MEMORY:
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
        at_least=Support.NATIVE,
        dead_waiter_bound=6.0,  # a place in the queue ends 5 s after the last sign of life; who waits behind it waits 1.5 s
    )


locks = LockBackend(
    scheme=SCHEME,
    summary="over the network, on a Redis or Valkey server, a cluster, or the primary of some sentinels",
    example="redis://:password@localhost:6379/0",
    options=Options,
    capabilities=_capabilities,
    open=RedisLocks,
)
