"""The histories with faults on the page: a line for each backend, with what its clients did and what befell them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from narrowboat.conformance.report.tables import table


def storms(histories: Sequence[Mapping[str, Any]]) -> str:
    """Markup of these entries of a report's `histories`; "" without one."""
    if not histories:
        return ""
    grants, messages = sum(each["grants"] for each in histories), sum(each["messages"] for each in histories)
    strikes = sum(sum(each["faults"].values()) for each in histories)
    broken = sum(bool(each["broken"]) for each in histories)
    by_backend: dict[str, list[Mapping[str, Any]]] = {}
    for each in histories:
        by_backend.setdefault(each["backend"], []).append(each)
    heads = ("Backend", "Seeds", "Grants", "Messages", "Faults", "Longest", "Broken", "When")
    found = "".join(
        f"<pre>{escape(str(each['backend']))}, seed {each['seed']}: {escape('; '.join(each['broken']))}</pre>"
        for each in histories
        if each["broken"]
    )
    return (
        "<p>Generated clients work while an adversary strikes, both from a seed, and what they were told is judged afterwards: "
        f"<b>{grants:,}</b> grants, <b>{messages:,}</b> messages, <b>{strikes:,}</b> faults in {len(histories)} runs, of which "
        f"<b>{broken}</b> broke a rule.</p>"
        + table("All runs of a backend together.", heads, [_line(name, mine) for name, mine in by_backend.items()])
        + found
        + "<p>To repeat one: <code>narrowboat verify URL --history SECONDS --seed SEED</code>.</p>"
    )


def _line(backend: str, histories: Sequence[Mapping[str, Any]]) -> list[str]:
    kinds: Counter[str] = Counter()
    longest: dict[str, float] = {}
    for each in histories:
        kinds.update(each["faults"])
        for name, value in each["longest"].items():
            longest[name] = max(value, longest.get(name, 0.0))
    wrong = sum(bool(each["broken"]) for each in histories)
    when = dict.fromkeys(" ".join(filter(None, (each.get("date"), each.get("commit")))) for each in histories)
    return [
        escape(backend),
        ", ".join(escape(str(each["seed"])) for each in histories),
        f"{sum(each['grants'] for each in histories):,}",
        f"{sum(each['messages'] for each in histories):,}",
        escape(", ".join(f"{kind} {number:,}" for kind, number in kinds.most_common())),
        escape(", ".join(f"{name} {value:.3g} s" for name, value in longest.items())),
        f"<span class='word broken'>{wrong} of {len(histories)}</span>" if wrong else "<span class='word held'>none</span>",
        escape(", ".join(filter(None, when))),
    ]
