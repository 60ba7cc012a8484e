"""What several commands take: the backend's URL, seconds, headers, counts; each checked before anything is sent."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])

#: "-" where a URL is expected: take it from the environment.
FROM_ENVIRONMENT = "-"
#: The variables that `-` stands for.
LOCKS_URL, BROKER_URL = "NARROWBOAT_LOCKS_URL", "NARROWBOAT_BROKER_URL"


class Seconds(click.ParamType):  # type: ignore[type-arg]  # click 8.1 knows no ParamType of something
    """A finite number of seconds, at least `least`."""

    name = "seconds"

    def __init__(self, least: float = 0.0) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """`value` as seconds, or a usage error."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not math.isfinite(seconds) or seconds < self._least:
            self.fail(f"{value!r} is no number of seconds from {self._least:g}", param, ctx)
        return seconds


class Duration(click.ParamType):  # type: ignore[type-arg]  # the same
    """A number of seconds above 0 and up to `most`, or one with a unit: `90`, `90s`, `10m`, `1h`."""

    name = "time"

    def __init__(self, most: int) -> None:
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """`value` in seconds, or a usage error."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value))
        seconds = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
        if not 0 < seconds <= self._most:
            self.fail(f"{value!r} is no time: write 90, 90s, 10m; {self._most // 60} minutes at most", param, ctx)
        return seconds


class Header(click.ParamType):  # type: ignore[type-arg]  # the same
    """`name=value`."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """`value` cut at its first `=`, or a usage error."""
        if isinstance(value, tuple):
            return value
        header, equals, text = value.partition("=")
        if not equals or not header:
            self.fail(f"{value!r} is no header: write NAME=VALUE", param, ctx)
        return header, text


def locks_url(command: Command) -> Command:
    """The URL of a lock backend; None for `-`, which the library takes from NARROWBOAT_LOCKS_URL."""
    return click.argument("url", metavar="URL", callback=_url)(command)


def broker_url(command: Command) -> Command:
    """The URL of a message backend; None for `-`, which the library takes from NARROWBOAT_BROKER_URL."""
    return click.argument("url", metavar="URL", callback=_url)(command)


def as_json(command: Command) -> Command:
    """`--json`: for programs that read the output."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def group_option(command: Command) -> Command:
    """`--group`: QUEUE is a topic and this the subscription."""
    return click.option("--group", metavar="NAME", help="QUEUE is a topic; take this group's subscription.")(command)


def yes_option(command: Command) -> Command:
    """`--yes`: do not ask before what cannot be undone."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(command)


def keep_urls(command: Command) -> Command:
    """`--keep-urls`; see `environment`."""
    return click.option(
        "--keep-urls",
        is_flag=True,
        help="Leave NARROWBOAT_LOCKS_URL and NARROWBOAT_BROKER_URL, with their passwords, in the command's environment.",
    )(command)


def environment(*, keep_urls: bool, **more: str) -> dict[str, str]:
    """What a command of the user's sees: ours, without the URLs and the passwords in them unless it is to have them."""
    ours = {name: value for name, value in os.environ.items() if keep_urls or name not in (LOCKS_URL, BROKER_URL)}
    return {**ours, **more}


def from_environment(url: str | None, variable: str) -> str | None:
    """`url`; where it is `-`, what `variable` says. A usage error when that says nothing."""
    if url != FROM_ENVIRONMENT:
        return url
    found = os.environ.get(variable)
    if not found:
        raise click.UsageError(f"- takes the URL from {variable}, which is not set")
    return found


def _url(ctx: click.Context, param: click.Parameter, value: str) -> str | None:
    return None if value == FROM_ENVIRONMENT else value
