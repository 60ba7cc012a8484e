"""The conformance kit: every promise of every backend as a scenario, run on both faces against the live backend.

    pytest --pyargs narrowboat.conformance --url sqlite:////tmp/verify.db
    narrowboat verify sqlite:////tmp/verify.db

    from narrowboat.conformance import Harness, suite      # three lines in a third party's own tests
    test_conformance = suite(Harness("mine://localhost"))

The promises stand in `catalogue`, one stable id a line. `scenarios` prove them. `harness` is what a backend must give. A
scenario is handed a `kit`, as `lock_kit` or `message_kit`: `users` act in it, `faults` strike, `checks` judge. `runner` decides
which scenarios run and what their outcome is, and `report` shows it. `histories` are random work under faults, from a seed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from narrowboat.conformance.faults.network import Network
    from narrowboat.conformance.faults.server import Server
    from narrowboat.conformance.harness import Harness
    from narrowboat.conformance.items import suite
    from narrowboat.conformance.report import Report
    from narrowboat.conformance.report.page import page
    from narrowboat.conformance.runner import Outcome, Row
    from narrowboat.conformance.verification import history_command, verify, verify_command

#: Where each name is. They are imported when they are asked for: a scenario's child processes need none of them, and their
#: imports took half of the processor time of a run.
_HOMES = {
    "Harness": "harness",
    "Network": "faults.network",
    "Outcome": "runner",
    "Report": "report",
    "Row": "runner",
    "Server": "faults.server",
    "history_command": "verification",
    "page": "report.page",
    "suite": "items",
    "verify": "verification",
    "verify_command": "verification",
}

__all__ = [
    "Harness",
    "Network",
    "Outcome",
    "Report",
    "Row",
    "Server",
    "history_command",
    "page",
    "suite",
    "verify",
    "verify_command",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
