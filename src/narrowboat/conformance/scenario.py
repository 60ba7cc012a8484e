"""The table of scenarios: what each proves, which claims it needs, and what is refused where they are not made.

A scenario is one `async def` that takes a `Kit` and serves both faces. It raises when the backend breaks its promise, and
returns when the promise held. The claims and the harness's faults decide before it starts whether it runs. An exception never
does: a scenario cannot skip itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from narrowboat.conformance.catalogue import CATALOGUE, NOT_OFFERED, Fault

if TYPE_CHECKING:
    from narrowboat.conformance.kit import Kit

FACES = ("sync", "asyncio")

#: The tiers by letter: what their scenarios need, or take.
TIER_TEXTS = {
    "C": "core: what needs no time to pass; a minute or two",
    "T": "timing: leases, delays and renewals take their time",
    "S": "stress: many users, many names, many messages",
    "P": "processes that are killed, stopped and forked",
    "N": "a network that is cut, slow or silent",
    "R": "a server that is restarted, killed, paused or full",
    "H": "histories of random work, judged afterwards",
}
TIERS = "".join(TIER_TEXTS)

#: The plainest scenario of each half. It runs before all others. Where it is broken nothing else of its half is tried.
FIRST = ("takes_and_frees", "one_message_comes_and_goes")

Run = Callable[[Any], Awaitable[None]]


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One scenario, and all that decides whether and how it runs."""

    name: str
    ids: tuple[str, ...]
    run: Run
    tier: str
    needs: tuple[str, ...]  #: claims as in `require=`, such as "shared" or "scope=host"
    refused: Run | None  #: the public call that must raise Unsupported before any I/O where a claim is missing
    faults: frozenset[Fault]
    alone: bool  #: nothing else may run meanwhile, because it counts threads and files, or measures
    seconds: float  #: a run that takes longer is broken

    @property
    def half(self) -> str:
        """`locks` or `broker`: the contract that it is about."""
        return CATALOGUE[self.ids[0]].half

    @property
    def text(self) -> str:
        """The rule that it proves: its docstring."""
        return (self.run.__doc__ or "").strip()


TABLE: list[Scenario] = []


def scenario(
    *ids: str,
    tier: str = "C",
    needs: str | tuple[str, ...] = (),
    refused: Run | Callable[[str], Run] | None = None,
    faults: frozenset[Fault] | set[Fault] = frozenset(),
    alone: bool = False,
    seconds: float = 60.0,
) -> Callable[[Run], Run]:
    """Register an `async def` under the catalogue's ids. `TypeError` at import when it says less than it must.

    With `refused=demand` the call that must be refused is one that demands all of `needs`.
    """
    claims = (needs,) if isinstance(needs, str) else tuple(needs)
    refused = demand(",".join(claims)) if refused is demand else cast("Run | None", refused)
    unknown = [id for id in ids if id not in CATALOGUE]
    if not ids or unknown:
        raise TypeError(f"a scenario needs ids of the catalogue; unknown: {', '.join(unknown) or 'none given'}")
    if offered := [id for id in ids if id in NOT_OFFERED]:
        raise TypeError(f"{', '.join(offered)}: on the list of what is not offered; take it off first")
    if len({CATALOGUE[id].half for id in ids}) != 1:
        raise TypeError(f"{', '.join(ids)}: one scenario is about locks or about messages, not both")
    if claims and refused is None:
        raise TypeError(f"{', '.join(ids)}: needs {claims}, so say which call is refused where that is not claimed")
    if isinstance(refused, _Demand) and set(refused.claim.split(",")) != set(claims):
        # Where only the claim that is not demanded is missing, nothing would be refused.
        raise TypeError(f"{', '.join(ids)}: needs {claims}, but what is to be refused is a demand for {refused.claim}")
    if tier not in TIERS:
        raise TypeError(f"{', '.join(ids)}: tier {tier!r} is none of {', '.join(TIERS)}")

    def add(run: Run) -> Run:
        name = getattr(run, "__name__", "")
        if not (run.__doc__ or "").strip():
            raise TypeError(f"{name}: a scenario's docstring is the rule that it proves")
        if any(each.name == name for each in TABLE):
            raise TypeError(f"{name}: there is a scenario of that name already")
        TABLE.append(
            Scenario(
                name=name,
                ids=ids,
                run=run,
                tier=tier,
                needs=claims,
                refused=refused,
                faults=frozenset(faults),
                alone=alone or tier in "SPR",
                seconds=seconds,
            )
        )
        return run

    return add


def demand(claim: str) -> Run:
    """The refusal of claims for which there is no call of their own: a demand with `require=`, separated by commas."""
    return _Demand(claim)


@dataclasses.dataclass(frozen=True)
class _Demand:
    claim: str

    async def __call__(self, kit: Kit) -> None:
        if kit.half == "locks":
            kit.locks(require=self.claim)
        else:
            kit.broker(require=self.claim)
