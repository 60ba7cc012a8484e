"""Runs scenarios against a backend, and makes a row for each owed id on each face.

The claims and the harness's faults decide before a scenario starts whether it runs. Where a claim is not made, the call for it
must raise `Unsupported` before any driver is opened. Every id of the catalogue gets a row on each face. An id that is owed and
was not executed is broken: a forgotten scenario cannot look like a pass. Nothing is retried.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import importlib
import math
import pkgutil
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor, as_completed

from narrowboat.capabilities import LockCapabilities, Scope, check_required
from narrowboat.conformance.catalogue import CATALOGUE, NEEDS_FAULT, NOT_OFFERED, SERVER_FAULTS, Entry, Fault
from narrowboat.conformance.checks.explain import explain, one_tree_at_a_time
from narrowboat.conformance.faults.quiet import quiet
from narrowboat.conformance.harness import Harness
from narrowboat.conformance.kit import Kit
from narrowboat.conformance.lock_kit import LockKit
from narrowboat.conformance.measured import Measured
from narrowboat.conformance.message_kit import MessageKit
from narrowboat.conformance.scenario import FACES, FIRST, TABLE, Scenario
from narrowboat.errors import Unsupported

#: Seconds for the end of a scenario, when its faces and children are closed. Shorter breaks those with many of them.
CLOSING = 40.0


class Outcome(enum.Enum):
    """The outcome of an id on one face. A closed list."""

    HELD = "held"
    REFUSED = "refused"  #: not claimed, and a call for it is refused before any I/O
    BROKEN = "broken"  #: owed, and not kept or not executed
    NOT_EXERCISED = "not exercised"  #: the harness cannot make the fault, or the machine stood still
    NOT_OFFERED = "not offered"  #: there is no public call for it, or nothing there that the fault could befall


@dataclasses.dataclass(frozen=True)
class Row:
    """One id, one face, one scenario."""

    id: str
    face: str
    outcome: Outcome
    why: str = ""
    scenario: str = ""
    tier: str = ""
    seconds: float = 0.0
    measured: tuple[Measured, ...] = ()
    stood_still: float = 0.0  #: seconds for which the machine did so meanwhile; upper bounds were extended by no more


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which scenarios to run. An empty set means all. `only` holds ids or names of scenarios."""

    only: frozenset[str] = frozenset()
    tiers: frozenset[str] = frozenset()
    faces: tuple[str, ...] = FACES
    size: float = 1.0  #: scales the rounds of stress scenarios
    halves: frozenset[str] = frozenset()  #: "locks", "broker"

    def half(self, name: str) -> bool:
        """Whether that half is selected."""
        return not self.halves or name in self.halves

    @property
    def whole(self) -> bool:
        """Whether all scenarios are selected. Only then is an id without a row broken."""
        return not self.only and not self.tiers

    def takes(self, scenario: Scenario) -> bool:
        """Whether `scenario` is selected."""
        named = not self.only or scenario.name in self.only or bool(self.only & set(scenario.ids))
        return named and self.half(scenario.half) and (not self.tiers or scenario.tier in self.tiers)


