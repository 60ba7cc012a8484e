"""The pytest side of `pytest --pyargs narrowboat.conformance --url URL`: the items, the reports, the exit code.

The top-level module `narrowboat_pytest` adds the options and registers this plugin, only when `narrowboat.conformance` is
asked for.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from narrowboat.conformance import report
from narrowboat.conformance.harness import Harness
from narrowboat.conformance.items import Item, parameters
from narrowboat.conformance.report import Report
from narrowboat.conformance.runner import Selection, missed
from narrowboat.conformance.verification import select, write
from narrowboat.errors import NarrowboatError

_STARTED = pytest.StashKey[float]()
_ITEMS = pytest.StashKey[list[Any]]()
_REPORT = pytest.StashKey[Report]()


def items(config: pytest.Config) -> list[Any]:
    """All items for the options given. `pytest.UsageError` when they make no sense."""
    if _ITEMS not in config.stash:
        url = config.getoption("url", None)
        if not url:
            raise pytest.UsageError("narrowboat.conformance: give --url, such as --url sqlite:////tmp/verify.db")
        try:
            config.stash[_ITEMS] = parameters(Harness(url), _selected(config))
        except NarrowboatError as error:
            raise pytest.UsageError(f"narrowboat.conformance: {error}") from None
        config.stash[_STARTED] = time.monotonic()
    return config.stash[_ITEMS]


def _selected(config: pytest.Config) -> Selection:
    only, tiers, face, size, half = (config.getoption(name) for name in ("only", "tier", "face", "size", "half"))
    words = [word for given in only for word in given.split(",") if word]
    letters = [letter for given in tiers for letter in given if letter != ","]
    return select(words, letters, [face] if face else ["sync", "asyncio"], size, half)


def _forgotten(made: Report) -> list[str]:
    """The ids and faces that are owed and were not executed."""
    return [f"{row.id} {row.face}" for row in made.broken if not row.scenario]


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Refuse options that make no sense before anything is collected: there the refusal would look like a broken test file."""
    items(session.config)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the reports. The exit code is not 0 when something owed was not executed."""
    config = session.config
    ran = [param.values[0] for param in config.stash.get(_ITEMS, []) if isinstance(param.values[0], Item)]
    if not ran or config.getoption("collectonly"):
        return
    harness, rows = ran[0].harness, [row for item in ran for row in item.rows]
    rows += missed(harness, _selected(config), rows)
    made = report.make(harness, rows, seconds=time.monotonic() - config.stash[_STARTED])
    config.stash[_REPORT] = made
    if exitstatus == pytest.ExitCode.OK and _forgotten(made):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    write(made, config.getoption("report_json"), config.getoption("report_html"))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the counts by outcome, and what was owed and did not run."""
    made = config.stash.get(_REPORT, None)
    if made is None:
        return
    terminalreporter.section("narrowboat conformance")
    terminalreporter.line(made.counts)
    if forgotten := _forgotten(made):
        terminalreporter.line(f"owed, and not executed: {', '.join(forgotten)}", red=True)
        terminalreporter.line("(to run a part of the kit, say which with --only, --tier or --face)")
