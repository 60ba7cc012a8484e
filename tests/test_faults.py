"""The layer of faults: a function of the test's own, called before a call of the driver's is made."""

from __future__ import annotations

import pytest

import narrowboat
from narrowboat.errors import AccessDenied
from narrowboat.layers.faults import Faults, Kind


def test_a_function_is_called_with_the_items_before_the_next_calls_and_no_others() -> None:
    faults = Faults()
    seen: list[list[str]] = []
    with narrowboat.locks("memory://", wrap=faults.wrap) as locks:
        faults.call("attempt", lambda requests: seen.append([request.name for request in requests]), times=2)
        for name in "abc":
            locks.lock(name).acquire(timeout=5).release()

    assert seen == [["a"], ["b"]]
    assert faults.struck == [("attempt", Kind.CALL)] * 2


def test_what_the_function_raises_comes_out_of_the_call_which_is_not_made() -> None:
    faults = Faults()

    def refuses(messages: object) -> None:
        raise AccessDenied("not today")

    with narrowboat.broker("memory://", wrap=faults.wrap) as broker:
        faults.call("send", refuses)
        with pytest.raises(AccessDenied, match="not today"):
            broker.queue("orders").publish(b"x")
        broker.queue("orders").publish(b"y")
        assert broker.queue("orders").depth().ready == 1