def load() -> list[Scenario]:
    """The table of scenarios. Each of their files is imported."""
    for half in ("locks", "messages"):
        package = importlib.import_module(f"narrowboat.conformance.scenarios.{half}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
    return TABLE


def plan(harness: Harness, selection: Selection) -> list[tuple[Scenario, str]]:
    """What to run: the selected scenarios of the harness's halves on each face, the plainest ones first."""
    return [
        (scenario, face)
        for scenario in sorted(load(), key=lambda each: each.name not in FIRST)
        if scenario.half in harness.halves and selection.takes(scenario) and _concerns(harness, scenario)
        for face in selection.faces
    ]


def _concerns(harness: Harness, scenario: Scenario) -> bool:
    """False for a fault of a server where there is none, unless it is for ids that have no other scenario."""
    missing = (scenario.faults & SERVER_FAULTS) - harness.faults(scenario.half)
    server = harness.claims(scenario.half).scope is Scope.NETWORK
    return server or not missing or all(id in NEEDS_FAULT for id in scenario.ids)


def run_one(harness: Harness, scenario: Scenario, face: str, *, size: float = 1.0) -> list[Row]:
    """Run the scenario, or its refusal, or neither and say why. One row for each of its ids."""
    begun = time.monotonic()
    unmet = _unmet(harness, scenario)
    missing = scenario.faults - harness.faults(scenario.half)
    measured: tuple[Measured, ...] = ()
    stood_still = 0.0
    if unmet is None and missing:
        outcome, why = Outcome.NOT_EXERCISED, "the harness cannot make: " + ", ".join(sorted(f.value for f in missing))
        if nothing := _nothing_to_break(harness, scenario.half, missing):
            outcome, why = Outcome.NOT_OFFERED, nothing
    else:
        kit = (LockKit if scenario.half == "locks" else MessageKit)(harness, face, scenario.half, size=size)
        work = scenario.run if unmet is None else scenario.refused
        assert work is not None, "scenario() refuses a claim without a refusal"
        with quiet:
            why = _execute(kit, work, _limit(harness, scenario, kit.stretch), refusal=unmet)
        outcome = Outcome.BROKEN if why else Outcome.HELD if unmet is None else Outcome.REFUSED
        if why and not _late(why) and (excuse := kit.excuse()):
            outcome, why = Outcome.NOT_EXERCISED, f"{excuse}; it failed then: {why.splitlines()[-1]}"
        why = why or unmet or ""
        measured = tuple(kit.measured)
        stood_still = round(kit.watch.lost(kit.begun, time.monotonic()), 3)
    seconds = time.monotonic() - begun
    first = Row(scenario.ids[0], face, outcome, why, scenario.name, scenario.tier, round(seconds, 4), measured, stood_still)
    return [first, *(dataclasses.replace(first, id=id, measured=()) for id in scenario.ids[1:])]


def _nothing_to_break(harness: Harness, half: str, faults: AbstractSet[Fault]) -> str:
    """Why none of these faults can befall the backend, whoever tries. "" where one can, and the harness lacks the means."""
    scope = harness.claims(half).scope
    if scope is Scope.PROCESS and faults <= SERVER_FAULTS | {Fault.FOREIGN}:
        return "it lives in one process: no server, no network, no disk, and no other program is there"
    if scope is Scope.HOST and faults <= SERVER_FAULTS - {Fault.POWER, Fault.FULL}:
        return "all its users are on one machine: no server and no network is between them"
    return ""


#: Seconds. A longer bound promises nothing, and the kit would wait for it.
LONGEST_BOUND = 120.0
#: Claims that may be endless: consumers that run are not reached then, and the kit waits for none.
MAY_BE_ENDLESS = frozenset({"alter_lag"})


class Gate:
    """Runs scenarios. When the plainest one of a half is broken, or its claims make no sense, it runs no other of that half.

    The report of a backend that cannot work at all is there within seconds.
    """

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self._closed: dict[str, str] = {}

    def run(self, scenario: Scenario, face: str, *, size: float = 1.0) -> list[Row]:
        """`run_one`, or a row for each id that says why it was not tried."""
        half = scenario.half
        if half in self._closed:
            outcome, why = Outcome.NOT_EXERCISED, self._closed[half]
            return [Row(id, face, outcome, why, scenario.name, scenario.tier) for id in scenario.ids]
        if scenario.name not in FIRST:
            return run_one(self.harness, scenario, face, size=size)
        if endless := _endless(self.harness, half):
            rows = [Row(id, face, Outcome.BROKEN, endless, scenario.name, scenario.tier) for id in scenario.ids]
        else:
            rows = run_one(self.harness, scenario, face, size=size)
        if rows[0].outcome is Outcome.BROKEN:
            self._closed[half] = f"not tried: {rows[0].id}, the plainest of all, is broken on the {face} face"
        return rows


def _endless(harness: Harness, half: str) -> str:
    bounds = {
        name: value for name, value in dataclasses.asdict(harness.claims(half)).items() if name.endswith(("_lag", "_bound"))
    }
    found = [
        f"{name}={value:g}"
        for name, value in bounds.items()
        if value > LONGEST_BOUND and not (name in MAY_BE_ENDLESS and value == math.inf)
    ]
    return f"it claims {', '.join(found)}: a bound of more than {LONGEST_BOUND:g} s promises nothing" if found else ""


def _late(why: str) -> bool:
    """Whether a bound was missed. It was extended by the pauses of the machine already, so these explain nothing."""
    last = why.strip().splitlines()[-1]
    return any(word in last for word in ("not within", "not finished within", "LockTimeout", "TimeoutError"))


def _limit(harness: Harness, scenario: Scenario, stretch: int) -> float:
    """Seconds that it may take. Scenarios are written for short leases, and some backends cannot keep short ones."""
    return scenario.seconds * stretch + 10 * _shortest(harness, scenario.half)


def _shortest(harness: Harness, half: str) -> float:
    claims = harness.claims(half)
    return claims.ttl_min if isinstance(claims, LockCapabilities) else claims.lease_min


def _unmet(harness: Harness, scenario: Scenario) -> str | None:
    """The first claim of the scenario that the backend does not make, in words. None when it makes all."""
    for claim in scenario.needs:
        try:
            check_required(harness.claims(scenario.half), claim, backend=harness.scheme)
        except Unsupported:
            return f"not claimed: {claim}"
    return None


def _execute(kit: Kit, work: Callable[[Kit], object], seconds: float, *, refusal: str | None) -> str:
    """Run it in an event loop of its own. Returns "" when it held, else what went wrong."""
    complaints: list[str] = []
    limits: list[asyncio.Timeout] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: complaints.append(_complaint(context)))
        try:
            async with kit.watch.timeout(seconds) as limit:
                limits.append(limit)
                if refusal is None:
                    await work(kit)  # type: ignore[misc]  # a scenario's run, typed as object to serve refusals alike
                else:
                    await _refused(kit, work, refusal)
        finally:
            async with kit.watch.timeout(CLOSING):
                await kit.close()

    try:
        with asyncio.Runner() as runner:
            runner.run(main())
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # also one that a test runner takes for a skip: a scenario cannot skip itself
        if isinstance(error, AssertionError):
            explain(error)
        late = f"not finished within {seconds:g} s" if any(limit.expired() for limit in limits) else ""
        return "\n".join(filter(None, [_readable(error), late]))
    return f"the event loop complained: {'; '.join(complaints)}" if complaints else ""


