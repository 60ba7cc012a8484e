"""The tables of claims in the pages, made from what the backends claim; nobody writes them by hand.

    python docs/generate.py            write every table anew
    python docs/generate.py --check    exit 1 and name the pages whose tables are not what the backends claim

A table stands between two marks, and the first says what is in it: a half (locks or broker), `brief` for claims without
numbers, and the URLs that are compared:

    <!-- capabilities: locks brief memory:// sqlite:///shop.db -->
    <!-- end -->

The list of all behaviours that the conformance kit knows stands between `<!-- catalogue -->` and the same end.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from narrowboat import registry
from narrowboat.capabilities import table
from narrowboat.conformance.catalogue import CATALOGUE, NEEDS_FAULT, NOT_OFFERED
from narrowboat.dsn import Url, parse_options

ROOT = Path(__file__).resolve().parent.parent
MARK = re.compile(r"(<!-- capabilities: (?P<what>[^\n]+?) -->\n)(?P<table>.*?)(<!-- end -->)", re.DOTALL)
CATALOGUE_MARK = re.compile(r"(<!-- catalogue -->\n)(?P<list>.*?)(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """Every page that may have tables."""
    return sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("backends/*/README.md")])


def render(text: str) -> str:
    """`text` with each table as the backends claim it now."""
    text = MARK.sub(lambda match: f"{match[1]}\n{rows(match['what'].split())}\n{match[4]}", text)
    return CATALOGUE_MARK.sub(lambda match: f"{match[1]}\n{behaviours()}\n{match[3]}", text)


def behaviours() -> str:
    """Every id with its text, under its guarantee; and what it needs where that is not at hand everywhere."""
    lines: list[str] = []
    guarantee = ""
    for entry in CATALOGUE.values():
        if entry.guarantee != guarantee:
            guarantee = entry.guarantee
            lines += ["", f"### {guarantee}", "", "| id | behaviour |", "| --- | --- |"]
        note = f" (not offered: {NOT_OFFERED[entry.id]})" if entry.id in NOT_OFFERED else ""
        note = f" (needs {NEEDS_FAULT[entry.id].value})" if entry.id in NEEDS_FAULT else note
        lines.append(f"| {entry.id} | {entry.text.replace('|', '/').replace('<', '&lt;')}{note} |")
    return "\n".join(lines[1:]) + "\n"


def rows(words: Sequence[str]) -> str:
    """One table in Markdown."""
    half, *rest = words
    brief = rest[:1] == ["brief"]
    urls = rest[1:] if brief else rest
    claims = [claimed(half, url) for url in urls]
    names = [
        field.name
        for field in dataclasses.fields(claims[0])
        if not brief or (isinstance(getattr(claims[0], field.name), enum.Enum) and field.name != "concurrency")
    ]
    texts = [table(claim) for claim in claims]
    lines = [["claim", *map(heading, urls)], ["---"] * (len(urls) + 1)]
    lines += [[f"`{name}`", *(text[name] for text in texts)] for name in names]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def claimed(half: str, url: str) -> Any:
    """What the backend of `url` claims; known from the URL alone, nothing is opened."""
    parsed = Url.parse(url)
    backend: Any = (registry.lock_backend if half == "locks" else registry.broker_backend)(parsed.scheme)
    return backend.capabilities(parsed, parse_options(parsed, backend.options, {}))


def heading(url: str) -> str:
    """The scheme with its driver, and the options that make a difference."""
    parsed = Url.parse(url)
    options = "&".join(f"{name}={value}" for name, value in parsed.query.items())
    return f"{parsed.named} `?{options}`" if options else parsed.named


def main(arguments: Sequence[str]) -> int:
    """Write or check all pages; the exit code."""
    stale = [page for page in pages() if render(page.read_text(encoding="utf-8")) != page.read_text(encoding="utf-8")]
    for page in stale:
        print(f"{page.relative_to(ROOT)}: {'its tables are not what is claimed' if arguments else 'written'}")
        if not arguments:
            page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 1 if stale and arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
