"""Locks in Consul's key-value store, held by one session for each provider: their claims, and how they are taken and freed.

Taking free locks costs one exchange for the whole batch: a transaction that checks that each key does not exist, and locks it
with our session and the owner's id in its value. Refused locks are looked at in one read. It tells whether a lock is ours
already (a lost reply), is free after all, or has to be waited for. The token is the ModifyIndex of the entry: Consul numbers
all its transactions, and an entry never changes within a generation.

An owner in doubt may still leave an entry behind. Each renewal of the session looks for such entries and removes them.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Concatenate, ParamSpec, TypeVar

from narrowboat.capabilities import Expiry, LockCapabilities, Scope, Support, Survives, WaitOrder, WakeUp
from narrowboat.contract.backend import Context, LockBackend
from narrowboat.contract.locks import Busy, Grant, Holder, LockProvider, Mode, Released, Request
from narrowboat.driver.admission import lost
from narrowboat.dsn import Url
from narrowboat.errors import Closed, Conflict, LeaseLost, NarrowboatError, Reason, Unavailable
from narrowboat_consul import steps
from narrowboat_consul.entries import State
from narrowboat_consul.errors import no_room, nonsense
from narrowboat_consul.keys import Keys, Space
from narrowboat_consul.options import SCHEME, Agent, Options
from narrowboat_consul.owners import Owners
from narrowboat_consul.session import SLACK, Session
from narrowboat_consul.store import Refused, Store
from narrowboat_consul.transport import Limit, Silence, Transport
from narrowboat_consul.watcher import Watcher

#: How often a refused step is decided anew within one call. Each refusal means that another contender made progress.
ROUNDS = 10
#: How long an owner in doubt is looked for, in ttls of the session.
DOUBT = 2.0
#: Seconds until a waiter looks again by itself. A lost query delays it by this.
LOOK_AGAIN = 3.0
#: Seconds until it looks again where nothing will wake it: Consul's lock-delay runs, or there is no thread to watch with.
DELAYED = 0.25
#: Seconds by which Consul may be late beyond twice the session's ttl: its timers, the write of the end, the wake-up.
LATE = 2.0


P = ParamSpec("P")
T = TypeVar("T")


def _driver_call(method: Callable[Concatenate[ConsulLocks, P], T]) -> Callable[Concatenate[ConsulLocks, P], T]:
    """Refused after `close`; all exchanges of one call share one operation timeout."""

    @functools.wraps(method)
    def call(self: ConsulLocks, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:
            raise Closed("the provider is closed", backend=SCHEME)
        with self._limit.call():
            return method(self, *args, **kwargs)

    return call


class ConsulLocks(LockProvider):
    """One session, its connections, and one thread for the waiters."""

    def __init__(self, agent: Agent, context: Context, capabilities: LockCapabilities) -> None:
        self.capabilities = capabilities
        self._agent = agent
        self._clock = context.clock
        self._limit = Limit(context.timeout, Silence())
        self._session = Session(agent, self._limit, context.clock, context.doubt)
        self._transport = Transport(agent, self._limit)
        self._store = Store(self._transport)
        self._space = Space(agent.root, agent.options.prefix)
        self._watcher = Watcher(self._transport, time.monotonic)
        self._owners = Owners(context.timeout, DOUBT * agent.options.session_ttl)
        self._closed = False

    @property
    def session_id(self) -> str | None:
        """The present session's id in Consul, for people and their tools; None before the first lock."""
        return self._session.id

    # -- taking ---------------------------------------------------------------------------------------------------

    @_driver_call
    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        """Take the names, or queue for them: the whole batch in one transaction and at most a few more."""
        session = self._session.fresh()
        self._owners.asked(requests)
        answers: dict[int, Grant | Busy | NarrowboatError] = {}
        left = dict(enumerate(requests))
        keys = {number: self._space.of(request.name) for number, request in left.items()}
        # Hoping for the best, a free lock is taken without a look; but who has announced itself has an entry to take along.
        states = dict.fromkeys(left, State())
        known = [number for number, request in left.items() if self._owners.has_announced(request.owner)]
        states |= dict(zip(known, self._look([left[number] for number in known]), strict=True))
        for _ in range(ROUNDS):
            todo: dict[int, steps.Do | steps.Wait] = {}
            for number, request in left.items():
                decided = steps.take(request, keys[number], states[number], session, time.time())
                if isinstance(decided, steps.Won):
                    answers[number] = self._granted(request, decided.token, session)
                elif isinstance(decided, steps.Refuse):
                    answers[number] = Conflict(decided.text, backend=SCHEME)
                elif isinstance(decided, steps.Wait) and not decided.announce:
                    answers[number] = self._busy(request, keys[number], decided.index)
                else:
                    todo[number] = decided
            left = self._carry_out(todo, left, keys, session, answers)
            if not left:
                break
            states = dict(zip(left, self._look(list(left.values())), strict=True))
        for number, request in left.items():
            answers[number] = self._busy(request, keys[number], 0, DELAYED)
        return self._answered(requests, answers)

    def _look(self, requests: Sequence[Request]) -> list[State]:
        """The present state of each lock. Entries of withdrawn owners are removed first."""
        folders = [self._space.of(request.name) for request in requests]
        states = self._store.look(folders)
        doubts = self._owners.in_doubt()
        if not doubts:
            return states
        found = zip(requests, states, strict=True)
        left = [(request.name, owner) for request, state in found for owner in state.owners if owner in doubts]
        for name, owner in left:
            if self._free(name, owner, None) is True:
                self._owners.forget(owner)
        return self._store.look(folders) if left else states

    def _carry_out(
        self,
        todo: dict[int, steps.Do | steps.Wait],
        left: dict[int, Request],
        keys: dict[int, Keys],
        session: str,
        answers: dict[int, Grant | Busy | NarrowboatError],
    ) -> dict[int, Request]:
        """Send the decided steps. Returns the requests that have to be decided anew."""
        again: dict[int, Request] = {}
        sent = self._store.carry_out([_operations(step) for step in todo.values()])
        for (number, step), written in zip(todo.items(), sent, strict=True):
            request = left[number]
            if isinstance(written, NarrowboatError):
                answers[number] = written
            elif isinstance(written, Refused):
                if "invalid session" in written.text:
                    self._session.forget(session)
                    raise Unavailable("the session ended between two calls; repeated, the call makes a new one", backend=SCHEME)
                if written.delayed:
                    answers[number] = Busy(DELAYED)
                else:
                    again[number] = request
            elif isinstance(step, steps.Do):
                if step.key in written:
                    answers[number] = self._granted(request, written[step.key], session)
                else:
                    answers[number] = nonsense(self._agent, "a transaction that was done, without its result")
            else:
                self._owners.announce(request.owner)
                answers[number] = self._busy(request, keys[number], step.index)
        return again

    def _answered(
        self, requests: Sequence[Request], answers: dict[int, Grant | Busy | NarrowboatError]
    ) -> list[Grant | Busy | NarrowboatError]:
        result = [answers[number] for number in range(len(requests))]
        for request, answer in zip(requests, result, strict=True):
            if not isinstance(answer, Grant):
                self._owners.refused(request.owner)
            elif request.wait:
                self._watcher.disarm(request.name, request.owner)
        return result

    def _granted(self, request: Request, token: int, session: str) -> Grant:
        self._owners.granted(request.owner, session)
        return Grant(request.name, request.owner, token, float(self._agent.options.session_ttl), request.mode, request.limit)

    def _busy(self, request: Request, keys: Keys, index: int, look_again: float = LOOK_AGAIN) -> Busy:
        if request.wait and index and not self._watcher.arm(request.name, request.owner, keys, index, request.wake):
            return Busy(DELAYED)
        return Busy(look_again)

    # -- keeping --------------------------------------------------------------------------------------------------

    @_driver_call
    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Renew the session once for all, and check that each entry is still there: a renewal succeeds without it, too."""
        session = self._session.renew()
        own = [grant for grant in grants if session is not None and self._owners.session(grant.owner) == session]
        there = self._store.carry_out([[steps.still_there(self._space.of(grant.name), grant)] for grant in own])
        still = {grant.owner: answer for grant, answer in zip(own, there, strict=True)}
        self._remove_doubts()
        answers: list[Grant | NarrowboatError] = []
        for grant in grants:
            answer = still.get(grant.owner)
            if isinstance(answer, dict):
                answers.append(grant)
            elif isinstance(answer, NarrowboatError):
                answers.append(answer)
            else:
                answers.append(self._lost(grant, Reason.EVICTED if grant.owner in still else Reason.SESSION_ENDED))
        return answers

    def _lost(self, grant: Grant, reason: Reason) -> LeaseLost:
        self._owners.lost(grant.owner)
        return lost(grant, reason, backend=SCHEME)

    # -- leaving --------------------------------------------------------------------------------------------------

    @_driver_call
    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Delete exactly those generations: exclusive ones in one transaction, shared ones after a look."""
        answers: dict[int, Released | NarrowboatError] = {}
        alone = [number for number, grant in enumerate(grants) if grant.mode is Mode.EXCLUSIVE]
        freed = self._store.carry_out(
            [steps.free_now(self._space.of(grants[number].name).lock, grants[number].token) for number in alone]
        )
        for number, written in zip(alone, freed, strict=True):
            answers[number] = written if isinstance(written, NarrowboatError) else _released(isinstance(written, dict))
        for number, grant in enumerate(grants):
            if grant.mode is not Mode.EXCLUSIVE:
                answers[number] = _outcome(self._free(grant.name, grant.owner, grant.token))
            if not isinstance(answers[number], NarrowboatError):
                self._owners.forget(grant.owner)
        return [answers[number] for number in range(len(grants))]

    @_driver_call
    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        """Remove every entry of each owner. An owner whose attempt was refused has left none."""
        answers: list[NarrowboatError | None] = []
        for request in requests:
            self._watcher.disarm(request.name, request.owner)
        states = self._states(each.name for each in requests if self._owners.may_be_there(each.owner))
        for request in requests:
            state = states.get(request.name)
            if state is None or not self._owners.may_be_there(request.owner):
                answers.append(None)
                continue
            freed = request.owner in state.owners and self._free(request.name, request.owner, None, state)
            if isinstance(freed, NarrowboatError):
                answers.append(freed)
            elif freed or self._owners.session(request.owner) is not None:
                self._owners.forget(request.owner)
                answers.append(None)
            elif self._owners.doubt(request, self._clock()):  # an error makes the core withdraw it again in a moment
                text = f"lock {request.name!r}: an attempt was not answered and may be under way"
                answers.append(Unavailable(text, backend=SCHEME))
            else:
                answers.append(None)
        return answers

    def _states(self, names: Iterable[str]) -> dict[str, State]:
        """The present state of each lock, by name, in one read for many."""
        wanted = list(dict.fromkeys(names))
        return dict(zip(wanted, self._store.look([self._space.of(name) for name in wanted]), strict=True))

    def _free(self, name: str, owner: str, token: int | None, state: State | None = None) -> bool | NarrowboatError:
        """Remove the entries of `owner`. False: there were none. `state`: that of the lock, where it was read just now."""
        keys = self._space.of(name)
        for _ in range(ROUNDS):
            if state is None:
                (state,) = self._store.look([keys])
            operations = steps.free(owner, token, state)
            state = None
            if not operations:
                return False
            (written,) = self._store.carry_out([operations])
            if isinstance(written, NarrowboatError):
                return written
            if isinstance(written, dict):
                return True
        return Unavailable(
            f"lock {name!r}: those who share it changed {ROUNDS} times while one of them tried to leave. It may be repeated.",
            backend=SCHEME,
        )

    def _remove_doubts(self) -> None:
        """Remove entries of withdrawn owners that landed late: one read for all owners, which mostly finds nothing."""
        now = self._clock()
        doubts = self._owners.in_doubt()
        try:
            states = self._states(request.name for request, _ in doubts.values())
            owners = {name: state.owners for name, state in states.items()}
            for owner, (request, until) in doubts.items():
                there = owner in owners[request.name]
                if self._free(request.name, owner, None) is True if there else now >= until:
                    self._owners.forget(owner)
        except NarrowboatError:
            pass  # they are looked at again with the next renewal

    # -- for people -----------------------------------------------------------------------------------------------

    @_driver_call
    def holders(self, name: str | None) -> list[Holder]:
        """The holders. Only the session knows when a lock would end, and the number of waiters is unknown."""
        folder = self._space.folder if name is None else self._space.of(name).folder
        found = [entry.shown() for entry in self._store.all_under(folder)]
        return sorted((each for each in found if each is not None), key=lambda holder: (holder.name, holder.token))

    @_driver_call
    def evict(self, name: str, token: int) -> bool:
        """Break exactly that generation, or remove exactly that foreign entry."""
        state, *hashed = self._store.look(self._space.shown_as(name))
        for entry in [foreign for each in (state, *hashed) for foreign in each.foreign]:
            if entry.index == token:
                (written,) = self._store.carry_out([steps.free_now(entry.key, token)])
                return _raised(written if isinstance(written, NarrowboatError) else isinstance(written, dict))
        entries = [*state.held.values(), *([state.lock] if state.lock and state.lock.session else [])]
        for entry in entries:
            if entry.index == token and entry.record is not None:
                return _raised(self._free(name, entry.record.owner, token))
        return False

    @_driver_call
    def ping(self) -> None:
        """Ask the leader for a key that no lock has."""
        self._store.ping(self._space.folder)

    def close(self) -> None:
        """Destroy the session, and all its locks with it. Close the connections."""
        if self._closed:
            return
        self._closed = True
        self._watcher.close()
        with self._limit.call(0.25):  # the end of the session is a courtesy, and the core may have waited for a renewal before
            self._session.close()
        self._transport.close()


