"""Makes one history on one backend and judges it: the plan, the processes, the adversary, the drain, the verdict.

    result = history(Harness("sqlite:////tmp/kit.db"), seconds=60, seed=7, folder=Path("histories"))
    assert result.verdict.ok, result.text()

In `folder` it leaves the events of each process, and for each broken rule a minimal history and a picture of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from narrowboat.capabilities import LeaseNature, Scope, Settlement, Support, Survives
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.harness import Harness
from narrowboat.conformance.histories import journal as journals
from narrowboat.conformance.histories.adversary import Adversary
from narrowboat.conformance.histories.journal import Effects, Event, Journal
from narrowboat.conformance.histories.picture import picture
from narrowboat.conformance.histories.places import Place, urls
from narrowboat.conformance.histories.plan import LAYER, NETWORK, PROCESS, SERVER, Kind, Means, Plan, plan
from narrowboat.conformance.histories.smallest import smallest
from narrowboat.conformance.histories.steps import TERMS
from narrowboat.conformance.histories.trouble import Bounds
from narrowboat.conformance.histories.users import Company, Faces, Terms
from narrowboat.conformance.histories.verdict import Finding, Verdict, judge
from narrowboat.conformance.users.opening import opened
from narrowboat.conformance.watch import Watch, watch
from narrowboat.errors import ConfigurationError

#: Seconds that one driver call may take. Shorter breaks on a busy machine, longer leaves less time for anything else.
OPERATION = 2.0
#: Seconds of a lock's ttl and of a message's lease, where the backend can keep them that short.
TTL, LEASE = 2.0, 3.0
#: Client processes, where the backend can have several.
PROCESSES = 3
#: Seconds after which a queue that is still not empty is left as it is.
DRAIN = 300.0
#: Broken rules of which a minimal history is made.
SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Result:
    """One history: what it shows, and where its files are."""

    scheme: str
    plan: Plan
    seconds: float
    verdict: Verdict
    files: tuple[Path, ...]

    def as_json(self) -> dict[str, Any]:
        """One entry of the report's `histories`; see docs/conformance.md."""
        return {
            "backend": self.scheme,
            "url_scheme": self.scheme,
            "seed": self.plan.seed,
            "seconds": round(self.seconds, 1),
            "grants": self.verdict.grants,
            "messages": self.verdict.messages,
            "deliveries": self.verdict.deliveries,
            "unknown": self.verdict.unknown,
            "faults": dict(self.verdict.faults),
            "broken": [f"{each.rule}: {each.text}" for each in self.verdict.findings],
            "longest": dict(self.verdict.longest),
        }

    def text(self) -> str:
        """What a person reads: the counts, and each broken rule."""
        found = self.verdict
        faults = ", ".join(f"{number} {kind}" for kind, number in found.faults.items())
        waits = ", ".join(f"{name} {value:g} s" for name, value in found.longest.items())
        lines = [
            f"{self.scheme}: seed {self.plan.seed}, {self.seconds:.0f} s: {found.grants} grants, {found.messages} messages in "
            f"{found.deliveries} deliveries, {len(found.findings)} broken",
            f"  faults: {faults or 'none'}",
            f"  longest: {waits}",
        ]
        if found.unknown:
            lines.append(f"  unknown: {found.unknown} messages may be lost: their queue was not emptied in time")
        lines += [f"  broken: {each.rule}: {each.text}" for each in found.findings[:20]]
        lines += [f"  see {path}" for path in self.files]
        return "\n".join(lines)