async def _refused(kit: Kit, call: Callable[[Kit], object], refusal: str) -> None:
    try:
        await call(kit)  # type: ignore[misc]  # see above
    except Unsupported:
        assert not kit.seen.calls, f"{refusal}: refused, but only after the driver was used: {dict(kit.seen.calls)}"
        return
    raise AssertionError(f"{refusal}: yet the call was not refused with Unsupported")


def _complaint(context: dict[str, object]) -> str:
    return f"{context.get('message')} {context.get('exception') or context.get('task') or ''}"


def _readable(error: BaseException) -> str:
    with one_tree_at_a_time():
        return "".join(traceback.format_exception(error, limit=-6)).strip()


# -- all of it ----------------------------------------------------------------------------------------------------

Progress = Callable[[int, int, list[Row]], None]
"""Called after each scenario with how many are done, of how many, and its rows."""


def run(harness: Harness, selection: Selection, progress: Progress | None = None) -> list[Row]:
    """Run what is selected: core scenarios several at a time, timing ones fewer, the others alone. All rows, in order."""
    todo = plan(harness, selection)
    rows: list[Row] = []
    done = 0
    gate = Gate(harness)
    mutex = threading.Lock()

    def one(scenario: Scenario, face: str) -> None:
        nonlocal done
        made = gate.run(scenario, face, size=selection.size)
        with mutex:
            rows.extend(made)
            done += 1
            if progress is not None:
                progress(done, len(todo), made)

    for jobs, group in _groups(harness, todo):
        with ThreadPoolExecutor(jobs, thread_name_prefix="conformance-run") as pool:
            for future in as_completed([pool.submit(one, scenario, face) for scenario, face in group]):
                future.result()
    rows += missed(harness, selection, rows)
    order = {id: number for number, id in enumerate(CATALOGUE)}
    return sorted(rows, key=lambda row: (order[row.id], row.face))


