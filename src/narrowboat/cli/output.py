"""What people and programs read: tables and progress bars for the ones, JSON for the others, one line for errors.

Nothing that comes from a backend reaches the terminal as it is: control characters in a lock's name or in a header
could otherwise move the cursor, change colours, or let a text read otherwise than it is.
"""

from __future__ import annotations

import codecs
import io
import json
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from narrowboat.cli.portable import json_text

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

#: Up to the last '@': a password may have a bare '/' or '@' in it, where somebody forgot to write %2F or %40.
_CREDENTIALS = re.compile(r"(:/?/?)\S*@")
_SECRET_OPTION = re.compile(r"([?&][^=&\s]*(?:password|secret|token|passphrase)[^=&\s]*=)[^&\s'\"]*", re.IGNORECASE)


def redact(text: str) -> str:
    """`text` without the credentials of any URL in it: a misplaced argument is often one.

    >>> redact("unexpected argument redis://shop:hunter2@a/0?password=x")
    'unexpected argument redis://***@a/0?password=***'
    """
    return _SECRET_OPTION.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", text))


def printable(value: object) -> str:
    r"""`value` as text that a terminal only shows.

    >>> printable("a\x1b[31mb"), printable(None)
    ('a\\x1b[31mb', '')
    """
    text = "" if value is None else str(value)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def printable_lines(text: str) -> str:
    """`text` as lines that a terminal only shows, for what we have put into lines ourselves."""
    return "\n".join(printable(line) for line in text.split("\n"))


def escape_what_cannot_be_written() -> None:
    """Let standard output take any text, whatever its encoding: by escapes of JSON, which people can read as well.

    Else one queue with a name that Latin-1 does not have would keep a terminal of that encoding from all the others.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and codecs.lookup(sys.stdout.encoding).name != "utf-8":
        codecs.register_error("narrowboat-json", _as_json)
        sys.stdout.reconfigure(errors="narrowboat-json")


def _as_json(error: UnicodeError) -> tuple[str, int]:
    r"""An error handler for codecs.

    >>> _as_json(UnicodeEncodeError("ascii", "a\xfc\U0001f6a2", 1, 3, "why"))
    ('\\u00fc\\ud83d\\udea2', 3)
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def complain(text: str) -> None:
    """One line on standard error."""
    print(f"narrowboat: {printable(redact(text))}", file=sys.stderr, flush=True)


def print_traceback(error: BaseException) -> None:
    """Where `error` comes from, on standard error, without the credentials of the URLs in it."""
    print(printable_lines(redact("".join(traceback.format_exception(error)))), end="", file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """One JSON document on standard output; see `json_text`."""
    print(json_text(value, indent=2 if sys.stdout.isatty() else None), flush=True)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None, right: Sequence[str] = ()
) -> None:
    """A table on standard output; see `make_table`."""
    from rich.console import Console

    # Into a pipe there is no width to keep to, and a folded name would be of no use to grep.
    console = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False)
    console.print(make_table(columns, rows, title=title, right=right))


def make_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None, right: Sequence[str] = ()
) -> Table:
    """A table to be shown; `right` names the columns whose cells are aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def progress_bar() -> Progress:
    """A progress bar on standard error, shown only on a terminal and gone at the end. Use it in a `with` block."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    # Standard output is left alone: rich would send it to the console of the bar, and what a program reads with it.
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal, redirect_stdout=False)