def history(
    harness: Harness,
    *,
    seconds: float,
    seed: int,
    folder: Path,
    halves: Sequence[str] = (),
    operation: float = OPERATION,
    drain: float = DRAIN,
    keep: bool = False,
) -> Result:
    """Make and judge one history of `seconds` seconds. Its files stay in `folder` where a rule is broken.

    Args:
        harness: the backend, with its server where there is one. Only names of its own are touched.
        seconds: of clients and faults; the drain comes on top.
        seed: decides the plan.
        folder: for the files; made where it is missing.
        halves: "locks", "broker"; those that the backend has unless given.
        operation: the operation timeout of the clients, in seconds.
        drain: seconds after which a queue that is still not empty is left as it is.
        keep: leave the events there also where no rule is broken.

    Raises:
        ConfigurationError: the harness has a layer in front of its drivers, and the clients would be other processes.
    """
    chosen = tuple(half for half in harness.halves if not halves or half in halves)
    has = means(harness, chosen)
    if has.processes and harness.wrap is not None:
        raise ConfigurationError(f"{harness}: its layer cannot be handed to the processes of a history")
    events_in = folder / f"{harness.scheme}-{seed}"
    shutil.rmtree(events_in, ignore_errors=True)
    events_in.mkdir(parents=True)
    made = plan(seed, seconds, has)
    begun = time.monotonic()
    asyncio.run(_live(harness, made, chosen, events_in, operation, drain))
    took = time.monotonic() - begun
    events = journals.read(events_in)
    verdict = judge(events)
    files = _shown(events, verdict.findings, events_in)
    if verdict.ok and not keep:
        shutil.rmtree(events_in)
    return Result(harness.scheme, made, took, verdict, files)


def means(harness: Harness, halves: Sequence[str]) -> Means:
    """What can be done on that backend."""
    faults = frozenset.intersection(*(harness.faults(half) for half in halves))
    claims = [harness.claims(half) for half in halves]
    kinds: set[Kind] = set()
    if Fault.PROCESS in faults:
        kinds |= PROCESS
    if all(each.scope is not Scope.NETWORK for each in claims):
        kinds |= LAYER
    if Fault.PROXY in faults:
        kinds |= NETWORK
    if Fault.PAUSE in faults:
        kinds.add(Kind.SERVER_PAUSE)
    if Fault.KILL in faults and all(each.survives is not Survives.NOTHING for each in claims):
        kinds |= SERVER
    locks: tuple[str, ...] = ()
    if "locks" in halves:
        has = harness.lock_claims
        absent = {"rw": has.shared is Support.ABSENT, "sem": has.semaphore is Support.ABSENT}
        locks = tuple(name for name in TERMS if not absent.get(name))
        if Fault.DELETE in harness.faults("locks"):
            kinds.add(Kind.DELETE)
    if "broker" in halves:
        kinds.add(Kind.STORM)
    ordered = "broker" in halves and harness.broker_claims.order is not Support.ABSENT
    return Means(tuple(halves), frozenset(kinds), PROCESSES * (Kind.KILL in kinds), locks, ordered, _ttl(harness, halves) + 1)


def _ttl(harness: Harness, halves: Sequence[str]) -> float:
    return max(TTL, harness.lock_claims.ttl_min) if "locks" in halves else TTL


def terms(harness: Harness, made: Plan, halves: Sequence[str]) -> Terms:
    """What the users do on that backend."""
    outcomes, lease, depth = ["nack", "forget"], LEASE, False
    if "broker" in halves:
        has = harness.broker_claims
        lease = max(LEASE, has.lease_min)
        outcomes += ["extend"] if has.extension is not Support.ABSENT else []
        outcomes += ["reject"] if has.dead_letters is not Support.ABSENT else []
        depth = has.depth is not Support.ABSENT
    locks = means(harness, halves).locks
    return Terms(made.seed, _ttl(harness, halves), lease, locks, tuple(outcomes), depth)


def bounds(harness: Harness, halves: Sequence[str], operation: float) -> Bounds:
    """What is owed on that backend."""
    owed = Bounds(operation, _ttl(harness, halves), host=harness.claims(halves[0]).scope is Scope.HOST)
    if "locks" in halves:
        locks = harness.lock_claims
        owed = owed._replace(
            expiry_lag=locks.expiry_lag, wake_bound=locks.wake_bound, dead_waiter_bound=locks.dead_waiter_bound
        )
    if "broker" in halves:
        has = harness.broker_claims
        owed = owed._replace(
            copies=has.settlement is Settlement.RECEIVED or has.lease is not LeaseNature.MESSAGE,
            ordered=has.order is not Support.ABSENT,
        )
    return owed