#: Seconds. A backend whose shortest lease is longer is slow: its scenarios mostly wait, and more of them run at a time.
SLOW = 5.0


def _groups(harness: Harness, todo: Sequence[tuple[Scenario, str]]) -> Iterable[tuple[int, list[tuple[Scenario, str]]]]:
    """Which scenarios may run together, and how many at a time. Timing scenarios mostly wait, but must not be held up.

    Those that kill, stop and fork processes do so to processes of their own: they share nothing but the machine.
    """
    slow = any(_shortest(harness, half) > SLOW for half in harness.halves)
    yield 4, [each for each in todo if each[0].name in FIRST]
    todo = [each for each in todo if each[0].name not in FIRST]
    yield 4, [each for each in todo if each[0].tier == "C" and not each[0].alone]
    yield 12 if slow else 5, [each for each in todo if each[0].tier != "C" and not each[0].alone]
    killing = [each for each in todo if Fault.PROCESS in each[0].faults and each[0].tier == "P"]
    yield 4 if slow else 3, killing
    yield 1, [each for each in todo if each[0].alone and each not in killing]


def missed(harness: Harness, selection: Selection, rows: Sequence[Row]) -> list[Row]:
    """A row for each id and face without one: not offered, not exercised, or broken because it is owed."""
    have = {(row.id, row.face) for row in rows}
    return [
        Row(id, face, *found)
        for id, entry in CATALOGUE.items()
        if entry.half in harness.halves and selection.half(entry.half) and (not selection.only or id in selection.only)
        for face in selection.faces
        if (id, face) not in have and (found := _why_missing(harness, selection, entry)) is not None
    ]


def _why_missing(harness: Harness, selection: Selection, entry: Entry) -> tuple[Outcome, str] | None:
    if entry.id in NOT_OFFERED:
        return Outcome.NOT_OFFERED, NOT_OFFERED[entry.id]
    if entry.id in NEEDS_FAULT and NEEDS_FAULT[entry.id] not in harness.faults(entry.half):
        if nothing := _nothing_to_break(harness, entry.half, {NEEDS_FAULT[entry.id]}):
            return Outcome.NOT_OFFERED, nothing
        return Outcome.NOT_EXERCISED, f"needs {NEEDS_FAULT[entry.id].value}"
    tiers = "".join(sorted({scenario.tier for scenario in load() if entry.id in scenario.ids}))
    if tiers and selection.tiers and not selection.tiers & set(tiers):
        asked = ", ".join(sorted(selection.tiers))
        why = f"its scenarios are of tier {', '.join(tiers)}, and only {asked} was asked for"
        return (Outcome.NOT_EXERCISED, why) if selection.only else None
    return (Outcome.BROKEN, "owed, and not executed") if selection.whole or selection.only else None


def unproven() -> list[str]:
    """The owed ids that no scenario proves."""
    have = {id for scenario in load() for id in scenario.ids}
    return [id for id in CATALOGUE if id not in have and id not in NOT_OFFERED and id not in NEEDS_FAULT]
