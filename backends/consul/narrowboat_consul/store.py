"""Transactions on the key-value store: many steps in few exchanges, with an outcome for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from narrowboat.errors import NarrowboatError
from narrowboat_consul.entries import Entry, State, read
from narrowboat_consul.errors import nonsense, refused
from narrowboat_consul.keys import Keys
from narrowboat_consul.replies import entries, filtered, refusals
from narrowboat_consul.steps import Operation, operation
from narrowboat_consul.transport import Response, Transport

T = TypeVar("T")

#: The members of one transaction that Consul accepts.
LIMIT = 128


class Refused(NamedTuple):
    """A step that was not carried out, because the state has changed, or for the reason in `text`."""

    text: str

    @property
    def delayed(self) -> bool:
        """Whether the lock is free and Consul's lock-delay runs."""
        return "lock delay" in self.text or "lock-delay" in self.text


#: The outcome of a step: the indexes of the entries that it wrote, by key; refused; or an error of its own.
Outcome = dict[str, int] | Refused | NarrowboatError


class Store:
    """The key-value store of one agent's datacenter, through one transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def carry_out(self, steps: Sequence[list[Operation]]) -> list[Outcome]:
        """Carry out the steps. Returns the outcome of each.

        A transaction is all or nothing, so the refused steps are taken out and the rest is sent again.
        """
        answers: list[Outcome] = [Refused("")] * len(steps)
        for batch in _batches(steps):
            left = batch
            while left:
                reply = self._transport.transaction([member for number in left for member in steps[number]])
                if reply.code == 200:
                    written = {each["Key"]: each["ModifyIndex"] for each in self._sense(entries, reply.body)}
                    for number in left:
                        answers[number] = written
                    break
                if reply.code != 409:
                    raise refused(reply.code, reply.body, self._transport.agent)
                out = self._sense(_refused, reply, steps, left)
                for number, text in out.items():
                    denied = "denied" in text.lower()
                    answers[number] = refused(403, text, self._transport.agent) if denied else Refused(text)
                left = [number for number in left if number not in out]
        return answers

    def look(self, folders: Sequence[Keys]) -> list[State]:
        """The present state of each lock, as the leader and a majority know it."""
        states: list[State] = []
        for start in range(0, len(folders), LIMIT):
            part = folders[start : start + LIMIT]
            found = self._entries([operation("get-tree", keys.folder) for keys in part])
            states += [read(found, keys) for keys in part]
        return states

    def all_under(self, folder: str) -> list[Entry]:
        """Every entry under `folder`."""
        return self._entries([operation("get-tree", folder)])

    def ping(self, folder: str) -> None:
        """See that keys under `folder` may be written. Nothing is: Consul checks the right to write for `check-not-exists`."""
        reply = self._transport.transaction([operation("check-not-exists", f"{folder}ping")], reading=True)
        if reply.code != 200:
            raise refused(reply.code, reply.body, self._transport.agent)

    def _entries(self, operations: list[Operation]) -> list[Entry]:
        reply = self._transport.transaction(operations, reading=True)
        if reply.code != 200:
            raise refused(reply.code, reply.body, self._transport.agent)
        if filtered(reply.body):  # otherwise what may not be read would look as if it were not there
            raise refused(403, "what was read is not all there is: key:read is missing", self._transport.agent)
        return [Entry.of(each) for each in self._sense(entries, reply.body)]

    def _sense(self, take: Callable[..., T], *arguments: Any) -> T:
        """The reply, parsed by `take`; `Unavailable` where it cannot be parsed."""
        try:
            return take(*arguments)
        except ValueError as error:
            raise nonsense(self._transport.agent, str(error)) from error


def _batches(steps: Sequence[list[Operation]]) -> Iterable[list[int]]:
    """The steps' numbers in batches of up to `LIMIT` members; no step is cut."""
    batch: list[int] = []
    size = 0
    for number, step in enumerate(steps):
        if batch and size + len(step) > LIMIT:
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += len(step)
    if batch:
        yield batch


def _refused(reply: Response, steps: Sequence[list[Operation]], batch: list[int]) -> dict[int, str]:
    """Which steps of `batch` were refused, and the text about the first refused member of each."""
    owners = [number for number in batch for _ in steps[number]]
    out: dict[int, str] = {}
    for index, what in refusals(reply.body, len(owners)):
        out.setdefault(owners[index], what)
    # Should a version name no member, nobody could be taken out and this would never end: then all are.
    return out or dict.fromkeys(batch, "refused")
