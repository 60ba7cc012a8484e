"""Whether a fence lets a write pass: the comparison, what a token is, and the refusal. Pure; every fence decides by it.

A fence that compares elsewhere (in a statement, in a script) decides the same there, and makes its refusal here.
"""

from __future__ import annotations

import re

from narrowboat._engine import checks
from narrowboat.errors import InvalidArgument, StaleWrite

#: The greatest token: it fits a signed 64-bit column.
TOKEN_MAX = 2**63 - 1
_DIGITS = re.compile(r"0|[1-9][0-9]{0,18}")


def asked(name: object, token: object, what: str = "token") -> tuple[str, int]:
    """The two if they are a fence's name and a token, or the version that `what` says; else `InvalidArgument`."""
    if isinstance(token, bool) or not isinstance(token, int):
        raise InvalidArgument(f"{what}={token!r}: expected an int, such as `held.token`, got {type(token).__name__}")
    if not 0 <= token <= TOKEN_MAX:
        raise InvalidArgument(f"{what} of {token.bit_length()} bits or below 0: allowed is 0 to 2**63 - 1. Nothing was written")
    return checks.text("the name of a fence", name), token


def parse(text: str) -> int | None:
    """The token that a text is, in the one way to write it; None where it is anything else.

    >>> parse("17"), parse("017"), parse("+17"), parse("9" * 19)
    (17, None, None, None)
    """
    if not _DIGITS.fullmatch(text):
        return None
    token = int(text)
    return token if token <= TOKEN_MAX else None


def admit(name: str, token: int, newest: int) -> None:
    """Let a write with `token` pass where `newest` was seen. Equal ones pass: one holder writes several times.

    Raises:
        StaleWrite: the token is smaller.
    """
    if token < newest:
        raise stale(name, token, newest)


def stale(name: str, tried: int, found: int | None, what: str = "token") -> StaleWrite:
    """The refusal of a smaller token, or of another version."""
    seen = "a newer one" if found is None else found
    told = f"it has seen {seen}, of a newer holder" if what == "token" else f"it is at {seen}, because others have written"
    again = "Acquire the lock again" if what == "token" else "Read again"
    return StaleWrite(
        f"fence {name!r} refused {what} {tried}: {told}; nothing was written. {again}, and begin afresh from what is there now",
        name=name,
        tried=tried,
        found=found,
    )
