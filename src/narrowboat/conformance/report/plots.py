"""What scenarios measured, as small plots beside the bounds that they must keep. Inline SVG that takes any width.

Times stand on one logarithmic axis, so that backends and families can be compared by eye. Every other number is in a table.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from narrowboat.conformance.measured import Measured
from narrowboat.conformance.report import Report, summary
from narrowboat.conformance.report.tables import folded, table
from narrowboat.conformance.scenario import FACES


class Family(NamedTuple):
    """Times that answer one question."""

    title: str
    text: str
    names: tuple[str, ...]  #: how the names begin under which scenarios report them


FAMILIES = (
    Family(
        "Wake-up",
        "from a release to the next holder, and from a publish to the idle consumer",
        ("wake-up", "worst of the racing wake-ups", "wait behind a cancelled head"),
    ),
    Family(
        "Kill to regrant",
        "from the SIGKILL of a holder to the next grant: its lease has to end first",
        ("kill of a holder to the next grant",),
    ),
    Family(
        "End of a lease",
        "from the end of a lease that nobody renews to the next grant",
        ("time from the end of a lease", "wait after the end of an abandoned lease"),
    ),
    Family(
        "Redelivery",
        "from the SIGKILL of a consumer to the redelivery, and how late a lease that ran out is noticed",
        ("kill to redelivery", "redelivery after"),
    ),
    Family(
        "Reconnect",
        "from a fault of the network or the server to the next answer or message, a restart included",
        (
            "server kill to",
            "server stop to",
            "idle consumer, ",
            "end of a black hole",
            "wait after a kill",
            "wait after a stop",
        ),
    ),
)

#: The axis, in seconds.
_LEAST, _MOST = 1e-4, 1e2
_TICKS = {1e-3: "1 ms", 1e-2: "10 ms", 1e-1: "100 ms", 1.0: "1 s", 10.0: "10 s"}


def plots(reports: Sequence[Report]) -> str:
    """The plots of all families of which there is anything, and the table of all numbers."""
    figures = "".join(_figure(family, reports) for family in FAMILIES)
    legend = (
        "<p>One dot is one measurement: <span style='color:var(--dot)'>upper row, the sync face</span>; "
        "<span style='color:var(--other)'>lower row, asyncio</span>. The red line is the bound that the scenario holds the "
        "backend to: what it declares, for the lease of that run. The axis is logarithmic.</p>"
    )
    return (legend + figures if figures else "") + _table(reports)


def _figure(family: Family, reports: Sequence[Report]) -> str:
    found: dict[str, dict[str, dict[str, list[Measured]]]] = {}
    for report in reports:
        for row in report.rows:
            for one in row.measured:
                if one.unit == "s" and one.what.startswith(family.names):
                    found.setdefault(one.what, {}).setdefault(report.name, {}).setdefault(row.face, []).append(one)
    if not found:
        return ""
    rows = [
        f"<p class='what'>{html.escape(what)}</p>" + "".join(_strip(name, what, faces) for name, faces in by_name.items())
        for what, by_name in found.items()
    ]
    ticks = "".join(f"<span style='left:{_place(at):.2f}%'>{label}</span>" for at, label in _TICKS.items())
    return (
        f"<figure><figcaption><b>{family.title}</b> <span class='soft'>{family.text}</span></figcaption>{''.join(rows)}"
        f"<div class='plot axis' aria-hidden='true'><span></span><div>{ticks}</div><span class='num'></span></div></figure>"
    )


def _strip(name: str, what: str, faces: dict[str, list[Measured]]) -> str:
    """One line: the backend, its dots, and the largest beside the bound."""
    every = [one for found in faces.values() for one in found]
    bounds = [one.bound for one in every if one.bound is not None]
    bound = min(bounds) if bounds else None
    largest = max(one.value for one in every)
    grid = "".join(f"<line class='grid' x1='{_place(at):.2f}%' x2='{_place(at):.2f}%' y1='0' y2='26'/>" for at in _TICKS)
    beyond = limit = ""
    if bound is not None:
        at = _place(bound)
        beyond = f"<rect class='beyond' x='{at:.2f}%' y='2' width='{100 - at:.2f}%' height='22'/>"
        limit = f"<line class='bound' x1='{at:.2f}%' x2='{at:.2f}%' y1='2' y2='24'/>"
    dots = "".join(
        f"<circle class='{face}' cx='{_place(one.value):.2f}%' cy='{8 + 10 * FACES.index(face)}' r='3'/>"
        for face in FACES
        for one in faces.get(face, ())
    )
    of = f" of {number(bound, 's')}" if bound is not None else ""
    told = f"{len(every)} times, the longest {number(largest, 's')}{of}"
    label = html.escape(f"{name}, {what}: {told}")
    svg = f"<svg role='img' aria-label='{label}'><title>{label}</title>{beyond}{grid}{dots}{limit}</svg>"
    return (
        f"<div class='plot'><span>{html.escape(name)}</span><div class='strip'>{svg}</div>"
        f"<span class='num'><b>{number(largest, 's')}</b>{of}</span></div>"
    )


def _place(seconds: float) -> float:
    """Where it is on the axis, in percent."""
    share = math.log10(max(seconds, _LEAST) / _LEAST) / math.log10(_MOST / _LEAST)
    return 100 * min(0.995, max(0.005, share))


def number(value: float, unit: str) -> str:
    """A number as people read it. A time stays on one line."""
    if unit == "s":
        return f"{value * 1000:.3g}\u00a0ms" if value < 1 else f"{value:.4g}\u00a0s"
    return f"{value:.4g} {unit}"


def _table(reports: Sequence[Report]) -> str:
    """One line for each thing measured, the faces side by side."""
    lines = []
    for report in reports:
        found = summary(report.rows)
        for what in dict.fromkeys(name.rpartition(" (")[0] for name in found):
            faces = [found.get(f"{what} ({face})") for face in FACES]
            bounds = [one["bound"] for one in faces if one is not None and "bound" in one]
            values = [value for one in faces for value in _values(one)]
            bound = number(min(bounds), "s") if bounds else ""
            lines.append([html.escape(f"{report.name}: {what}"), *map(html.escape, values), bound])
    if not lines:
        return ""
    heads = [head for face in FACES for head in (f"{face}, n", f"{face}, median", f"{face}, largest")]
    made = table("Those without a bound are told and not judged.", ("What", *heads, "bound"), lines, numbers=True)
    return folded("Every number that the scenarios measured", made)


def _values(one: dict[str, Any] | None) -> tuple[str, str, str]:
    """How many, the median and the largest. Three empty cells where a face measured nothing."""
    if one is None:
        return ("", "", "")
    return (f"{one['n']:g}", number(one["median"], one["unit"]), number(one["max"], one["unit"]))
