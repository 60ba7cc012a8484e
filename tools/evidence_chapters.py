"""The parts of the page of evidence beside the kit's runs: versions of servers, models, mutants.

Each is made from what the repository has, and left out where it has none. `tools.evidence` puts them into the page.
"""

from __future__ import annotations

import importlib
import itertools
import re
import sys
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from narrowboat.conformance import Report
from narrowboat.conformance.catalogue import CATALOGUE
from narrowboat.conformance.report.page import Chapter
from narrowboat.conformance.report.tables import folded, table

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "docs" / "models"


def all_chapters(versions: Sequence[Report]) -> list[Chapter]:
    """Those of which there is anything."""
    found = [
        Chapter("versions", "Versions of servers", _versions(versions)),
        Chapter("models", "Models", _models()),
        Chapter("mutants", "Mutants", _mutants()),
    ]
    return [chapter for chapter in found if chapter.markup]


# -- versions ---------------------------------------------------------------------------------------------------------


def _versions(reports: Sequence[Report]) -> str:
    if not reports:
        return ""
    rows = [
        [
            escape(report.versions.get("server") or report.name.removeprefix("version_")),
            escape(report.counts),
            "".join(sorted({row.tier for row in report.rows if row.tier})),
            f"{escape(report.started[:10])}, commit {escape(report.commit or 'unknown')}",
        ]
        for report in reports
    ]
    text = "<p>To run these again: <code>tox -e integration-versions</code>.</p>"
    return table("Other versions than those of the columns above.", ("Version", "Ids by outcome", "Tiers", "When"), rows) + text


# -- models -----------------------------------------------------------------------------------------------------------

#: What a model is written in, by the ending of its file.
_LANGUAGES = {".als": "Alloy", ".qnt": "Quint", ".tla": "TLA+"}


def _models() -> str:
    """The models of `docs/models`, each by the comment that its file begins with: what it is about, and what it assumes."""
    files = sorted(path for path in MODELS.rglob("*") if path.suffix in _LANGUAGES) if MODELS.exists() else []
    if not files:
        return ""
    items = []
    for path in files:
        text = path.read_text("utf-8")
        title, about = _opening(text)
        name = path.relative_to(ROOT).as_posix()
        guards = len(set(re.findall(r"// guard (\w+) =>", text)) - {"NAME"})
        needed = f" Each of its guards ({guards}) is needed: without it the check must fail." if guards else ""
        items.append(
            f"<dt>{_prose(title)} <small>({_LANGUAGES[path.suffix]}, <code>{escape(name)}</code>)</small></dt>"
            f"<dd>{_prose(about)}{needed}</dd>"
        )
    text = "<p>Protocols as models, in which tools look for steps that break them: <code>tox -e models</code>.</p>"
    return f"{text}<dl>{''.join(items)}</dl>"


def _opening(text: str) -> tuple[str, str]:
    """The first two paragraphs of the comment at the beginning of a file."""
    if found := re.match(r"\s*/\*+(.*?)\*/", text, re.DOTALL):
        lines = [line.strip(" *") for line in found[1].strip().splitlines()]
    else:
        marked = itertools.takewhile(lambda line: line.startswith(("//", "--")), text.strip().splitlines())
        lines = [line.lstrip("/-!").strip() for line in marked]
    first, second, *_ = [*"\n".join(lines).split("\n\n"), "", ""]
    return first, second


def _prose(text: str) -> str:
    """Markup of a paragraph, with what stands between backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(" ".join(text.split())))


# -- mutants ----------------------------------------------------------------------------------------------------------


class Broken(NamedTuple):
    """A backend that is broken on purpose."""

    of: str  #: the backend, or "the contract"
    name: str
    breaks: str
    ids: tuple[str, ...]
    all_see_it: bool  #: each of the ids must notice; else one of them


def mutants() -> list[Broken]:
    """All that the tests have: layers in front of a driver, and changes of a backend's own source."""
    tests = str(ROOT / "tests")
    if tests not in sys.path:
        sys.path.insert(0, tests)
    found = [
        Broken("the contract", each.name, each.breaks, each.ids, all_see_it=True)
        for each in importlib.import_module("mutants").all_mutants()
    ]
    try:
        sources = importlib.import_module("integration.mutants")
    except ModuleNotFoundError:
        return found
    return found + [
        Broken(backend, each.breaks, f"in {each.file}", each.ids, all_see_it=False)
        for backend in sources.NAMES
        for each in sources.table(backend)
    ]


def breaks() -> dict[str, list[str]]:
    """What is broken on purpose, by each id that must notice."""
    by_id: dict[str, list[str]] = {}
    for each in mutants():
        told = each.breaks if each.all_see_it else f"{each.of}: {each.name}"
        for id in each.ids:
            if told not in by_id.setdefault(id, []):
                by_id[id].append(told)
    return by_id


def _mutants() -> str:
    found = mutants()
    if not found:
        return ""
    counts = Counter(each.of for each in found)
    ids = {id for each in found for id in each.ids}
    named = ", ".join(f"{number} of {of}" for of, number in counts.items())
    text = (
        f"<p>A kit that cannot fail proves nothing. So <b>{len(found)}</b> backends are broken on purpose ({escape(named)}), "
        f"and <b>{len(ids)}</b> of {len(CATALOGUE)} ids must notice one at least. <code>tox -e kit</code> fails where an id "
        "of one of the contract does not.</p>"
    )
    tables = ""
    for of in counts:
        rows = [
            [
                escape(each.name if each.all_see_it else each.breaks),
                escape(each.breaks if each.all_see_it else each.name),
                " ".join(f"<a href='#{id}'>{id}</a>" for id in each.ids),
            ]
            for each in found
            if each.of == of
        ]
        word = "Each of these must notice" if of == "the contract" else "One of these at least notices"
        tables += folded(f"The {counts[of]} of {escape(of)}", table(f"{word}.", ("Mutant", "What it breaks", "Ids"), rows))
    return text + tables
