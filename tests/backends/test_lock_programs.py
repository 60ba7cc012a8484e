"""Any program of lock calls gets the same answers from SQLite as from memory, and whoever can go has been told so.

The reference is `memory://`: small enough to be checked by reading. What the two share by importing it is checked against
the rules elsewhere (`tests/test_admission.py`); here it is what each keeps by itself, and in what order it does so.
"""

from __future__ import annotations

import itertools
import tempfile
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker_calls import open_driver
from lock_rules import Bell, request
from narrowboat.clock import ManualClock
from narrowboat.contract.locks import Busy, Grant, LockProvider, Mode, Request
from narrowboat.errors import Reason
from narrowboat_memory.locks import locks as memory
from narrowboat_sqlite.locks import locks as sqlite
from programs import AGREEMENT, draw_steps

_spaces = itertools.count(1)

#: Exclusive and shared go together; the semaphore is on a name of its own but for now and then, when it is refused.
_KINDS = [
    ("door", Mode.EXCLUSIVE, None),
    ("door", Mode.EXCLUSIVE, None),
    ("door", Mode.SHARED, None),
    ("door", Mode.SHARED, None),
    ("pool", Mode.SEMAPHORE, 2),
    ("pool", Mode.SEMAPHORE, 2),
    ("pool", Mode.SEMAPHORE, 3),
    ("door", Mode.SEMAPHORE, 2),
]
_pick = st.integers(0, 7)
_STEPS = {
    "ask": (6, st.tuples(st.just("ask"), st.sampled_from(_KINDS), st.sampled_from([2.0, 3.0, 20.0]), st.booleans())),
    "ask_again": (3, st.tuples(st.just("ask_again"), _pick)),
    "renew": (2, st.tuples(st.just("renew"), _pick)),
    "release": (5, st.tuples(st.just("release"), _pick)),
    "withdraw": (3, st.tuples(st.just("withdraw"), _pick)),
    "evict": (1, st.tuples(st.just("evict"), _pick)),
    "look": (1, st.tuples(st.just("look"), st.sampled_from(["door", "pool", None]))),
    "advance": (3, st.tuples(st.just("advance"), st.sampled_from([0.5, 1.0, 1.9]))),
}


@st.composite
def _programs(draw: st.DrawFn) -> list[Any]:
    return draw_steps(draw, _STEPS, 20, 60)


class _Asked:
    """One owner on one side, from its first attempt to its end."""

    def __init__(self, wish: Request, bell: Bell) -> None:
        self.wish = wish
        self.bell = bell
        self.grant: Any = None  # a Grant once it has it
        self.waits_since: float | None = None  #: when it last found it busy
        self.patience = 0.0


class _Side:
    """One backend under a program, and what can be compared of its answers. Tokens are its own."""

    def __init__(self, provider: LockProvider, clock: ManualClock) -> None:
        self.provider = provider
        self.clock = clock
        self.asked: dict[int, _Asked] = {}  #: by number: who holds or waits, as far as its caller knows
        self.tokens: dict[str, int] = {}

    def run(self, step: tuple[Any, ...]) -> Any:
        return getattr(self, step[0])(*step[1:])

    def ask(self, number: int, kind: tuple[str, Mode, int | None], ttl: float, wait: bool) -> Any:
        name, mode, limit = kind
        bell = Bell()
        wish = request(name, ttl=ttl, mode=mode, limit=limit, wait=wait, owner=f"{number:032x}", wake=bell, label=f"n{number}")
        self.asked[number] = _Asked(wish, bell)
        return self._attempt(number)

    def ask_again(self, pick: int) -> Any:
        return self._attempt(self._chosen(pick)) if self.asked else None

    def _attempt(self, number: int) -> Any:
        asked = self.asked[number]
        told = asked.bell.wait(0)
        (answer,) = self.provider.attempt([asked.wish])
        if isinstance(answer, Grant):
            if asked.waits_since is not None:
                in_time = asked.waits_since + asked.patience <= self.clock()
                assert told or in_time, f"{number} could go, and was not told"
            if asked.grant is None:
                name = asked.wish.name
                assert answer.token > self.tokens.get(name, 0), "the fencing token did not grow"
                self.tokens[name] = answer.token
            asked.grant, asked.waits_since = answer, None
            return "granted", answer.ttl, answer.mode, answer.limit
        if isinstance(answer, Busy) and asked.wish.wait:
            # Whoever held it until it was evicted stands in line now: forgotten as a holder, it would wait there for ever.
            asked.grant, asked.waits_since, asked.patience = None, self.clock(), answer.retry_after
        else:
            del self.asked[number]
        return type(answer).__name__

    def _chosen(self, pick: int) -> int:
        return list(self.asked)[pick % len(self.asked)]

    def _held(self) -> list[int]:
        return [number for number, asked in self.asked.items() if asked.grant is not None]

    def renew(self, pick: int) -> object:
        """What is lost is forgotten, as the core does. What ran out may be gone already."""
        if not (held := self._held()):
            return None
        number = held[pick % len(held)]
        (answer,) = self.provider.renew([self.asked[number].grant])
        if not isinstance(answer, Grant):
            del self.asked[number]
        return type(answer).__name__, getattr(answer, "reason", None) is Reason.EVICTED

    def release(self, pick: int) -> object:
        held = self._held()
        return self.provider.release([self.asked.pop(held[pick % len(held)]).grant]) if held else None

    def withdraw(self, pick: int) -> object:
        return self.provider.withdraw([self.asked.pop(self._chosen(pick)).wish]) if self.asked else None

    def evict(self, pick: int) -> object:
        if not (held := self._held()):
            return None
        grant = self.asked[held[pick % len(held)]].grant
        return self.provider.evict(grant.name, grant.token)

    def look(self, name: str | None) -> list[Any]:
        found = self.provider.holders(name)
        return [
            (h.name, h.label, h.mode, h.limit, h.expires_in is not None and round(h.expires_in, 3), h.waiters) for h in found
        ]

    def advance(self, seconds: float) -> list[Any]:
        """Time has passed; whoever waits looks again, as the core sees to, or it would be taken for dead."""
        return [self._attempt(number) for number in list(self.asked) if self.asked[number].waits_since is not None]


@AGREEMENT
@given(program=_programs())
def test_any_program_gives_the_same_answers_as_in_memory(program: list[Any]) -> None:
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as folder:
        reference = _Side(open_driver(memory, f"memory://programs{next(_spaces)}", clock), clock)
        other = _Side(open_driver(sqlite, f"sqlite:///{folder}/locks.db?durability=normal", clock), clock)
        try:
            for number, step in enumerate(program):
                if step[0] == "advance":
                    clock.advance(step[1])
                if step[0] == "ask":
                    step = ("ask", number, *step[1:])
                assert other.run(step) == reference.run(step), (number, step)
            for side in (other, reference):
                while side.asked:
                    side.withdraw(0)
            for side in (other, reference):
                assert side.look(None) == []
        finally:
            other.provider.close()
            reference.provider.close()
