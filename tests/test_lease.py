"""When a lease ends, when it is renewed and why it was lost: the decisions, with generated cases."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from narrowboat._engine.validity import MARGIN, deadline
from narrowboat._locks.lease import Step, plan, retry_at, why_ended
from narrowboat.errors import Reason

times = st.floats(0, 1e7, allow_nan=False)
ttls = st.floats(0.05, 1e5, allow_nan=False)


@given(times, ttls, st.floats(0, 10))
def test_a_holder_gives_up_before_the_server_can(sent: float, ttl: float, margin: float) -> None:
    """The deadline lies before the earliest moment at which the server may end the lease, by the margin at least."""
    ends = deadline(sent, ttl, margin)

    assert ends <= sent + ttl - max(MARGIN, margin) + 1e-6


@given(times, ttls, st.none() | times, st.booleans())
def test_a_lease_past_its_deadline_is_never_renewed(now: float, ttl: float, renew_at: float | None, under_way: bool) -> None:
    """Whatever else is due, a lease that has ended is ended, not revived."""
    step, _ = plan(now, now - ttl, renew_at, under_way=under_way)

    assert step is Step.EXPIRE


@given(times, ttls, st.none() | times, st.booleans())
def test_the_deadline_is_always_watched(now: float, left: float, renew_at: float | None, under_way: bool) -> None:
    """Whatever is planned for a living lease, it is looked at again no later than at its deadline, and not in the past."""
    ends = now + left
    step, until = plan(now, ends, renew_at, under_way=under_way)

    assert step is not Step.EXPIRE
    assert until <= ends
    assert step is Step.RENEW or until > now


@given(times, ttls, times)
def test_one_renewal_at_a_time(now: float, left: float, renew_at: float | None) -> None:
    """While a renewal is under way no second one is started."""
    step, _ = plan(now, now + left, renew_at, under_way=True)

    assert step is Step.WAIT


@given(times, st.floats(0.1, 1e5), st.floats(0, 1, exclude_max=True))
def test_a_failed_renewal_is_tried_again_in_time(now: float, left: float, jitter: float) -> None:
    """After an error of unknown outcome several more tries fit in before the deadline."""
    again = retry_at(now, now + left, lambda: jitter)

    assert now < again < now + left / 2


@given(ttls)
def test_a_watch_that_came_late_means_the_process_stood_still(ttl: float) -> None:
    """A lease that ended while nobody was looking was lost to a pause; one that was watched to its end just expired."""
    assert why_ended(ttl, ttl) is Reason.PAUSED
    assert why_ended(0.0, ttl) is Reason.EXPIRED
