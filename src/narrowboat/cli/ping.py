"""`narrowboat ping`: whether calls to a backend are answered, for a container's HEALTHCHECK and for a person."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

import narrowboat
from narrowboat import registry
from narrowboat.cli.command import Command
from narrowboat.cli.exits import Exit, code_of
from narrowboat.cli.options import BROKER_URL, FROM_ENVIRONMENT, LOCKS_URL, Seconds, as_json, from_environment
from narrowboat.cli.output import complain, print_json
from narrowboat.cli.reach import check_reach
from narrowboat.dsn import Url
from narrowboat.errors import NarrowboatError

_HALVES: dict[str, tuple[str, str, Callable[..., Any]]] = {
    "locks": (registry.LOCKS, LOCKS_URL, narrowboat.locks),
    "broker": (registry.BROKERS, BROKER_URL, narrowboat.broker),
}


@click.command("ping", cls=Command)
@click.argument("url", metavar="URL")
@click.option("--locks", is_flag=True, help="Ask the locks alone.")
@click.option("--broker", is_flag=True, help="Ask the broker alone.")
@click.option("--timeout", type=Seconds(0.01), help="Seconds for one answer; the URL's own timeout unless given.")
@as_json
def ping(url: str, locks: bool, broker: bool, timeout: float | None, as_json: bool) -> int:
    r"""Make one call to each half that URL has, and say how long the answer took.

    \b
      HEALTHCHECK CMD narrowboat ping "$NARROWBOAT_BROKER_URL" --broker --timeout 2

    The exit code is 0 where each was answered. A call that would fail for what the URL asks for, such as a folder that is not
    there, fails here as well, as far as the backend can know. "-" asks each half whose variable is set.
    """
    halves = [half for half, wanted in (("locks", locks), ("broker", broker)) if wanted]
    found = [_ask(half, where, timeout) for half, where in _targets(url, halves)]
    for each in found:
        if as_json:
            continue
        if each["error"] is None:
            click.echo(f"{each['half']} of {each['url']} answered after {each['seconds'] * 1000:.1f} ms")
        else:
            complain(f"{each['half']}: {each['error']}")
    if as_json:
        print_json([{name: value for name, value in each.items() if name != "code"} for each in found])
    return next((each["code"] for each in found if each["code"]), Exit.OK)


def _targets(url: str, halves: list[str]) -> Iterator[tuple[str, str]]:
    """Each half that is to be asked, and its URL: those that were named, else those that the URL's scheme has."""
    if url == FROM_ENVIRONMENT:
        chosen = halves or [half for half, (_, variable, _) in _HALVES.items() if os.environ.get(variable)]
        if not chosen:
            raise click.UsageError(f"- takes the URL from {LOCKS_URL} and {BROKER_URL}, and neither is set")
        for half in chosen:
            found = from_environment(url, _HALVES[half][1])
            assert found is not None  # it was no URL
            yield half, found
        return
    scheme = Url.parse(url).scheme
    offered = [half for half, (group, _, _) in _HALVES.items() if scheme in registry.schemes(group)]
    for half in halves or offered or list(_HALVES):
        yield half, url


def _ask(half: str, url: str, timeout: float | None) -> dict[str, Any]:
    """One half: how long it took, or what was met."""
    options = {} if timeout is None else {"timeout": timeout}
    told: dict[str, Any] = {"half": half, "url": str(Url.parse(url)), "seconds": None, "error": None, "code": Exit.OK}
    try:
        with _HALVES[half][2](url, **options) as face:
            check_reach(face.capabilities)
            begun = time.monotonic()
            face.ping()
            told["seconds"] = round(time.monotonic() - begun, 6)
    except NarrowboatError as error:
        return {**told, "error": str(error), "code": code_of(error)}
    return told
