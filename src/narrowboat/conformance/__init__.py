"""The conformance kit: every promise of every backend as a scenario, run on both faces against the live backend.

    pytest --pyargs narrowboat.conformance --url sqlite:////tmp/verify.db
    narrowboat verify sqlite:////tmp/verify.db

    from narrowboat.conformance import Harness, suite      # three lines in a third party's own tests
    test_conformance = suite(Harness("mine://localhost"))

What is promised stands in `catalogue`, one stable id a line; what proves it in `scenarios`; what a backend must give in
`harness`. A scenario is handed a `kit`: `users` act in it, `faults` strike, `checks` judge. `runner` decides what runs and what
came of it, and `report` shows it.
"""

from narrowboat.conformance.faults.network import Network
from narrowboat.conformance.faults.server import Server
from narrowboat.conformance.harness import Harness
from narrowboat.conformance.report import Report
from narrowboat.conformance.report.markup import page
from narrowboat.conformance.runner import Outcome, Row
from narrowboat.conformance.suite import suite
from narrowboat.conformance.verification import verify, verify_command

__all__ = ["Harness", "Network", "Outcome", "Report", "Row", "Server", "page", "suite", "verify", "verify_command"]
