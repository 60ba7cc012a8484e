"""`python -m narrowboat`: the same as the command `narrowboat`."""

from __future__ import annotations

import sys

from narrowboat._script import main

if __name__ == "__main__":
    sys.exit(main())