async def _live(harness: Harness, made: Plan, halves: Sequence[str], folder: Path, operation: float, drain: float) -> None:
    """Let it happen, and write it down."""
    clock = watch()
    namespace = harness.namespace()
    journal = Journal(folder, "run")
    owed = bounds(harness, halves, operation)
    journal.tell("begins", seed=made.seed, bounds=owed._asdict())
    direct = urls(harness, halves, namespace, operation)
    has = means(harness, halves)
    use = terms(harness, made, halves)
    places = [Place(f"p{number}", folder, use, users, direct) for number, users in enumerate(made.programs)]
    begun = time.monotonic()
    try:
        if has.kinds & NETWORK:
            for place in places:
                await asyncio.to_thread(place.connect, harness)
        for place in places:
            if has.processes:
                await place.start()
            else:
                place.start_here(harness.wrap)
        await asyncio.gather(*(place.ready() for place in places))
        adversary = asyncio.create_task(Adversary(made, harness, namespace, places, journal).act())
        await asyncio.sleep(made.seconds)
        await adversary
        for place, wrong in zip(places, await asyncio.gather(*(place.end() for place in places)), strict=True):
            if wrong:
                journal.tell("failed", place.process, error=wrong)
        if "broker" in halves:
            await _drain(harness, direct["broker"], use, folder, journal, drain, ordered=has.ordered)
    finally:
        for place in places:
            await place.close()
        _stood(clock, journal, begun)
        journal.close()
        await asyncio.to_thread(harness.cleanup, namespace)


async def _drain(
    harness: Harness, url: str, use: Terms, folder: Path, journal: Journal, drain: float, *, ordered: bool
) -> None:
    """Take what is left, until nothing has come for as long as a message can be away."""
    has = harness.broker_claims
    effects = Effects(folder)
    company = Company(use, journal, effects)
    quiet = use.lease + has.lease_lag + has.return_lag + 2
    until = time.monotonic() + drain
    async with opened(url, "asyncio", wrap=harness.wrap) as broker:

        async def empty(queue: Any) -> None:
            async with queue.consume(prefetch=500, idle=quiet) as messages:
                batches = aiter(messages.batches(500, wait=0.02))
                while time.monotonic() < until:
                    since = time.monotonic()
                    batch = await anext(batches, None)
                    if batch is None:
                        journal.tell("drained", queue=queue.name)
                        return
                    await company.handle("run", queue.name, batch, "ack", since=since)

        faces = Faces(None, broker)
        await asyncio.gather(*(empty(faces.queue(use, ordered=each)) for each in {False, ordered}))
    effects.close()


def _stood(clock: Watch, journal: Journal, begun: float) -> None:
    """Write down when the machine stood still, second by second."""
    now = time.monotonic()
    while begun < now:
        ended = min(begun + 1.0, now)
        if (lost := clock.lost(begun, ended)) > 0.02:
            journal.tell("stood", since=begun, at=ended, lost=min(lost, ended - begun))
        begun = ended


def _shown(events: Sequence[Event], findings: Sequence[Finding], folder: Path) -> tuple[Path, ...]:
    """The minimal histories of the first findings, one of each rule, and their pictures."""
    files: list[Path] = []
    firsts = {each.rule: each for each in reversed(findings)}
    for number, finding in enumerate(list(firsts.values())[:SHOWN]):
        few = smallest(events, finding)
        lines, svg = folder / f"broken-{number}.jsonl", folder / f"broken-{number}.svg"
        lines.write_text("".join(json.dumps(event) + "\n" for event in few), encoding="utf-8")
        svg.write_text(picture(few, finding), encoding="utf-8")
        files += [lines, svg]
    return tuple(files)
