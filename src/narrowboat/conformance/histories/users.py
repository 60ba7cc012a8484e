"""The users of a history: contenders for locks, publishers and consumers, which write down what they do and are told.

Written once for both faces, as scenarios are. A user never raises: an error that a call may end with is written down, and so is
one that it may not, which the judge finds. They decide by `steps` alone, and end when `ended` is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from narrowboat.conformance.histories import steps
from narrowboat.conformance.histories.journal import Effects, Journal
from narrowboat.conformance.histories.plan import Role, User
from narrowboat.conformance.histories.steps import Sending, Stay, Visit
from narrowboat.errors import LeaseLost, LockTimeout, NarrowboatError, PublishFailed, PublishUnknown, Unavailable
from narrowboat.messaging import Outbound

#: Seconds for which a consumer waits for a message. Longer makes "received after that ack" less exact.
IDLE = 0.2
#: Messages that may wait before publishers pause. More, and the run ends with a long drain.
BACKLOG = 3000
#: How many publishes lie between two looks at the backlog.
LOOKS = 10


@dataclasses.dataclass(frozen=True)
class Terms:
    """What the users of a backend can do."""

    seed: int
    ttl: float
    lease: float
    locks: tuple[str, ...]
    outcomes: tuple[str, ...]  #: how a consumer may settle beside an ack
    depth: bool  #: whether publishers can see the backlog


class Faces(NamedTuple):
    """The locks and the broker of one face, as a scenario sees them. None where the backend has no such half."""

    locks: Any
    broker: Any

    def queue(self, terms: Terms, *, ordered: bool) -> Any:
        """The plain queue, or the ordered one. A message is delivered until it is settled, so that none dies."""
        return self.broker.queue("ordered" if ordered else "plain", lease=terms.lease, max_deliveries=0, ordered=ordered)


class Company:
    """The users of one process, and what they share."""

    def __init__(self, terms: Terms, journal: Journal, effects: Effects) -> None:
        self.terms = terms
        self.journal = journal
        self.effects = effects
        self.ended = asyncio.Event()
        self.storm = 0.0  #: until when consumers come and go

    async def act(self, user: User, faces: Faces) -> None:
        """What `user` does until the end."""
        name = f"{self.journal.process}.{user.number}"
        seed = f"{self.terms.seed} {name}"
        try:
            if user.role is Role.CONTENDER:
                await self._contend(name, faces.locks, steps.visits(seed, self.terms.locks))
            elif user.role is Role.PUBLISHER:
                sendings = steps.sendings(seed, ordered=user.ordered)
                await self._publish(name, faces.queue(self.terms, ordered=user.ordered), sendings)
            else:
                stays = steps.stays(seed, self.terms.outcomes, guest=user.role is Role.GUEST, ordered=user.ordered)
                await self._consume(name, faces.queue(self.terms, ordered=user.ordered), stays)
        except Exception as error:  # the user is gone, and the judge says why
            self.journal.tell("failed", name, error=f"{type(error).__name__}: {error}")

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), seconds)

    # -- locks ---------------------------------------------------------------------------------------------------------

    async def _contend(self, user: str, locks: Any, visits: Iterator[Visit]) -> None:
        for number, visit in enumerate(visits):
            if self.ended.is_set():
                return
            await self._visit(user, f"{user}#{number}", locks, visit)

    async def _visit(self, user: str, call: str, locks: Any, visit: Visit) -> None:
        tell = self.journal.tell
        lock = locks.lock(visit.name, ttl=self.terms.ttl, mode=visit.mode, limit=visit.limit, renew=visit.renew)
        mode = "semaphore" if visit.limit is not None else visit.mode
        kind = {"call": call, "name": visit.name, "mode": mode, "limit": visit.limit}
        since = time.monotonic()
        tell("asks", user, **kind, allowed=visit.timeout, ttl=self.terms.ttl)
        try:
            held = await (lock.acquire(timeout=visit.timeout) if visit.timeout else lock.try_acquire())
        except (Unavailable, LockTimeout, LeaseLost) as error:
            tell("refused", user, call=call, since=since, error=type(error).__name__)
            if isinstance(error, Unavailable):
                await self._pause(0.1)
            return
        if held is None:
            tell("refused", user, call=call, since=since, error="")
            await self._pause(0.01)
            return
        tell("granted", user, call=call, since=since, token=held.token, ttl=held.ttl)
        for _ in range(visit.looks):
            if not self._looks(user, call, held, visit):
                break
            await self._pause(visit.pause)
        if not visit.leaves:
            await self._pause(max(0.0, held.expires_in - 0.05))
        self._looks(user, call, held, visit)
        since = time.monotonic()
        tell("releases", user, call=call)
        wrong = ""
        try:
            await held.release()
        except (Unavailable, LeaseLost) as lost:
            wrong = type(lost).__name__
        tell("released", user, call=call, since=since, error=wrong)

    def _looks(self, user: str, call: str, held: Any, visit: Visit) -> bool:
        """Look whether it holds, and then write what an exclusive lock guards. The time is taken before the look."""
        now = time.monotonic()
        until = now + held.expires_in
        if held.lost:
            return False
        self.journal.tell("holds", user, call=call, at=now, until=until)
        if visit.mode == "exclusive" and visit.limit is None:
            place = self.effects.write()
            self.journal.tell("wrote", user, call=call, place=place, valid=time.monotonic() < until)
        return True

    # -- messages ------------------------------------------------------------------------------------------------------

    async def _publish(self, user: str, queue: Any, sendings: Iterator[Sending]) -> None:
        for number, sending in enumerate(sendings):
            if self.ended.is_set():
                return
            await self._send(user, number, queue, sending)
            await self._pause(sending.pause)
            if self.terms.depth and number % LOOKS == 0:
                await self._until_taken(user, queue)

    async def _send(self, user: str, number: int, queue: Any, sending: Sending) -> None:
        ids = [f"{user}-{number}-{each}" for each in range(sending.messages)]
        named = {"queue": queue.name, "key": sending.key}
        self.journal.tell("publishes", user, ids=ids, **named)
        since = time.monotonic()
        try:
            outcomes = await queue.publish_many([Outbound(b"x", key=sending.key, id=id) for id in ids])
        except NarrowboatError as error:
            outcomes = [error] * len(ids)
        failed = [id for id, each in zip(ids, outcomes, strict=True) if isinstance(each, PublishFailed)]
        unknown = [id for id, each in zip(ids, outcomes, strict=True) if isinstance(each, PublishUnknown)]
        other = [each for each in outcomes if isinstance(each, NarrowboatError)]
        there = [] if len(other) == len(ids) else [id for id, each in zip(ids, outcomes, strict=True) if each not in other]
        self.journal.tell("published", user, ids=there, failed=failed, unknown=unknown, since=since, **named)
        strange = [each for each in other if not isinstance(each, PublishFailed | PublishUnknown)]
        if strange:
            self.journal.tell("failed", user, error=f"publish: {type(strange[0]).__name__}: {strange[0]}")
        if other:
            await self._pause(0.1)

    async def _until_taken(self, user: str, queue: Any) -> None:
        """Wait while very many messages wait, or until the backlog cannot be seen."""
        for _ in range(40):
            since = time.monotonic()
            try:
                depth = await queue.depth()
            except Unavailable:
                self.journal.tell("hindered", user, call="depth", since=since)
                return
            if depth.ready is None or depth.ready < BACKLOG or self.ended.is_set():
                return
            await self._pause(0.25)

    async def _consume(self, user: str, queue: Any, stays: Iterator[Stay]) -> None:
        for stay in stays:
            if self.ended.is_set():
                return
            since = time.monotonic()
            try:
                async with queue.consume(prefetch=stay.prefetch, idle=IDLE) as messages:
                    await self._stay(user, queue.name, messages, stay)
                    since = time.monotonic()
            except Unavailable:
                self.journal.tell("hindered", user, call="consume", since=since)
                await self._pause(0.1)

    async def _stay(self, user: str, queue: str, messages: Any, stay: Stay) -> None:
        batches: AsyncIterator[Any] | None = None
        for how, work in stay.turns:
            if self.ended.is_set():
                return
            batches = batches or aiter(messages.batches(stay.most, wait=0.01))
            since = time.monotonic()
            try:
                batch = await anext(batches, None)
            except Unavailable:
                self.journal.tell("hindered", user, call="receive", since=since, allowed=IDLE)
                await self._pause(0.1)
                return
            if batch is None:  # nothing came for a while
                batches = None
                if self.storm > since:
                    return
                continue
            await self.handle(user, queue, batch, how, since=since, work=work)
            if self.storm > since:
                return

    async def handle(self, user: str, queue: str, batch: Any, how: str, *, since: float, work: float = 0.0) -> None:
        """Write down a batch that was asked for at `since`, and settle it."""
        ids = [message.id for message in batch]
        attempts = [message.attempt for message in batch]
        self.journal.tell("delivered", user, queue=queue, ids=ids, attempts=attempts, since=since)
        if work:
            await asyncio.sleep(work)
        if how == "forget":
            return
        if how == "extend":
            begun = time.monotonic()
            await batch.extend(self.terms.lease)
            self.journal.tell("extended", user, since=begun, call="extend")
            how = "ack"
        settling: dict[str, Callable[[], Awaitable[list[Any]]]] = {
            "ack": batch.ack,
            "nack": batch.nack,
            "reject": lambda: batch.reject("a history's"),
        }
        self.journal.tell("settles", user, queue=queue, ids=ids, how=how)
        begun = time.monotonic()
        answers = await settling[how]()
        done = [id for id, answer in zip(ids, answers, strict=True) if answer is None]
        doubt = [id for id, answer in zip(ids, answers, strict=True) if answer is not None]
        errors = sorted({type(answer).__name__ for answer in answers if answer is not None})
        self.journal.tell("settled", user, queue=queue, ids=done, doubt=doubt, how=how, since=begun, errors=errors)
