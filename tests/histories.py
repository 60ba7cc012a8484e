"""Histories for tests of the judge: written by hand, and each broken on purpose by one rule."""

from __future__ import annotations

import itertools
from collections.abc import Callable
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


# -- each breaks one rule ------------------------------------------------------------


def two_holders(story: Story) -> None:
    story.held(1.0, 2.0, 1)
    story.held(1.5, 2.5, 2, user="p1.0.0")


def a_permit_too_many(story: Story) -> None:
    for number in range(3):
        story.held(1.0 + number / 10, 2.0, number + 1, user=f"p{number}.0.0", mode="semaphore", limit=2)


def a_token_twice(story: Story) -> None:
    story.held(1.0, 2.0, 7)
    story.held(3.0, 4.0, 7, user="p1.0.0")


def a_token_that_goes_back(story: Story) -> None:
    for begun, token in ((1.0, 7), (3.0, 6)):
        call = story.asks(begun)
        story.granted(begun + 0.1, call, token)
        story.holds(begun + 0.2, call)
        story.released(begun + 0.3, call)


def a_token_out_of_turn(story: Story) -> None:
    """Both asked before either was answered, and who held later has the smaller token."""
    late = story.asks(1.0)
    early = story.asks(1.1, user="p1.0.0")
    story.granted(2.0, early, 2)
    story.holds(3.0, early)
    story.released(3.1, early)
    story.granted(4.0, late, 1)
    story.holds(4.1, late)
    story.released(4.2, late)


def an_effect_that_goes_back(story: Story) -> None:
    """The second holder writes before the first one's last write, whose lease has not ended."""
    first = story.asks(1.0)
    story.granted(1.1, first, 1)
    story.holds(1.2, first)
    second = story.asks(1.3, user="p1.0.0")
    story.granted(1.4, second, 2)
    story.wrote(1.45, second)
    story.wrote(1.5, first)


def a_lock_that_stays_taken(story: Story) -> None:
    story.held(1.0, 2.0, 1)
    call = story.asks(1.5, user="p1.0.0")
    story.granted(4.5, call, 2)  # 2.5 s after it was free; declared are 2
    story.holds(4.6, call)
    story.released(4.7, call)


def a_dead_holders_lock_that_stays_taken(story: Story) -> None:
    call = story.asks(1.0)
    story.granted(1.1, call, 1)
    story.holds(1.2, call)
    story.tell(2.0, "ended", process="p0.0", killed=True)
    waiting = story.asks(1.5, user="p1.0.0", allowed=20.0)
    story.refused(11.0, waiting)  # free at 6.5 at the latest


def a_call_that_takes_too_long(story: Story) -> None:
    call = story.asks(1.0, allowed=0.5)
    story.refused(5.0, call, "Unavailable")


def a_publish_that_takes_too_long(story: Story) -> None:
    story.published(10.0, "m", since=6.0)


def a_settled_message_again(story: Story) -> None:
    story.published(1.0, "m")
    story.delivered(2.0, "m")
    story.settled(2.1, "m")
    story.delivered(3.0, "m", 2)


def a_rejected_message_again(story: Story) -> None:
    story.published(1.0, "m")
    story.delivered(2.0, "m")
    story.settled(2.1, "m", "reject")
    story.delivered(3.0, "m", 2)


def a_lost_message(story: Story) -> None:
    story.published(1.0, "m", "n")
    story.delivered(2.0, "n")
    story.settled(2.1, "n")
    story.drained(50.0)


def a_message_that_is_given_back_and_lost(story: Story) -> None:
    story.published(1.0, "m")
    story.delivered(2.0, "m")
    story.settled(2.1, "m", "nack")
    story.drained(50.0)


def a_message_from_nowhere(story: Story) -> None:
    story.delivered(2.0, "m")


def a_refused_message_that_comes(story: Story) -> None:
    story.published(1.0, "m", ids=[], failed=["m"])
    story.delivered(2.0, "m")


def an_attempt_that_goes_back(story: Story) -> None:
    story.published(1.0, "m")
    story.delivered(2.0, "m", 2)
    story.delivered(3.0, "m", 1)


def a_key_out_of_order(story: Story) -> None:
    story.published(1.0, "m", key="a")
    story.published(1.1, "n", key="a")
    story.delivered(2.0, "n")
    story.delivered(3.0, "m")


def an_error_of_no_type(story: Story) -> None:
    story.tell(1.0, "failed", "p0.0.0", error="KeyError: 'x'")


BROKEN: dict[Callable[[Story], None], str] = {
    two_holders: "one holder",
    a_permit_too_many: "one holder",
    a_token_twice: "fencing tokens",
    a_token_that_goes_back: "fencing tokens",
    a_token_out_of_turn: "fencing tokens",
    an_effect_that_goes_back: "guarded effects",
    a_lock_that_stays_taken: "free in time",
    a_dead_holders_lock_that_stays_taken: "free in time",
    a_call_that_takes_too_long: "bounded calls",
    a_publish_that_takes_too_long: "bounded calls",
    a_settled_message_again: "settled for good",
    a_rejected_message_again: "settled for good",
    a_lost_message: "none lost",
    a_message_that_is_given_back_and_lost: "none lost",
    a_message_from_nowhere: "none from nowhere",
    a_refused_message_that_comes: "none from nowhere",
    an_attempt_that_goes_back: "attempts grow",
    a_key_out_of_order: "order of a key",
    an_error_of_no_type: "typed errors",
}
