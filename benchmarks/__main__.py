"""`python -m benchmarks [PART ...]`: the table of each part; alone, that of locks and messages.

A part is a file of this folder with `rows`: locks, messages, sqlite, or the name of a server.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

PARTS = ("locks", "messages")


def main() -> None:
    """Print one line for each comparison."""
    print(f"{'what':<75} {'ours':>14} {'other':>14} {'ratio':>7}  target")
    for part in sys.argv[1:] or PARTS:
        module = importlib.import_module(f"benchmarks.{part}")
        with tempfile.TemporaryDirectory() as folder:
            for row in module.rows(Path(folder)):
                ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
                print(
                    f"{row.what:<75} {row.ours:>14} {row.other:>14} {ratio:>7}  {row.target}{'' if row.met else '  MISSED'}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
