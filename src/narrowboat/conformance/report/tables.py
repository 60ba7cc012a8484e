"""A table of the page. On a narrow screen its style turns each row into a block, so the roles of a table are written out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    """Markup of a table whose first column has the headings of the rows. With `numbers` all others stand to the right.

    Caption and cells are markup. The heads are plain words without quotes.
    """
    kind = " class='num'" if numbers else ""
    first, *others = heads
    columns = "".join(f"<th scope='col' role='columnheader'{kind}>{each}</th>" for each in others)
    body = "".join(
        f"<tr role='row'><th scope='row' role='rowheader'>{row[0]}</th>"
        + "".join(f"<td role='cell'{kind} data-of='{head}'>{cell}</td>" for head, cell in zip(others, row[1:], strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f"<table role='table'><caption>{caption}</caption><thead role='rowgroup'><tr role='row'>"
        f"<th scope='col' role='columnheader'>{first}</th>{columns}</tr></thead><tbody role='rowgroup'>{body}</tbody></table>"
    )


def folded(summary: str, markup: str) -> str:
    """Markup that a reader opens."""
    return f"<details class='more'><summary>{summary}</summary>{markup}</details>"
