"""The conformance kit: every promise of every backend as a scenario, run on both faces against the live backend.

    pytest --pyargs narrowboat.conformance --url sqlite:////tmp/verify.db
    narrowboat verify sqlite:////tmp/verify.db

    from narrowboat.conformance import Harness, suite      # three lines in a third party's own tests
    test_conformance = suite(Harness("mine://localhost"))

What is promised stands in `catalogue`, one stable id a line; the scenarios in `locks_*` and `broker_*`; what a backend must
give in `harness`; deliberately broken backends, which the kit must catch, in `mutants` and `mutants_broker`.
"""

from narrowboat.conformance.harness import Harness
from narrowboat.conformance.report import Report, page
from narrowboat.conformance.runner import Outcome, Row
from narrowboat.conformance.suite import suite
from narrowboat.conformance.verification import verify, verify_command

__all__ = ["Harness", "Outcome", "Report", "Row", "page", "suite", "verify", "verify_command"]
