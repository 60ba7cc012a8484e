"""The list of withdraws that are tried again."""

from __future__ import annotations

from narrowboat._locks.late_withdrawals import PAUSE, LateWithdrawals
from narrowboat.clock import ManualClock
from narrowboat.contract import Mode
from narrowboat.contract.locks import Request
from narrowboat.errors import Unavailable


def test_without_a_thread_a_withdraw_waits_for_the_next_ring() -> None:
    """Who gave up is told by nobody: an error would strike the thread that carries the backend's answers."""

    def ring() -> None:
        raise Unavailable("no thread can be started")

    clock = ManualClock()
    late = LateWithdrawals(clock, 10.0, ring)
    request = Request("a", "owner", 30.0, Mode.EXCLUSIVE, None, True, lambda: None, "")

    late.add(request)

    assert late.due(clock()) == []
    assert [each.request for each in late.due(clock() + PAUSE)] == [request]
