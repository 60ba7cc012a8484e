"""The runner of the kit: what runs, what every outcome means, and that nothing can be forgotten, skipped or tried again."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import narrowboat.conformance
from narrowboat.conformance import runner, scenario
from narrowboat.conformance.catalogue import NEEDS_FAULT, NOT_OFFERED, Fault
from narrowboat.conformance.harness import Harness
from narrowboat.conformance.items import MANIFEST, Item, parameters
from narrowboat.conformance.kit import Kit
from narrowboat.conformance.runner import Gate, Outcome, Selection, missed, plan, run, run_one, unproven
from narrowboat.conformance.scenario import TABLE, Scenario, demand
from narrowboat.conformance.verification import select, verify, verify_command
from narrowboat.contract import Busy, Grant, Request
from narrowboat.errors import ConfigurationError, NarrowboatError, Unavailable
from narrowboat.layers.passing import PassingLocks

MEMORY = "memory://"


async def does_nothing(kit: Kit) -> None:
    """Nothing is wrong."""


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Scenario]]:
    """A table of scenarios of the test's own; nothing of it is left afterwards."""
    runner.load()  # once, or the first test would lose what is imported now
    kept = list(TABLE)
    TABLE.clear()
    monkeypatch.setattr(runner, "load", lambda: TABLE)
    yield TABLE
    TABLE[:] = kept


def made(*ids: str, run: scenario.Run = does_nothing, **terms: Any) -> Scenario:
    """Register a scenario, and give it back."""
    scenario.scenario(*ids, **terms)(run)
    return TABLE[-1]


def outcome(scenario: Scenario, *, harness: Harness | None = None, face: str = "asyncio") -> tuple[Outcome, str]:
    (row, *_) = run_one(harness or Harness(MEMORY), scenario, face)
    return row.outcome, row.why


# -- registering ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "terms", "said"),
    [
        ((), {}, "none given"),
        (("L999",), {}, "L999"),
        (("B45",), {}, "what is not offered"),
        (("L01", "B01"), {}, "locks or about messages"),
        (("L01",), {"tier": "X"}, "tier 'X'"),
        (("L01",), {"needs": "shared"}, "which call is refused"),
        (("L01",), {"needs": ("shared", "evict")}, "which call is refused"),
        (("L01",), {"needs": ("shared", "evict"), "refused": demand("shared")}, "a demand for shared"),
    ],
)
def test_what_says_less_than_it_must_is_refused_at_import(
    table: list[Scenario], ids: tuple[str, ...], terms: dict[str, Any], said: str
) -> None:
    with pytest.raises(TypeError, match=said):
        made(*ids, **terms)
    assert not table


def test_a_claim_with_its_refusal_is_taken(table: list[Scenario]) -> None:
    assert made("L01", needs="shared", refused=demand("shared")).needs == ("shared",)


def test_a_scenario_without_its_rule_and_a_second_one_of_a_name_are_refused(table: list[Scenario]) -> None:
    async def silent(kit: Kit) -> None: ...

    with pytest.raises(TypeError, match="docstring"):
        made("L01", run=silent)
    made("L01")
    with pytest.raises(TypeError, match="already"):
        made("L02")


# -- outcomes -------------------------------------------------------------------------------------------------------


def test_a_scenario_that_returns_has_held_and_one_that_raises_is_broken(table: list[Scenario]) -> None:
    async def fails(kit: Kit) -> None:
        """One is two."""
        raise AssertionError("one is not two")

    assert outcome(made("L01")) == (Outcome.HELD, "")
    found, why = outcome(made("L02", run=fails))
    assert found is Outcome.BROKEN
    assert why.splitlines()[-1] == "AssertionError: one is not two"


def test_nothing_is_tried_again(table: list[Scenario]) -> None:
    calls = []

    async def fails_at_first(kit: Kit) -> None:
        """It would hold the second time."""
        calls.append(kit.face)
        assert len(calls) > 1

    assert outcome(made("L01", run=fails_at_first))[0] is Outcome.BROKEN
    assert calls == ["asyncio"]


