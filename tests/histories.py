"""Histories for tests of the judge: written by hand, or made by a correct lock and a correct queue."""

from __future__ import annotations

import itertools
from typing import Any

from narrowboat.conformance.histories.journal import Event, in_order
from narrowboat.conformance.histories.trouble import Bounds

#: Small ones, so that a test's times are small numbers.
BOUNDS = Bounds(operation=1.0, ttl=4.0, expiry_lag=0.5, wake_bound=0.5, dead_waiter_bound=1.5, ordered=True)


class Story:
    """Writes down events; each method is one that a user or the adversary would write."""

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        self._events: list[Event] = [{"at": 0.0, "process": "run", "user": "", "what": "begins", "bounds": bounds._asdict()}]
        self._calls = itertools.count()
        self._places = itertools.count(1)

    @property
    def events(self) -> list[Event]:
        """In the order of their times."""
        return in_order(self._events)

    def tell(self, at: float, what: str, user: str = "", **values: Any) -> None:
        """Any event."""
        process = values.pop("process", user.rpartition(".")[0])
        self._events.append({"at": at, "process": process, "user": user, "what": what, **values})

    def asks(self, at: float, name: str = "x", user: str = "p0.0.0", **terms: Any) -> str:
        """An acquire begins: its call."""
        call = f"{user}#{next(self._calls)}"
        told = {"mode": "exclusive", "limit": None, "allowed": 20.0, "ttl": 4.0, **terms}
        self.tell(at, "asks", user, call=call, name=name, **told)
        return call

    def granted(self, at: float, call: str, token: int, **values: Any) -> None:
        """It was answered with a grant."""
        since = next(each["at"] for each in self._events if each.get("call") == call)
        self.tell(at, "granted", _user(call), **{"call": call, "since": since, "token": token, "ttl": 4.0, **values})

    def refused(self, at: float, call: str, error: str = "LockTimeout") -> None:
        """It ended without one."""
        since = next(each["at"] for each in self._events if each.get("call") == call)
        self.tell(at, "refused", _user(call), call=call, since=since, error=error)

    def holds(self, at: float, call: str) -> None:
        """A look said that it holds."""
        self.tell(at, "holds", _user(call), call=call, until=at + 4)

    def wrote(self, at: float, call: str, *, valid: bool = True) -> None:
        """A guarded effect."""
        self.tell(at, "wrote", _user(call), call=call, place=next(self._places), valid=valid)

    def released(self, at: float, call: str, error: str = "", since: float | None = None) -> None:
        """A release, and its answer."""
        since = at if since is None else since
        self.tell(since, "releases", _user(call), call=call)
        self.tell(at, "released", _user(call), call=call, since=since, error=error)

    def held(self, begun: float, ended: float, token: int, name: str = "x", user: str = "p0.0.0", **terms: Any) -> str:
        """A whole visit: asked, granted and written at once, released at the end."""
        call = self.asks(begun, name, user, **terms)
        self.granted(begun + 0.001, call, token)
        self.holds(begun + 0.002, call)
        if terms.get("mode", "exclusive") == "exclusive":
            self.wrote(begun + 0.002, call)
        self.holds(ended - 0.001, call)
        self.released(ended, call)
        return call

    def published(self, at: float, *ids: str, user: str = "p0.0.5", key: str | None = None, **outcome: Any) -> None:
        """A publish of these ids, and its answer."""
        since = outcome.pop("since", at - 0.001)
        self.tell(since, "publishes", user, queue="q", key=key, ids=[*ids])
        told = {"ids": [*ids], "failed": [], "unknown": [], **outcome}
        self.tell(at, "published", user, queue="q", key=key, since=since, **told)

    def delivered(self, at: float, id: str, attempt: int = 1, *, user: str = "p1.0.6", since: float | None = None) -> None:
        """A consumer has it."""
        told = {"ids": [id], "attempts": [attempt], "since": at - 0.01 if since is None else since}
        self.tell(at, "delivered", user, queue="q", **told)

    def settled(self, at: float, id: str, how: str = "ack", *, answered: bool = True, user: str = "p1.0.6") -> None:
        """A settlement, and its answer."""
        told = {"ids": [id], "doubt": []} if answered else {"ids": [], "doubt": [id]}
        self.tell(at - 0.001, "settles", user, queue="q", ids=[id], how=how)
        self.tell(at, "settled", user, queue="q", how=how, since=at - 0.001, errors=[], **told)

    def drained(self, at: float) -> None:
        """The queue is empty."""
        self.tell(at, "drained", process="run", queue="q")

    def fault(self, since: float, at: float, kind: str = "reset", process: str = "p0", **values: str) -> None:
        """The adversary did something to a place, or to all."""
        self.tell(at, "fault", process=process, since=since, kind=kind, **values)


def _user(call: str) -> str:
    return call.partition("#")[0]
