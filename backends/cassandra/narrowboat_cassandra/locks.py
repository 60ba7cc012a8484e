"""Locks in a table of Cassandra's: their claims, and how they are taken, kept and freed.

A free lock costs one conditional batch: raise the version that was seen, and put the owner with its lease into a slot. A
refusal shows the row. So does a look by one who waits, which reads without taking part in the agreement of the replicas: many
who wait do not delay the holder. Statements for several names travel at once, each by itself; a batch of CQL for many rows
would bind them together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from narrowboat.capabilities import Concurrency, Expiry, LockCapabilities, Scope, Support, Survives, WaitOrder, WakeUp
from narrowboat.contract.backend import Context, LockBackend
from narrowboat.contract.locks import Busy, Grant, Holder, LockProvider, Released, Request
from narrowboat.driver.admission import lost
from narrowboat.dsn import Url
from narrowboat.errors import Closed, Conflict, NarrowboatError, Reason, Unavailable
from narrowboat_cassandra.options import SCHEME, Durability, Options, Ring
from narrowboat_cassandra.owners import Owners
from narrowboat_cassandra.rows import Held, State, holders
from narrowboat_cassandra.steps import ROUNDING, WRITER, Do, Refuse, Steps, Wait, slot_for

if TYPE_CHECKING:  # it imports the client library, which importing the backend must not
    from narrowboat_cassandra.session import Answer

#: How often a refused step is decided anew within one call. Each refusal means that another contender made progress.
ROUNDS = 10
#: Seconds after which a writer who still waits says so again.
ANNOUNCE = WRITER / 2
#: Seconds that a look of a waiter may take beyond its pause, before it is told of a free lock late.
SLOW = 0.5

P = ParamSpec("P")
T = TypeVar("T")


def _driver_call(method: Callable[Concatenate[CassandraLocks, float, P], T]) -> Callable[Concatenate[CassandraLocks, P], T]:
    """Refused after `close`; all exchanges of one call share one operation timeout, whose end is the first argument."""

    @functools.wraps(method)
    def call(self: CassandraLocks, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:
            raise Closed("the provider is closed", backend=SCHEME)
        return method(self, self._session.ends(), *args, **kwargs)

    return call


class CassandraLocks(LockProvider):
    """One connection with a ring, for all threads."""

    def __init__(self, ring: Ring, context: Context, capabilities: LockCapabilities) -> None:
        from narrowboat_cassandra.session import Session

        self.capabilities = capabilities
        self._clock = context.clock
        self._session = Session(ring, context.timeout)
        self._steps = Steps(ring.options.prefix)
        self._owners = Owners(ring.options.poll)
        self._closed = False

    # -- taking ---------------------------------------------------------------------------------------------------

    @_driver_call
    def attempt(self, ends: float, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        """Take the names: for all that are free in one exchange, for the others in a few more."""
        answers: dict[int, Grant | Busy | NarrowboatError] = {}
        todo = {number: self._first(request) for number, request in enumerate(requests)}
        for _ in range(ROUNDS):
            sent = {number: step for number, step in todo.items() if isinstance(step, Do)}
            done = self._session.run(list(sent.values()), ends, doing="taking locks")
            todo = {}
            for (number, step), answer in zip(sent.items(), done, strict=True):
                decided = self._decide(requests[number], step, answer)
                if isinstance(decided, Do):
                    todo[number] = decided
                else:
                    answers[number] = decided
            if not todo:
                break
        for number in todo:
            answers[number] = self._busy(requests[number])
        return [answers[number] for number in range(len(requests))]

    def _first(self, request: Request) -> Do:
        """The first step of an attempt: hoping for the best, or a look where there is reason to."""
        doubted = self._owners.ask(request.owner)
        if doubted or self._owners.waits(request.owner):
            return self._steps.look(request.name, sure=doubted)
        step = self._steps.take(request, State(self._owners.version(request.name)))
        assert isinstance(step, Do), "nothing stands in the way in an empty row"
        return step

    def _decide(self, request: Request, step: Do, answer: Answer) -> Grant | Busy | NarrowboatError | Do:
        """The answer to the attempt, or its next step."""
        if isinstance(answer, NarrowboatError):
            return answer
        row = answer[0] if answer else None
        if row is not None and row.get("[applied]"):
            if step.held is not None:
                return self._granted(request, step)
            self._owners.announce(request.owner, self._clock())  # it waits, and new owners are kept from sharing
            return self._busy(request)
        if step.name in ("join", "keep", "want"):  # what refused it does not show the whole row
            return self._steps.look(request.name)
        state = State.of(row)
        self._owners.saw(request.name, None if state.mad else state.version)
        since = self._owners.announced(request.owner)
        announced = since is not None and self._clock() - since < ANNOUNCE
        decided = self._steps.take(request, state, announced=announced)
        if isinstance(decided, Refuse):
            self._owners.answered(request.owner)
            return Conflict(decided.text, backend=SCHEME)
        return self._busy(request) if isinstance(decided, Wait) else decided

    def _granted(self, request: Request, step: Do) -> Grant:
        assert step.held is not None and step.slot is not None
        self._owners.granted(request.owner, step.slot, self._clock())
        self._owners.answered(request.owner)
        if step.name != "keep":
            self._owners.saw(request.name, step.held.token)
        return Grant(request.name, request.owner, step.held.token, request.ttl, request.mode, request.limit)

    def _busy(self, request: Request) -> Busy:
        self._owners.answered(request.owner)
        return Busy(self._owners.pause(request.owner, request.wait))

    # -- keeping and freeing --------------------------------------------------------------------------------------

    @_driver_call
    def renew(self, ends: float, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Begin each lease afresh, where its slot still has it."""
        begun = self._clock()
        done = self._change(grants, ends, self._keep, "renewing locks")
        return [self._renewed(grant, answer, begun) for grant, answer in zip(grants, done, strict=True)]

    def _keep(self, grant: Grant, slot: int) -> Do:
        return self._steps.keep(grant.name, slot, Held.of(grant, grant.token), grant.ttl)

    def _renewed(self, grant: Grant, answer: Answer, begun: float) -> Grant | NarrowboatError:
        if isinstance(answer, NarrowboatError):
            return answer
        place = self._owners.place(grant.owner)
        if answer and answer[0].get("[applied]") and place is not None:
            self._owners.granted(grant.owner, place.slot, begun)
            return grant
        if place is None:
            reason = Reason.EXPIRED
        elif place.slot in State.of(answer[0] if answer else None).texts:
            reason = Reason.TAKEN
        else:
            reason = Reason.EXPIRED if begun - place.since >= grant.ttl else Reason.EVICTED
        self._owners.forget(grant.owner)
        return lost(grant, reason, backend=SCHEME)

    @_driver_call
    def release(self, ends: float, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Free each slot that still has its grant."""
        answers: list[Released | NarrowboatError] = []
        for grant, answer in zip(grants, self._change(grants, ends, self._free, "releasing locks"), strict=True):
            if isinstance(answer, NarrowboatError):
                answers.append(answer)
                continue
            freed = bool(answer and answer[0].get("[applied]"))
            answers.append(Released.RELEASED if freed else Released.NOT_HELD)
            self._owners.forget(grant.owner)
        return answers

    def _free(self, grant: Grant, slot: int) -> Do:
        return self._steps.free(grant.name, slot, Held.of(grant, grant.token).pack())

    def _change(self, grants: Sequence[Grant], ends: float, make: Callable[[Grant, int], Do], doing: str) -> list[Answer]:
        """Do one step for each grant, in its slot. A grant that has none any more has an empty answer."""
        answers: dict[int, Answer] = {}
        unknown = [number for number, grant in enumerate(grants) if self._owners.place(grant.owner) is None]
        if unknown:
            looks = [self._steps.look(grants[number].name) for number in unknown]
            for number, answer in zip(unknown, self._session.run(looks, ends, doing=doing), strict=True):
                slot = None if isinstance(answer, NarrowboatError) else slot_for(grants[number], _state(answer))
                if slot is None:
                    answers[number] = answer if isinstance(answer, NarrowboatError) else []
                else:
                    self._owners.granted(grants[number].owner, slot, self._clock())
        steps: dict[int, Do] = {}
        for number, grant in enumerate(grants):
            place = self._owners.place(grant.owner)
            if number not in answers and place is not None:
                steps[number] = make(grant, place.slot)
        answers |= zip(steps, self._session.run(list(steps.values()), ends, doing=doing), strict=True)
        return [answers.get(number, []) for number in range(len(grants))]

    @_driver_call
    def withdraw(self, ends: float, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        """Raise the version, and free the owner's slot with it: whatever is still under way is refused from then on."""
        answers: dict[int, NarrowboatError | None] = {}
        left = {number for number, request in enumerate(requests) if self._owners.may_hold(request.owner)}
        for _ in range(ROUNDS):
            if not left:
                break
            left = self._withdraw(requests, sorted(left), ends, answers)
        for number in left:
            text = f"lock {requests[number].name!r}: it changed {ROUNDS} times while an owner left. It may be repeated."
            answers[number] = Unavailable(text, backend=SCHEME)
        self._unwant([each for number, each in enumerate(requests) if answers.get(number) is None], ends)
        return [answers.get(number) for number in range(len(requests))]

    def _withdraw(
        self, requests: Sequence[Request], numbers: Sequence[int], ends: float, answers: dict[int, NarrowboatError | None]
    ) -> set[int]:
        """Look at the rows and raise their versions. Returns the numbers of those that have changed in between."""
        looks = [self._steps.look(requests[number].name) for number in numbers]
        steps: dict[int, Do] = {}
        for number, seen in zip(numbers, self._session.run(looks, ends, doing="withdrawing"), strict=True):
            if isinstance(seen, NarrowboatError):
                answers[number] = seen
            elif (step := self._steps.withdraw(requests[number], _state(seen))) is not None:
                steps[number] = step
        left = set()
        for number, done in zip(steps, self._session.run(list(steps.values()), ends, doing="withdrawing"), strict=True):
            if isinstance(done, NarrowboatError):
                answers[number] = done
            elif not (done and done[0].get("[applied]")):
                left.add(number)
        return left

    def _unwant(self, requests: Sequence[Request], ends: float) -> None:
        """Forget the owners, and let others share again at once. Where that fails, the mark ends by itself."""
        marks = [self._steps.unwant(each) for each in requests if self._owners.announced(each.owner) is not None]
        for request in requests:
            self._owners.forget(request.owner)
        if marks:
            self._session.run(marks, ends, doing="withdrawing")

    # -- for people -----------------------------------------------------------------------------------------------

    @_driver_call
    def holders(self, ends: float, name: str | None) -> list[Holder]:
        """The holders, and what is foreign. Without a name every row of the table is read, of all namespaces."""
        rows = _raised(self._session.run([self._steps.show(name)], ends, doing="listing the holders")[0])
        return sorted((each for row in rows for each in holders(row)), key=lambda holder: (holder.name, holder.token))

    @_driver_call
    def evict(self, ends: float, name: str, token: int) -> bool:
        """Break exactly that generation, or remove exactly that foreign entry."""
        doing = f"evicting from the lock {name!r}"
        seen = _raised(self._session.run([self._steps.look(name)], ends, doing=doing)[0])
        step = self._steps.evict(name, token, _state(seen))
        if step is None:
            return False
        (done,) = _raised(self._session.run([step], ends, doing=doing)[0])
        return bool(done["[applied]"])

    @_driver_call
    def ping(self, ends: float) -> None:
        """Look at a row that is not there, by the agreement of its replicas: it fails where a lock would."""
        _raised(self._session.run([self._steps.look("")], ends, doing="answering a ping")[0])

    def close(self) -> None:
        """End the connections. What is held stays until its lease ends."""
        self._closed = True
        self._session.close()


def _state(answer: list[dict[str, Any]]) -> State:
    return State.of(answer[0] if answer else None)


def _raised(answer: Answer) -> list[dict[str, Any]]:
    if isinstance(answer, NarrowboatError):
        raise answer
    return answer


#: What is claimed by the durability that the URL asks for, and the nodes have.
SURVIVES = {Durability.MEMORY: Survives.NOTHING, Durability.DISK: Survives.POWER}


def _capabilities(url: Url, options: Options) -> LockCapabilities:
    Ring.of(url, options)  # refuses a URL that makes no sense, before anything is opened
    return LockCapabilities(
        scope=Scope.NETWORK,
        expiry=Expiry.LEASE,
        survives=SURVIVES[options.durability],
        fencing=Support.EMULATED,
        fencing_survives=SURVIVES[options.durability],
        order=WaitOrder.ANY,
        wake=WakeUp.POLLED,
        shared=Support.EMULATED,
        semaphore=Support.EMULATED,
        holders=Support.NATIVE,
        evict=Support.NATIVE,
        at_least=Support.NATIVE,
        concurrency=Concurrency.MULTIPLEXED,
        ttl_min=1.0 + 2 * options.max_skew,
        margin=options.max_skew,
        expiry_lag=ROUNDING + options.poll + SLOW,
        wake_bound=options.poll + SLOW,
        dead_waiter_bound=WRITER + 1 + options.poll + SLOW,
    )


def _open(url: Url, options: Options, context: Context) -> LockProvider:
    return CassandraLocks(Ring.of(url, options), context, _capabilities(url, options))


def _prepare(url: Url, options: Options) -> Url:
    import narrowboat_cassandra.session  # noqa: F401  # what `open` imports, and too late once the main thread has ended

    return url


locks = LockBackend(
    scheme=SCHEME,
    summary="one row a name, lightweight transactions, waiters that look again",
    example="cassandra://user:password@localhost:9042/shop",
    options=Options,
    capabilities=_capabilities,
    open=_open,
    prepare=_prepare,
    extra="cassandra",
)
