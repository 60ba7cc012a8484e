"""What a scenario's bare `assert` says when it fails, and what a broken row says: what was owed, and what was seen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from narrowboat.conformance.checks.explain import explain
from narrowboat.conformance.runner import Outcome, Row
from narrowboat.conformance.verification import _line

held = SimpleNamespace(name="a", expires_in=0.31, url="redis://:hunter2@h/0")
got = [1, 2]


def two_values() -> None:
    assert (held.name, held.expires_in) == ("a", 0)


def a_call_is_not_made_again() -> None:
    assert len(got) == 3


def a_negation() -> None:
    assert not got


def a_chain() -> None:
    assert 0 < held.expires_in <= 0.3


def several_lines() -> None:
    assert [each * 2 for each in got] == [
        1,
        2,
    ]


def a_secret() -> None:
    assert held.url is None


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (two_values, "owed: (held.name, held.expires_in) == ('a', 0); seen: held.name is 'a', held.expires_in is 0.31"),
        (a_call_is_not_made_again, "owed: len(got) == 3; seen: got is [1, 2]"),
        (a_negation, "owed: not got; seen: got is [1, 2]"),
        (a_chain, "owed: 0 < held.expires_in <= 0.3; seen: held.expires_in is 0.31"),
        (several_lines, "owed: [each * 2 for each in got] == [1, 2]; seen: got is [1, 2]"),
        (a_secret, "owed: held.url is None; seen: it is not so"),
    ],
)
def test_it_says_what_was_owed_and_what_was_seen(function: Any, said: str) -> None:
    with pytest.raises(AssertionError) as caught:
        function()
    caught.value.args = ()  # pytest has rewritten it
    explain(caught.value)
    assert str(caught.value) == said


def test_what_has_a_text_keeps_it() -> None:
    error = AssertionError("one is not two")
    explain(error)
    assert str(error) == "one is not two"


def test_the_place_of_a_broken_row_is_in_its_scenario_and_not_in_a_step_that_many_share() -> None:
    why = (
        "Traceback (most recent call last):\n"
        '  File "site-packages/narrowboat/conformance/scenarios/locks/basic.py", line 40, in takes_and_frees\n'
        "    await kit.shows('a')\n"
        '  File "site-packages/narrowboat/conformance/lock_kit.py", line 7, in shows\n'
        "    assert seen == [*tokens]\n"
        "AssertionError: holders() was to show no tokens"
    )
    line = _line(Row("L01", "sync", Outcome.BROKEN, why, "takes_and_frees", "C", 1.25))
    assert "scenarios/locks/basic.py:40;" in line
    assert "  seen: holders() was to show no tokens" in line.splitlines()


def test_a_broken_row_is_told_in_full() -> None:
    why = (
        "Traceback (most recent call last):\n"
        '  File "site-packages/narrowboat/conformance/scenarios/locks/basic.py", line 40, in takes_and_frees\n'
        "    held.check()\n"
        "narrowboat.errors.LeaseLost: lock 'a' is lost"
    )
    row = Row("L01", "sync", Outcome.BROKEN, why, "takes_and_frees", "C", 1.25)

    first, owed, seen, where = _line(row).splitlines()
    assert first.startswith("L01 sync broken: acquire free lock")
    assert owed == "  owed: A free lock is granted, others see that it is held, and a release makes it free."
    assert seen == "  seen: narrowboat.errors.LeaseLost: lock 'a' is lost"
    assert where == "  in takes_and_frees, scenarios/locks/basic.py:40; tier C, after 1.2 s"
