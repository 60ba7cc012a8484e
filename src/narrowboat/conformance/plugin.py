"""The pytest side of `pytest --pyargs narrowboat.conformance --url URL`: options, the reports, the exit code.

Registered by the top-level module `narrowboat_pytest`, and only when `narrowboat.conformance` is asked for.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from narrowboat.conformance import report
from narrowboat.conformance.harness import Harness
from narrowboat.conformance.report.markup import page
from narrowboat.conformance.runner import Outcome, Row, missed
from narrowboat.conformance.suite import Item, parameters
from narrowboat.conformance.verification import select
from narrowboat.errors import NarrowboatError

_STARTED = pytest.StashKey[float]()
_ITEMS = pytest.StashKey[list[Any]]()


def items(config: pytest.Config) -> list[Any]:
    """All items for the options given. `pytest.UsageError` when they make no sense."""
    if _ITEMS not in config.stash:
        url = config.getoption("url", None)
        if not url:
            raise pytest.UsageError("narrowboat.conformance: give --url, such as --url sqlite:////tmp/verify.db")
        try:
            config.stash[_ITEMS] = parameters(Harness(url), *_selected(config))
        except NarrowboatError as error:
            raise pytest.UsageError(f"narrowboat.conformance: {error}") from None
        config.stash[_STARTED] = time.monotonic()
    return config.stash[_ITEMS]


def _selected(config: pytest.Config) -> tuple[list[str], list[str], list[str], float, str | None]:
    only, tiers, face, size, half = (config.getoption(name) for name in ("only", "tier", "face", "size", "half"))
    words = [word for given in only for word in given.split(",") if word]
    letters = [letter for given in tiers for letter in given if letter != ","]
    return words, letters, [face] if face else ["sync", "asyncio"], size, half


def _rows(config: pytest.Config) -> tuple[Harness, list[Row], list[Row]] | None:
    ran = [param.values[0] for param in config.stash.get(_ITEMS, []) if isinstance(param.values[0], Item)]
    if not ran:
        return None
    rows = [row for item in ran for row in item.rows]
    return ran[0].harness, rows, missed(ran[0].harness, select(*_selected(config)), rows)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Refuse what makes no sense before anything is collected: there it would look like a broken test file."""
    items(session.config)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the reports; not green when something owed was not executed."""
    config = session.config
    found = None if config.getoption("collectonly") else _rows(config)
    if found is None:
        return
    harness, rows, extra = found
    if exitstatus == pytest.ExitCode.OK and any(row.outcome is Outcome.BROKEN for row in extra):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    made = report.make(harness, [*rows, *extra], seconds=time.monotonic() - config.stash[_STARTED])
    if path := config.getoption("report_json"):
        Path(path).write_text(json.dumps(made.as_json(), indent=1) + "\n", encoding="utf-8")
    if path := config.getoption("report_html"):
        Path(path).write_text(page([made]), encoding="utf-8")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The counts by outcome, and what was owed and did not run."""
    found = None if config.getoption("collectonly") else _rows(config)
    if found is None:
        return
    harness, rows, extra = found
    counts = report.make(harness, [*rows, *extra], seconds=0).count()
    terminalreporter.section("narrowboat conformance")
    terminalreporter.line(", ".join(f"{number} {outcome}" for outcome, number in counts.items() if number))
    forgotten = [f"{row.id} {row.face}" for row in extra if row.outcome is Outcome.BROKEN]
    if forgotten:
        terminalreporter.line(f"owed, and not executed: {', '.join(forgotten)}", red=True)
        terminalreporter.line("(to run a part of the kit, say which with --only, --tier or --face)")
