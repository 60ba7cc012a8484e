"""The tree of errors: as drawn, as exported, as carried between processes."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import narrowboat
from narrowboat import errors
from narrowboat._messages.delivery import TrackedDelivery
from narrowboat._messages.unpublished import unpublished
from narrowboat.contract.messages import Address, Kind, Outgoing
from narrowboat.driver.sources import Refusals
from narrowboat.errors import (
    BrokerError,
    LeaseLost,
    LockError,
    LockTimeout,
    NarrowboatError,
    Reason,
    RequestTimeout,
    Unavailable,
)


def kinds(root: type[NarrowboatError] = NarrowboatError) -> list[type[NarrowboatError]]:
    found = [root]
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            found += kinds(kind)
    return found


def made(kind: type[NarrowboatError]) -> NarrowboatError:
    if issubclass(kind, LeaseLost):
        return kind("tried, found, next", name="a", reason=Reason.TAKEN, token=7, backend="x")
    if issubclass(kind, LockError):
        return kind("tried, found, next", name="a", backend="x")
    if issubclass(kind, BrokerError):
        return kind("tried, found, next", id="m1", backend="x")
    return kind("tried, found, next", backend="x")


def drawn() -> dict[str, tuple[str, bool, str | None]]:
    """Each error of the docstring's drawing: its parent there, whether it is retryable, and the built-in it also is."""
    found: dict[str, tuple[str, bool, str | None]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    (?P<rails>[│ ]*[├└]── )?(?P<name>[A-Z]\w+)(?:\s+\((?P<also>\w+)\))?", line)
        if match is None:
            continue
        depth = len(match["rails"] or "") // 4
        path[depth:] = [match["name"]]
        found[match["name"]] = (path[depth - 1] if depth else "", "(retryable)" in line, match["also"])
    return found


def test_the_drawing_is_the_tree() -> None:
    """Names, parents, built-in bases and `retryable` in the docstring are those of the classes."""
    actual = {}
    for kind in kinds():
        also = [base.__name__ for base in kind.__bases__ if not issubclass(base, NarrowboatError) and base is not Exception]
        parent = next((base.__name__ for base in kind.__bases__ if issubclass(base, NarrowboatError)), "")
        actual[kind.__name__] = (parent, kind.retryable, also[0] if also else None)

    assert drawn() == actual


def test_every_error_is_a_public_name() -> None:
    """Who catches needs no second import."""
    assert {kind.__name__ for kind in kinds()} <= set(narrowboat.__all__)
    assert all(getattr(narrowboat, kind.__name__) is kind for kind in kinds())


@pytest.mark.parametrize("kind", kinds())
def test_an_error_crosses_processes_whole(kind: type[NarrowboatError]) -> None:
    """Pickled, as a process pool does, or copied: class, text, attributes and notes are the same."""
    error = made(kind)
    error.add_note("a note")

    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert str(again) == "tried, found, next"
        assert vars(again) == vars(error)
        assert again.backend == "x" and again.retryable is kind.retryable


def test_timeouts_are_pythons_timeouts() -> None:
    """`except TimeoutError` catches what `asyncio.timeout` and sockets raise, and these."""
    assert issubclass(LockTimeout, TimeoutError) and issubclass(RequestTimeout, TimeoutError)
    assert str(LockTimeout("still busy", name="a")) == "still busy"


def test_one_error_may_differ_from_its_class_in_retryable() -> None:
    """A refusal that is over soon says so, without changing the class's answer."""
    assert errors.PublishFailed("full", id="m", retryable=True).retryable
    assert not errors.PublishFailed("no", id="m").retryable
    assert NarrowboatError("no").backend is None


OUTGOING = Outgoing(Address(Kind.QUEUE, "q"), "1", b"", {}, None, 0.0, 0.0, 0, None, None, None, None, False)


def settled(answer: NarrowboatError) -> NarrowboatError | None:
    owner = SimpleNamespace(path="q", backend="x")
    delivery: Any = SimpleNamespace(id="1")
    return TrackedDelivery(owner, delivery, 0.0, 0.0, None)._answered(answer)


#: Every place where an error goes on after the text of another one, which is ours, a server's or a library's.
JOINED: dict[str, Callable[[str], object]] = {
    "a settlement": lambda why: settled(Unavailable(why)),
    "a publish": lambda why: unpublished(OUTGOING, "x", Unavailable(why)),
    "one that was not sent": lambda why: unpublished(OUTGOING, "x", Unavailable(why, sent=False)),
    "a driver's publish": lambda why: Refusals("x").unknown("1", "q", why),
    "a driver's that was not sent": lambda why: Refusals("x").not_sent("1", "q", Unavailable(why)),
}


@pytest.mark.parametrize("join", JOINED)
@pytest.mark.parametrize("why", ["it is gone", "it is gone.", "it is gone..", "is it there?"])
def test_an_error_goes_on_after_another_ones_text_with_one_full_stop(join: str, why: str) -> None:
    """Whichever the other one ends with."""
    said = why.rstrip(".") if why.endswith("?") else f"{why.rstrip('.')}."
    assert f"{said} " in str(JOINED[join](why))
