"""`narrowboat verify`: the conformance kit against a live backend, or a history with faults, with its report."""

from __future__ import annotations

import os
from pathlib import Path

import click

from narrowboat.cli.command import Command
from narrowboat.cli.options import BROKER_URL, FROM_ENVIRONMENT, LOCKS_URL, Duration
from narrowboat.cli.output import printable_lines, progress_bar

#: Seconds of the longest history: the clocks that watch for pauses of the machine remember an hour.
LONGEST = 3000


@click.command("verify", cls=Command)
@click.argument("url", metavar="URL")
@click.option(
    "--only", multiple=True, metavar="ID", help="Only these ids, such as L12, or scenarios; may be repeated, or commas."
)
@click.option(
    "--tier",
    multiple=True,
    metavar="LETTER",
    help="Only these tiers: C core, T timing, S stress, P processes, N network, R server, H histories; repeat, or use commas.",
)
@click.option("--half", type=click.Choice(["locks", "messages"]), help="Only this half.  [default: both, where URL has them]")
@click.option("--face", type=click.Choice(["sync", "asyncio"]), help="Only this face.  [default: both]")
@click.option("--size", type=float, default=1.0, show_default=True, help="Of the stress scenarios.")
@click.option("--history", type=Duration(LONGEST), help="Instead, random work under faults for so long, such as 10m; judge it.")
@click.option("--seed", type=int, help="Of the plan of a history: the same seed is the same plan.  [default: a new one]")
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), help="For a history that breaks a rule.  [default: temporary]"
)
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Write the report as JSON."
)
@click.option(
    "--html", "html_path", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Write the report as a page."
)
def verify(
    url: str,
    only: tuple[str, ...],
    tier: tuple[str, ...],
    half: str | None,
    face: str | None,
    size: float,
    history: float | None,
    seed: int | None,
    folder: Path | None,
    json_path: Path | None,
    html_path: Path | None,
) -> int:
    """Run the conformance kit against the live backend behind URL: what it claims is proven, or fails.

    A URL of "-" takes NARROWBOAT_LOCKS_URL or NARROWBOAT_BROKER_URL, whichever is set.

    Locks and messages are both tried, as far as the URL's scheme has them. The kit works in names of its own; what is
    there already is not touched. Exit code 0 when nothing is broken, 1 when something is.

    With --history, clients and faults are made from a seed, and what they recorded is judged.
    """
    from narrowboat.conformance import history_command, verify_command  # the kit is large, and no other command needs it

    def out(text: str) -> None:
        click.echo(printable_lines(text), nl=False)  # errors quote what servers say

    if history is None and (seed is not None or folder is not None):
        raise click.UsageError("--seed and --folder are for --history: add --history 60s, or leave them out")
    if history is not None:
        if only or tier or face:
            raise click.UsageError("--history runs no scenarios: leave out --only, --tier and --face")
        return history_command(
            _located(url),
            seconds=history,
            seed=seed,
            half=half,
            folder=folder,
            json_path=json_path,
            html_path=html_path,
            out=out,
        )
    with progress_bar() as bar:
        task = bar.add_task("scenarios", total=None)
        return verify_command(
            _located(url),
            only=split(only),
            tier=split(tier),
            half=half,
            face=face,
            size=size,
            json_path=json_path,
            html_path=html_path,
            progress=lambda done, total, rows: bar.update(task, completed=done, total=total),
            out=out,
        )


def _located(url: str) -> str:
    """`url`; where it is `-`, the one that the environment names."""
    if url != FROM_ENVIRONMENT:
        return url
    found = {os.environ[variable] for variable in (LOCKS_URL, BROKER_URL) if os.environ.get(variable)}
    if len(found) != 1:
        what = "name two backends; unset one of them" if found else "are not set"
        raise click.UsageError(f"- takes the URL from {LOCKS_URL} or {BROKER_URL}, which {what}")
    return found.pop()


def split(words: tuple[str, ...]) -> list[str]:
    """Words that may come one by one or with commas.

    >>> split(("L1,L2", "B3"))
    ['L1', 'L2', 'B3']
    """
    return [word for part in words for word in part.replace(",", " ").split()]