@pytest.mark.parametrize("error", [asyncio.CancelledError, TimeoutError, NotImplementedError])
def test_a_scenario_that_leaves_with_any_error_is_broken(table: list[Scenario], error: type[BaseException]) -> None:
    async def leaves(kit: Kit) -> None:
        """It leaves."""
        raise error("I would rather not")

    assert outcome(made("L01", run=leaves))[0] is Outcome.BROKEN


def test_one_that_takes_too_long_is_broken(table: list[Scenario], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_limit", lambda harness, scenario, stretch: scenario.seconds)

    async def hangs(kit: Kit) -> None:
        """It ends."""
        await asyncio.Event().wait()

    found, why = outcome(made("L01", run=hangs, seconds=0.05))
    assert found is Outcome.BROKEN
    assert "not finished within 0.05 s" in why


def test_what_only_the_event_loop_hears_of_is_broken(table: list[Scenario]) -> None:
    async def drops_an_error(kit: Kit) -> None:
        """A callback raises, and nobody awaits it."""
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    found, why = outcome(made("L01", run=drops_an_error))
    assert found is Outcome.BROKEN
    assert "ZeroDivisionError" in why or "division" in why


def test_each_id_of_a_scenario_gets_its_row_and_the_numbers_are_told_once(table: list[Scenario]) -> None:
    async def measures(kit: Kit) -> None:
        """It is measured."""
        kit.measure("wake-up", 0.25)

    rows = run_one(Harness(MEMORY), made("L01", "L02", run=measures), "sync")
    assert [(row.id, row.face, row.outcome) for row in rows] == [("L01", "sync", Outcome.HELD), ("L02", "sync", Outcome.HELD)]
    assert [row.measured for row in rows] == [(("wake-up", 0.25, "s", None),), ()]


# -- what is not claimed --------------------------------------------------------------------------------------------


def test_what_is_not_claimed_is_refused_by_the_public_call(table: list[Scenario]) -> None:
    found, why = outcome(made("L41", needs="scope=host", refused=demand("scope=host")))
    assert (found, why) == (Outcome.REFUSED, "not claimed: scope=host")


def test_what_is_not_claimed_and_not_refused_is_broken(table: list[Scenario]) -> None:
    found, why = outcome(made("L41", needs="scope=host", refused=does_nothing))
    assert found is Outcome.BROKEN
    assert "not refused with Unsupported" in why


def test_a_refusal_after_the_driver_was_used_is_broken(table: list[Scenario]) -> None:
    async def asks_too_late(kit: Kit) -> None:
        await (await kit.locks().lock("a").acquire(timeout=5)).release()
        kit.locks(require="scope=host")

    found, why = outcome(made("L41", needs="scope=host", refused=asks_too_late))
    assert found is Outcome.BROKEN
    assert "only after the driver was used" in why
    assert "'attempt': 1" in why


# -- faults ---------------------------------------------------------------------------------------------------------


class Helpless(Harness):
    """One that can bring nothing about."""

    def faults(self, half: str) -> frozenset[Fault]:
        return frozenset()


def test_a_missing_fault_is_not_exercised_and_never_run(table: list[Scenario]) -> None:
    async def runs(kit: Kit) -> None:
        """It must not run."""
        raise AssertionError("it ran")

    found, why = outcome(made("L91", run=runs, faults={Fault.REPLY}), harness=Helpless(MEMORY))
    assert (found, why) == (Outcome.NOT_EXERCISED, "the harness cannot make: lost replies")


@pytest.mark.parametrize(
    ("url", "id", "outcome", "why"),
    [
        ("redis://localhost", "L87", Outcome.NOT_EXERCISED, "needs a server restart"),
        (MEMORY, "L87", Outcome.NOT_OFFERED, "it lives in one process"),
        (MEMORY, "L120", Outcome.NOT_OFFERED, "it lives in one process"),
        (MEMORY, "B69", Outcome.NOT_OFFERED, "it lives in one process"),
        ("sqlite:///x.db", "L87", Outcome.NOT_OFFERED, "no server and no network is between them"),
        ("sqlite:///x.db", "L120", Outcome.NOT_EXERCISED, "needs what another program left"),
        ("sqlite:///x.db", "B69", Outcome.NOT_EXERCISED, "needs a power loss"),
    ],
)
def test_a_fault_that_can_befall_nothing_is_not_offered(
    table: list[Scenario], url: str, id: str, outcome: Outcome, why: str
) -> None:
    """A harness without the means leaves an id not exercised; what no means can exercise is not offered."""
    (row,) = missed(Harness(url), Selection(only=frozenset({id}), faces=("sync",)), [])
    assert row.outcome is outcome
    assert why in row.why


def test_a_scenario_whose_fault_can_befall_nothing_is_not_offered_and_is_skipped(table: list[Scenario]) -> None:
    ends = made("L32", run=_again, faults={Fault.PROXY})

    assert outcome(ends, harness=Harness(MEMORY))[0] is Outcome.NOT_OFFERED
    with pytest.raises(pytest.skip.Exception, match="not offered: it lives in one process"):
        Item(Gate(Harness(MEMORY)), ends, "sync", 1.0).check()


def test_a_harness_without_a_network_or_a_server_has_no_such_faults() -> None:
    faults = Harness(MEMORY).faults("locks")
    assert Fault.REPLY in faults
    assert not faults & {Fault.PROXY, Fault.RESTART, Fault.KILL, Fault.PAUSE, Fault.SESSION, Fault.DELETE}


# -- nothing is forgotten -------------------------------------------------------------------------------------------


def test_an_id_that_is_owed_and_was_not_executed_is_broken(table: list[Scenario], capsys: pytest.CaptureFixture[str]) -> None:
    report = verify(MEMORY, only=["L02"])

    assert [(row.id, row.face, row.outcome, row.why) for row in report.rows] == [
        ("L02", "asyncio", Outcome.BROKEN, "owed, and not executed"),
        ("L02", "sync", Outcome.BROKEN, "owed, and not executed"),
    ]
    assert not report.ok
    assert verify_command(MEMORY, only=["L02"], out=print) == 1
    assert "L02 sync broken" in capsys.readouterr().out


def test_one_face_alone_does_not_hide_the_other(table: list[Scenario]) -> None:
    held = made("L01")
    rows = run_one(Harness(MEMORY), held, "sync")

    extra = missed(Harness(MEMORY), Selection(only=frozenset({"L01"})), rows)
    assert [(row.id, row.face, row.outcome) for row in extra] == [("L01", "asyncio", Outcome.BROKEN)]


def test_a_whole_run_has_a_row_for_every_id_on_every_face(table: list[Scenario]) -> None:
    made("L01")
    made("B01", run=_again)

    rows = run(Harness(MEMORY), Selection())
    outcomes = {(row.id, row.face): row.outcome for row in rows}
    ids = set(narrowboat.conformance.catalogue.CATALOGUE)

    assert set(outcomes) == {(id, face) for id in ids for face in ("sync", "asyncio")}
    for id in ids:
        wanted = Outcome.BROKEN
        if id in {"L01", "B01"}:
            wanted = Outcome.HELD
        elif id in NOT_OFFERED or id in NEEDS_FAULT:
            wanted = Outcome.NOT_OFFERED
        assert {outcomes[id, "sync"], outcomes[id, "asyncio"]} == {wanted}, id


async def _again(kit: Kit) -> None:
    """Nothing is wrong here either."""


def test_the_suite_has_an_item_that_fails_when_an_id_has_no_scenario(table: list[Scenario]) -> None:
    made("L01")
    assert "L02" in unproven()
    assert not {"L01", "B45", "L32"} & set(unproven())
    items = {param.id: param.values[0] for param in parameters(Harness(MEMORY), select((), (), ("sync",)))}

    assert set(items) == {"L01-does_nothing-sync", MANIFEST}
    with pytest.raises(AssertionError, match="no scenario proves it: L02, L03"):
        items[MANIFEST].check()


def test_every_owed_id_has_a_scenario() -> None:
    assert unproven() == []


def test_items_fail_and_are_skipped_by_the_runners_decision_alone(table: list[Scenario]) -> None:
    async def fails(kit: Kit) -> None:
        """The rule in words."""
        raise AssertionError("the reason")

    Item(Gate(Harness(MEMORY)), made("L01"), "sync", 1.0).check()
    with pytest.raises(pytest.fail.Exception, match=r"(?s)L02 on the sync face: The rule in words.*the reason"):
        Item(Gate(Harness(MEMORY)), made("L02", run=fails), "sync", 1.0).check()
    lost = made("L91", run=_again, faults={Fault.REPLY})
    with pytest.raises(pytest.skip.Exception, match="not exercised: the harness cannot make: lost replies"):
        Item(Gate(Helpless(MEMORY)), lost, "sync", 1.0).check()


# -- what cannot work at all ----------------------------------------------------------------------------------------


def test_where_the_plainest_is_broken_nothing_else_is_tried(table: list[Scenario]) -> None:
    async def takes_and_frees(kit: Kit) -> None:
        """The plainest of all."""
        raise AssertionError("no")

    made("L02")
    made("B01", run=_again)
    made("L01", run=takes_and_frees)
    rows = run(Harness(MEMORY), Selection(only=frozenset({"L01", "L02", "B01"}), faces=("sync",)))

    told = {row.id: (row.outcome, row.why) for row in rows}
    assert told["L01"][0] is Outcome.BROKEN
    assert told["L02"] == (Outcome.NOT_EXERCISED, "not tried: L01, the plainest of all, is broken on the sync face")
    assert told["B01"][0] is Outcome.HELD, "the other half has a say of its own"


def test_a_bound_that_promises_nothing_is_not_waited_for(table: list[Scenario], monkeypatch: pytest.MonkeyPatch) -> None:
    async def takes_and_frees(kit: Kit) -> None:
        """The plainest of all."""

    plain = Harness(MEMORY).lock_claims
    monkeypatch.setattr(Harness, "lock_claims", dataclasses.replace(plain, wake_bound=9999.0, expiry_lag=600.0))
    made("L01", run=takes_and_frees)
    made("L02")
    (row, other) = run(Harness(MEMORY), Selection(only=frozenset({"L01", "L02"}), faces=("sync",)))

    assert (row.outcome, other.outcome) == (Outcome.BROKEN, Outcome.NOT_EXERCISED)
    assert row.why == "it claims expiry_lag=600, wake_bound=9999: a bound of more than 120 s promises nothing"


def test_a_bound_that_may_be_endless_is_no_fault(table: list[Scenario], monkeypatch: pytest.MonkeyPatch) -> None:
    """`alter_lag=inf` says that an alter does not reach consumers that run; no scenario waits for it."""

    async def one_message_comes_and_goes(kit: Kit) -> None:
        """The plainest of all."""

    plain = Harness(MEMORY).broker_claims
    made("B01", run=one_message_comes_and_goes)
    for lag, outcome in ((math.inf, Outcome.HELD), (600.0, Outcome.BROKEN)):
        monkeypatch.setattr(Harness, "broker_claims", dataclasses.replace(plain, alter_lag=lag))
        (row,) = run(Harness(MEMORY), Selection(only=frozenset({"B01"}), faces=("sync",)))
        assert row.outcome is outcome


def test_a_backend_that_can_do_nothing_is_told_within_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every call is refused: without the gate that took a quarter of an hour to say."""

    class Refuses(PassingLocks):
        def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
            return [Unavailable("no") for _ in requests]

    begun = time.monotonic()
    report = verify(Harness(MEMORY, wrap=Refuses), half="locks")

    assert time.monotonic() - begun < 60
    assert [row.id for row in report.broken] in (["L01"], ["L01", "L01"])
    assert not report.count()["held"]


def test_the_plainest_scenarios_exist() -> None:
    assert {each.name for each in runner.load()} >= set(scenario.FIRST)


# -- what is selected -----------------------------------------------------------------------------------------------


def test_a_part_can_be_chosen_by_id_name_tier_and_face() -> None:
    harness = Harness(MEMORY)
    both = plan(harness, select(["L01"], (), ("sync", "asyncio")))
    assert {(each.name, face) for each, face in both} == {("takes_and_frees", "sync"), ("takes_and_frees", "asyncio")}
    assert [each.name for each, _ in plan(harness, select(["takes_and_frees"], (), ("sync",)))] == ["takes_and_frees"]
    assert {each.tier for each, _ in plan(harness, select((), ["c"], ("sync",)))} == {"C"}


def test_one_half_can_be_chosen() -> None:
    chosen = select((), (), ("sync",), half="messages")
    assert {each.half for each, _ in plan(Harness(MEMORY), chosen)} == {"broker"}
    assert {row.id[0] for row in missed(Harness(MEMORY), chosen, [])} == {"B"}


def test_an_id_of_another_tier_is_not_owed_and_says_so() -> None:
    chosen = select(["L31"], ["C", "T"], ("sync",))
    (row,) = missed(Harness(MEMORY), chosen, [])
    assert (row.outcome, row.why) == (Outcome.NOT_EXERCISED, "its scenarios are of tier S, and only C, T was asked for")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (((), (), ("sync",), 1.0, "queues"), "unknown half queues; known are: locks, messages"),
        (((), ["Q"], ("sync",)), r"T \(timing: leases, delays and renewals take their time\)"),
        ((["L999"], (), ("sync",)), "unknown id or scenario L999"),
        (((), ["Q"], ("sync",)), "unknown tier Q"),
        (((), (), ("trio",)), "unknown face trio"),
        (((), (), ("sync",), 0), "size=0"),
        (((), (), ("sync",), float("nan")), "size=nan"),
    ],
)
def test_a_word_that_is_not_known_is_an_error_that_names_it(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        select(*arguments)


def test_a_scheme_that_is_not_known_names_the_near_miss() -> None:
    with pytest.raises(ConfigurationError, match="memory"):
        Harness("memry://")


# -- time -----------------------------------------------------------------------------------------------------------


KIT = Path(narrowboat.conformance.__file__).parent
SCENARIOS = [*sorted(KIT.glob("*kit.py")), *sorted((KIT / "scenarios").rglob("*.py"))]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_scenario_stretches_a_lower_bound(path: Path) -> None:
    """`took >= kit.upper(x)` would ask a machine that stood still to be late, and let a lease end early on another."""
    wrong = [
        f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare)
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False)
        if (isinstance(operator, ast.Gt | ast.GtE) and stretched(right))
        or (isinstance(operator, ast.Lt | ast.LtE) and stretched(left))
    ]
    wrong += [
        f"{path.name}:{node.value.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.keyword) and node.arg == "least" and stretched(node.value)
    ]
    assert not wrong, "\n".join(wrong)


def stretched(side: ast.AST) -> bool:
    """Whether it grows when the machine stands still. What is subtracted makes it shrink: it bounds how much is missing."""
    if isinstance(side, ast.Attribute) and side.attr == "upper":
        return True
    if isinstance(side, ast.BinOp) and isinstance(side.op, ast.Sub):
        return stretched(side.left)
    return any(stretched(part) for part in ast.iter_child_nodes(side))


def test_the_look_for_stretched_lower_bounds_finds_them() -> None:
    compare = comparison("took >= kit.upper(0.5)")
    assert stretched(compare.comparators[0])
    assert not stretched(compare.left)
    assert not stretched(comparison("left - kit.upper(5) < after").left)


def comparison(text: str) -> ast.Compare:
    found = ast.parse(text, mode="eval").body
    assert isinstance(found, ast.Compare)
    return found


@pytest.mark.parametrize("least", [1, 2, 4, 6])
def test_short_leases_are_longer_by_what_the_environment_asks_for(monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    """At least: a machine that pauses more makes them longer still."""
    monkeypatch.setenv("NARROWBOAT_STRETCH", str(least))

    kit = Kit(Harness("memory://"), "sync", "locks")

    assert kit.stretch >= least
    assert kit.ttl == 0.5 * kit.stretch


@pytest.mark.parametrize("wrong", ["", "3", "0", "-1", "two", "1.5"])
def test_another_stretch_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("NARROWBOAT_STRETCH", wrong)

    with pytest.raises(ConfigurationError, match=r"NARROWBOAT_STRETCH=.*: allowed are 1, 2, 4, 6"):
        Kit(Harness("memory://"), "sync", "locks")


def test_a_call_that_does_not_end_soon_is_told_in_a_sentence() -> None:
    """An error of the call itself passes, a timeout of its own too."""

    async def times_out() -> None:
        raise TimeoutError("of its own")

    async def asks() -> None:
        kit = Kit(Harness("memory://"), "asyncio", "locks")
        with pytest.raises(AssertionError, match=r"^not within 0\.01 s: "):
            await kit.soon(asyncio.Event().wait(), 0.01)
        with pytest.raises(TimeoutError, match="of its own"):
            await kit.soon(times_out())

    asyncio.run(asks())