def _operations(step: steps.Do | steps.Wait) -> list[steps.Operation]:
    return step.operations if isinstance(step, steps.Do) else step.announce


def _released(there: bool) -> Released:
    return Released.RELEASED if there else Released.NOT_HELD


def _outcome(freed: bool | NarrowboatError) -> Released | NarrowboatError:
    return freed if isinstance(freed, NarrowboatError) else _released(freed)


def _raised(freed: bool | NarrowboatError) -> bool:
    if isinstance(freed, NarrowboatError):
        raise freed
    return freed


def _capabilities(url: Url, options: Options) -> LockCapabilities:
    Agent.of(url, options)  # refuses a URL that makes no sense, before anything is opened
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
        margin=SLACK,
        expiry_lag=LATE,
        dead_waiter_bound=bound + LATE,
    )


def _open(url: Url, options: Options, context: Context) -> LockProvider:
    agent = Agent.of(url, options)
    try:
        return ConsulLocks(agent, context, _capabilities(url, options))
    except (OSError, RuntimeError) as error:  # no descriptor for what wakes the thread
        raise no_room(agent, error) from error


locks = LockBackend(
    scheme=SCHEME,
    summary="one session for each provider, blocking queries, ModifyIndex as token",
    example="consul://:TOKEN@localhost:8500/shop",
    options=Options,
    capabilities=_capabilities,
    open=_open,
    extra="consul",
)
