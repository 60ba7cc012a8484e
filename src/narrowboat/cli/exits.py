"""Exit codes: what a script can tell apart, and which error gives which code.

The numbers above 64 are those of sysexits.h where it has one for the case, the numbers above 125 those of the shells.
"""

from __future__ import annotations

import enum

from narrowboat.errors import (
    AccessDenied,
    ConfigurationError,
    InvalidArgument,
    LeaseLost,
    LockTimeout,
    NarrowboatError,
    Unavailable,
    Unsupported,
)


class Exit(enum.IntEnum):
    """What a command exits with, beside what a command run by `lock` exits with itself."""

    OK = 0
    FAILED = 1  #: the work failed, in part or as a whole; or what was asked for is not there
    USAGE = 2  #: a URL, an option, an argument or an installation that cannot work; nothing was sent
    DATA = 65  #: a malformed line on the input
    UNAVAILABLE = 69  #: the backend did not answer
    BUG = 70  #: a fault of Narrowboat itself
    BUSY = 75  #: the lock has another holder; trying again later can help
    DENIED = 77  #: the backend refused this user
    LEASE_LOST = 79  #: the lock was lost while the command ran, and the command was ended
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127
    SIGNALLED = 128  #: and the signal's number: 130 after Ctrl-C, 141 when the reader of the output went away


#: For `--help`.
EPILOG = (
    "Exit codes: 0 done; 1 failed, in part or as a whole, or not there; 2 a URL, option or argument that cannot work; "
    "65 a malformed line of input; 69 the backend did not answer; 70 a fault of Narrowboat itself; 75 the lock is busy; "
    "77 access denied; 79 the lock was lost; 128+N ended by signal N."
)

_CODES: tuple[tuple[type[NarrowboatError], Exit], ...] = (
    (ConfigurationError, Exit.USAGE),
    (InvalidArgument, Exit.USAGE),
    (Unsupported, Exit.USAGE),
    (Unavailable, Exit.UNAVAILABLE),
    (AccessDenied, Exit.DENIED),
    (LockTimeout, Exit.BUSY),
    (LeaseLost, Exit.LEASE_LOST),
)


def code_of(error: NarrowboatError) -> Exit:
    """The exit code for an error of the library."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILED)


def code_of_status(status: int) -> int:
    """The exit code for a child's wait status: its own, or 128 and the signal that ended it, as shells have it.

    >>> code_of_status(3 << 8), code_of_status(15)
    (3, 143)
    """
    signum = status & 0x7F
    return Exit.SIGNALLED + signum if signum else status >> 8
