"""Merge the JSON reports of several runs (backends, machines) into one page on standard output.

    python -m narrowboat.conformance.report sqlite.json redis.json > report.html

A report that was written by `narrowboat verify --json` is read as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from narrowboat.conformance.report import brief
from narrowboat.conformance.report.page import page


def main(argv: Sequence[str]) -> int:
    """Merge the JSON reports named in `argv` into one page on standard output."""
    if not argv:
        sys.stderr.write("usage: python -m narrowboat.conformance.report RUN.json... > report.html\n")
        return 2
    reports = []
    for path in argv:
        with open(path, encoding="utf-8") as file:
            reports.append(brief.read(json.load(file)))
    sys.stdout.write(page(reports))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
