"""Simulated runs of the withdraw race are replayed on the memory backend, step by step: the code does what the model says.

The runs are stored in `tests/models`, as Quint writes them (ITF), and need no Quint; `python -m tools.models --trace SEED FILE`
makes another one. A layer in front of the driver lets an exchange act, answer or fail when the model does, so that the lanes'
real threads take the model's order. After each step the backend, the lanes and the tasks are compared with the model's state.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import narrowboat
from narrowboat._engine.exchange import QUEUED
from narrowboat._locks.late_withdrawals import LateWithdrawal
from narrowboat.aio.locking import Held
from narrowboat.clock import ManualClock
from narrowboat.contract.locks import Grant, LockProvider, Released, Request
from narrowboat.errors import Unavailable
from narrowboat.layers.passing import PassingLocks
from narrowboat_memory.names import LockSpace
from narrowboat_memory.space import space

TRACES = sorted((Path(__file__).parent / "models").glob("withdraw-*.itf.json"))
#: Seconds within which the code must come to what the model says; far more than it needs.
BOUND = 60.0


class Gate:
    """Where a lane's thread stands until the test lets it go on."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._words: list[str] = []
        self.standing: Sequence[str] = ()  #: who stands there

    def stop(self, who: Sequence[str]) -> str:
        """Stand there; the word with which it goes on."""
        with self._changed:
            self.standing = who
            if not self._changed.wait_for(lambda: self._words, BOUND):
                return "go"
            self.standing = ()
            return self._words.pop(0)

    def let(self, word: str) -> None:
        """Let whoever stands there go on, or whoever comes next."""
        with self._changed:
            self._words.append(word)
            self._changed.notify_all()


class Gated(PassingLocks):
    """The driver, which acts and answers when it is let."""

    def __init__(self, driver: LockProvider) -> None:
        super().__init__(driver)
        self.acting, self.answering, self.undoing = Gate(), Gate(), Gate()
        self.owners: dict[str, str] = {}  #: the model's name of each owner
        self.rest: list[str] = []  #: of the withdraws or releases that are under way

    def attempt(self, requests: Sequence[Request]) -> Any:
        self.owners.update({request.owner: request.label for request in requests})
        batch = [request.label for request in requests]
        self.acting.stop(batch)
        answers = super().attempt(requests)
        lost = self.answering.stop(batch) == "lose"
        return [Unavailable("the answer was lost") for _ in requests] if lost else answers

    def withdraw(self, requests: Sequence[Request]) -> Any:
        return self._undo(requests, super().withdraw)

    def release(self, grants: Sequence[Grant]) -> list[Released | Any]:
        return self._undo(grants, super().release)

    def named(self, item: Request | LateWithdrawal | Grant) -> str:
        """The model's name of its owner."""
        request = item.request if isinstance(item, LateWithdrawal) else item
        return request.label if isinstance(request, Request) else self.owners[request.owner]

    def _undo(self, items: Sequence[Any], undo: Callable[[Sequence[Any]], Sequence[Any]]) -> list[Any]:
        answers: list[Any] = []
        for index, item in enumerate(items):
            self.rest = [self.named(each) for each in items[index:]]
            refused = self.undoing.stop(self.rest) == "refuse"
            answers += [Unavailable("it did not arrive")] if refused else undo([item])
        self.rest = []
        return answers


def plain(value: Any) -> Any:
    """A value of ITF as one of Python."""
    match value:
        case {"#map": pairs}:
            return {plain(key): plain(each) for key, each in pairs}
        case {"#set": items}:
            return {plain(each) for each in items}
        case {"#bigint": digits}:
            return int(digits)
        case dict():
            return {key: plain(each) for key, each in value.items() if not key.startswith("#")}
        case list():
            return [plain(each) for each in value]
    return value


