"""The pytest options of the conformance kit, for `pytest --pyargs narrowboat.conformance --url URL`.

pytest loads this module in every run of everybody who has Narrowboat installed, so it imports nothing of it, and adds the
options and the kit's own plugin only when `narrowboat.conformance` is asked for: a conftest inside the package would come
too late ("unrecognized arguments"), and options that are always there would clash with a project's own `--url`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

PACKAGE = "narrowboat.conformance"


def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Add the options if the kit is asked for."""
    if not any(arg == PACKAGE or arg.startswith((f"{PACKAGE}.", f"{PACKAGE}::")) for arg in args):
        return
    group = parser.getgroup("narrowboat", "Narrowboat conformance")
    group.addoption("--url", dest="url", help="the backend to verify, such as sqlite:////tmp/verify.db")
    group.addoption("--only", action="append", default=[], help="ids or scenarios, separated by commas: L12,B40")
    tiers = "tiers by letter: C core, T timing, S stress, P processes, N network, R server, H histories"
    group.addoption("--tier", action="append", default=[], help=tiers)
    group.addoption("--half", choices=["locks", "messages"], help="one half instead of both")
    group.addoption("--face", choices=["sync", "asyncio"], help="one face instead of both")
    group.addoption("--size", type=float, default=1.0, help="scales the rounds of stress scenarios; 1 is the full size")
    group.addoption("--report-json", dest="report_json", metavar="PATH", help="write the run as JSON")
    group.addoption("--report-html", dest="report_html", metavar="PATH", help="write the run as a page")
    early_config.pluginmanager.import_plugin(f"{PACKAGE}.plugin")
