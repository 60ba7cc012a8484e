"""The console entry point: `narrowboat`. It loads the command line, or says in one line how to get it.

The command line needs click and rich, which the core does not; so they come with the extra `cli` and are imported here
and nowhere earlier.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command line; the exit code. 2 without the extra `cli`: an installation that cannot work."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _open_standard_streams()
    try:
        from narrowboat.cli import run
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("click", "rich"):
            raise  # a fault of ours, which must not hide behind advice to install something
        from narrowboat.registry import how_to_install

        print(
            f"narrowboat: the command line needs {missing}, which is not installed: {how_to_install('narrowboat', 'cli')}",
            file=sys.stderr,
        )
        return 2
    return run()


def _open_standard_streams() -> None:
    """A stream that whoever started us has closed is one that nobody wants, and no fault.

    The descriptors are taken as well: the next file or socket would get the number, and what is written there would go into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # for as long as the process lives


if __name__ == "__main__":
    sys.exit(main())