class Replay:
    """The tasks, the driver and the clock of one trace."""

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        self.clock = ManualClock()
        self.gated: Gated | None = None
        self.locks = narrowboat.aio.locks(f"memory://{self.name}", clock=self.clock, random=lambda: 0.0, wrap=self._wrap)
        self.tasks: dict[str, asyncio.Task[Held]] = {}
        self.releases: dict[str, asyncio.Task[None]] = {}

    def _wrap(self, driver: LockProvider) -> LockProvider:
        self.gated = Gated(driver)
        return self.gated

    def act(self, act: str, owner: str, state: dict[str, Any]) -> None:
        """Do what the model has done; what comes of it is waited for afterwards."""
        if act == "start":
            self.tasks[owner] = asyncio.create_task(self.locks.lock("name", ttl=86400, label=owner).acquire())
            return
        assert self.gated is not None
        match act:
            case "leave":
                self.tasks[owner].cancel()
            case "apply":
                self.gated.acting.let("go")
            case "return" | "lose":
                self.gated.answering.let(act)
            case "undo":
                self.gated.undoing.let("go")
            case "refuse":
                self.gated.undoing.let("refuse")
            case "clock":
                self.clock.advance(0.3)
            case "release":
                self.releases[owner] = asyncio.create_task(self.tasks[owner].result().release())

    def seen(self) -> dict[str, Any]:
        """The state of the code, as the model names it."""
        gated, core = self.gated, self.locks._core
        entry = space(LockSpace, self.name, "").names.get("name")
        owners = {} if gated is None else gated.owners
        acting = [] if gated is None else list(gated.acting.standing)
        answering = [] if gated is None else list(gated.answering.standing)
        queued = [call for call in list(core.releases._waiting) if call.state == QUEUED]
        rest = [] if gated is None else list(gated.undoing.standing and gated.rest)
        late = {each.request.label for each in list(core.renewal.late._by_owner.values())}
        return {
            "holder": next((owners[owner] for owner in list(entry.holders)), "") if entry else "",
            "waiters": [owners[owner] for owner in list(entry.waiters)] if entry else [],
            "batch": acting or answering,
            "answered": bool(answering),
            "queue": [call.items[0].label for call in list(core.claims._waiting) if call.state == QUEUED],
            "undoing": [*rest, *(gated.named(item) for call in queued for item in call.items if gated)],
            "late": late,
            "held": {o for o, task in self.tasks.items() if self._holds(task) and o not in self.releases},
            "gone": {o for o, task in self.tasks.items() if self._gone(o, task)},
        }

    @staticmethod
    def _holds(task: asyncio.Task[Held]) -> bool:
        return task.done() and not task.cancelled()

    def _gone(self, owner: str, task: asyncio.Task[Held]) -> bool:
        release = self.releases.get(owner)
        return (release is not None and release.done()) or task.cancelled()

    async def agree(self, step: int, act: str, state: dict[str, Any], *, first: bool) -> None:
        """Wait until the code is where the model is; fails when it does not come there."""
        gone = {o for o, each in state["state"].items() if each in {"gone", "leaving"}}
        want = {
            **{each: state[each] for each in ("holder", "waiters", "batch", "queue", "undoing", "late")},
            "answered": bool(state["answers"]),
            "held": {o for o, each in state["state"].items() if each == "held"},
            "gone": gone,
        }
        ends = time.monotonic() + BOUND
        if first:  # what has gathered is taken before anybody comes back: the loop stands still meanwhile
            while self.seen()["batch"] != want["batch"] and time.monotonic() < ends:
                time.sleep(0.001)
        while (seen := self.seen()) != want:
            assert time.monotonic() < ends, f"step {step}, {act}: the model says {want}, the code is at {seen}"
            await asyncio.sleep(0.001)

    def open_all(self) -> None:
        """Let everything run to its end."""
        assert self.gated is not None
        for gate in (self.gated.acting, self.gated.answering, self.gated.undoing):
            for _ in range(1000):
                gate.let("go")


async def replay(states: list[dict[str, Any]]) -> None:
    """The trace, step by step; then everything is let go, and nothing is left."""
    it = Replay()
    await it.locks.ping()  # opens the driver
    try:
        for step, (before, state) in enumerate(itertools.pairwise(states), 1):
            act, owner = state["last"]["act"], state["last"]["owner"]
            it.act(act, owner, state)
            gathered = act in {"return", "lose"} and bool(before["queue"])
            await it.agree(step, act, state, first=gathered)
    finally:
        it.open_all()
        for task in it.tasks.values():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            for task in it.tasks.values():
                if not task.done():
                    await asyncio.gather(task, return_exceptions=True)
        await it.locks.close()


def test_there_are_traces() -> None:
    """Together they have each step of the model."""
    acts = {state["last"]["act"] for path in TRACES for state in plain(json.loads(path.read_text()))["states"]}
    assert acts >= {"start", "leave", "apply", "return", "lose", "undo", "refuse", "clock", "release"}


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.name)
def test_the_code_takes_the_steps_of_the_model(path: Path) -> None:
    """After each step the backend, the lanes and the callers are where the model says."""
    states = plain(json.loads(path.read_text()))["states"]
    assert len(states) > 10
    asyncio.run(replay(states))
