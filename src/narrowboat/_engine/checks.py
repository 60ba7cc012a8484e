"""Checks of what callers give that locks and messages make alike: text, flags, seconds. Each raises `InvalidArgument`."""

from __future__ import annotations

import unicodedata

from narrowboat.errors import InvalidArgument

#: Longest name, key, id in characters.
TEXT_MAX = 1000


def text(what: str, value: object) -> str:
    """`value` if it is text of 1 to 1,000 characters without control characters or lone surrogates."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{what} {value!r}: expected text, got {type(value).__name__}")
    if not 1 <= len(value) <= TEXT_MAX:
        shown = f"{value[:20]!r}... of {len(value)} characters" if value else "''"
        raise InvalidArgument(f"{what} {shown}: allowed are 1 to {TEXT_MAX} characters")
    if not value.isprintable():
        for position, character in enumerate(value):
            if unicodedata.category(character) in ("Cc", "Cs"):
                raise InvalidArgument(
                    f"{what} {value!r}: character {position} is U+{ord(character):04X}; control characters and lone "
                    "surrogates are not allowed"
                )
    return value


def flag(what: str, value: object) -> bool:
    """`value` if it is True or False."""
    if not isinstance(value, bool):
        raise InvalidArgument(f"{what}={value!r}: expected True or False")
    return value


def seconds(what: str, value: object, *, low: float, high: float, allowed: str) -> float:
    """`value`, a number of seconds or a `timedelta`, within `low` and `high`; `InvalidArgument` says what is allowed."""
    total = getattr(value, "total_seconds", None)
    number = total() if total is not None else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise InvalidArgument(f"{what}={value!r}: allowed is {allowed}; got {type(value).__name__}")
    if not low <= number <= high:  # also false for NaN
        raise InvalidArgument(f"{what}={value!r}: allowed is {allowed}")
    return float(number)
