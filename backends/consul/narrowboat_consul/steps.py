"""What to do next about one lock, given its state: decisions without I/O.

A step is a few operations of one transaction, which Consul carries out all or not at all. The operations check the state on
which the decision was made. If it has changed meanwhile, Consul refuses the step, and it is decided anew.

A session does not exclude itself: a `lock` on a key that another owner of the same process has locked succeeds and overwrites
it. Hence the `check-not-exists` before each `lock`. Hence also `check-index` with `delete` in place of `unlock`, which would
free the present holder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from narrowboat.contract.locks import Grant, Mode, Request
from narrowboat.driver.admission import admitted, conflict, disagree
from narrowboat_consul.entries import FLAGS, Entry, Record, State
from narrowboat_consul.keys import Keys

Operation = dict[str, Any]


class Won(NamedTuple):
    """The owner holds the lock already, by an earlier attempt."""

    token: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Others hold the lock. `announce` (empty: nothing): the operations that keep new owners from sharing it."""

    index: int
    announce: list[Operation]


class Refuse(NamedTuple):
    """The lock cannot be had in this mode or size. The text says why."""

    text: str


class Do(NamedTuple):
    """Send these operations. `key` is the entry that has the token afterwards."""

    operations: list[Operation]
    key: str


def operation(verb: str, key: str, **rest: Any) -> Operation:
    """One member of a transaction."""
    return {"KV": {"Verb": verb, "Key": key, **rest}}


def take(request: Request, keys: Keys, state: State, session: str, now: float) -> Won | Wait | Refuse | Do:
    """The step by which `request` takes the lock. `session`: ours. `now`: seconds since the epoch, for the record."""
    exclusive = request.mode is Mode.EXCLUSIVE
    mine = state.lock if exclusive else state.held.get(request.owner)
    if mine is not None and mine.record is not None and mine.record.owner == request.owner and mine.session == session:
        return Won(mine.index)
    if state.lock is not None and state.lock.record is None:
        return Refuse(
            f"lock {request.name!r}: the key {keys.lock} stands in the way. It was not written by Narrowboat, or was damaged. "
            f"Look at it with holders(), remove it with evict({request.name!r}, {state.lock.index}), or take another root."
        )
    holder = state.lock.record if state.lock else None
    sharers = state.sharers
    held = len(sharers) if state.sharing else int(holder is not None)
    if holder is not None and held and disagree(request.mode, request.limit, holder.mode, holder.limit):
        return Refuse(conflict(request.name, request.mode, request.limit, holder.mode, holder.limit))
    writer_ahead = any(owner != request.owner for owner in state.wants)
    holding = holder.mode if holder and held else None
    if not admitted(request.mode, request.limit, holding=holding, held=held, ahead=0, writer_ahead=writer_ahead):
        announce = exclusive and request.wait and bool(sharers) and request.owner not in state.wants
        return Wait(state.index, _announce(request, keys, session, now) if announce else [])
    return _take_exclusive(request, keys, state, session, now) if exclusive else _share(request, keys, state, session, now)


def _take_exclusive(request: Request, keys: Keys, state: State, session: str, now: float) -> Do:
    operations = [] if state.lock is None else [_delete_if(state.lock)]  # the record of sharers that are all gone
    operations.append(operation("check-not-exists", keys.lock))
    operations.append(_lock(keys.lock, Record.of(request, now), session))
    operations += [_delete_if(entry) for owner, entry in state.wants.items() if owner == request.owner]
    return Do(operations, keys.lock)


def _share(request: Request, keys: Keys, state: State, session: str, now: float) -> Do:
    record = Record.of(request, now, (*state.sharers, request.owner))
    key = keys.held(request.owner)
    index = state.lock.index if state.lock else 0
    return Do(
        [
            operation("cas", keys.lock, Index=index, Value=record.pack(), Flags=FLAGS),
            operation("check-not-exists", key),
            _lock(key, Record.of(request, now), session),
        ],
        key,
    )


def _announce(request: Request, keys: Keys, session: str, now: float) -> list[Operation]:
    key = keys.wants(request.owner)
    return [operation("check-not-exists", key), _lock(key, Record.of(request, now), session)]


def free(owner: str, token: int | None, state: State) -> list[Operation]:
    """The operations by which `owner` leaves: its lock (only the generation `token`, if given), and its announcement.

    Empty: it has no entry.
    """
    operations: list[Operation] = []
    lock = state.lock
    if lock is not None and lock.record is not None and lock.session is not None and lock.record.owner == owner:
        operations += _remove(lock) if token in (None, lock.index) else []
    held = state.held.get(owner)
    if held is not None and token in (None, held.index):
        operations += _remove(held) + _leave(state, owner)
    if token is None and owner in state.wants:
        operations += _remove(state.wants[owner])
    return operations


def free_now(key: str, token: int) -> list[Operation]:
    """The operations by which an exclusive holder leaves, without a look before: exactly its generation, or nothing."""
    return [operation("check-index", key, Index=token), operation("delete", key)]


def still_there(keys: Keys, grant: Grant) -> Operation:
    """The check that a grant's entry is still the generation that it was."""
    key = keys.lock if grant.mode is Mode.EXCLUSIVE else keys.held(grant.owner)
    return operation("check-index", key, Index=grant.token)


def _leave(state: State, owner: str) -> list[Operation]:
    """Take `owner` out of the record of those who share it; the last one takes the record along."""
    lock, sharing = state.lock, state.sharing
    if lock is None or sharing is None:
        return []
    rest = tuple(sharer for sharer in state.sharers if sharer != owner)
    if not rest:
        return [_delete_if(lock)]
    record = sharing._replace(owners=rest)
    return [operation("cas", lock.key, Index=lock.index, Value=record.pack(), Flags=FLAGS)]


def _remove(entry: Entry) -> list[Operation]:
    return free_now(entry.key, entry.index)


def _delete_if(entry: Entry) -> Operation:
    return operation("delete-cas", entry.key, Index=entry.index)


def _lock(key: str, record: Record, session: str) -> Operation:
    return operation("lock", key, Value=record.pack(), Flags=FLAGS, Session=session)
