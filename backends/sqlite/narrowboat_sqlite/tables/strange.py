"""What another program wrote into our tables, or damaged: how it is read, and what of it is believed.

SQLite keeps any type in any column, and text that is no UTF-8. Every program that can write the file can leave such a row. The
row may harm its own lock or message and no other. So a connection reads text leniently once it has met some that is no UTF-8,
and each row is checked here before it is used.

Nothing here decides what becomes of a strange row; no I/O but the statements on the caller's connection.
"""

from __future__ import annotations

import re
import sqlite3
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from narrowboat.contract.locks import Holder, Mode
from narrowboat.errors import Conflict
from narrowboat_sqlite.options import SCHEME

#: Counters at or above this are not ours: they cannot have been counted up to it, and some readers lose digits there.
HIGH = 2**53
#: The longest lease that is granted, in seconds, and how much a lease may seem longer by when its clock was read.
_TTL_MAX, _SLACK = 7 * 86400.0, 1.0

_NAME_MAX = 1000
_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")

MODES = {mode.value: mode for mode in Mode}


class Text(str):
    """Text that was no UTF-8, its odd bytes as escapes: to be shown, and equal to nothing that is ours."""


def read_text(raw: bytes) -> str:
    """A `text_factory` that takes anything."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Text(raw.decode("utf-8", "backslashreplace"))


def undecodable(error: sqlite3.Error) -> bool:
    """Whether a text was met that is no UTF-8, by a connection that expects none."""
    # It comes from Python's module, so it has no code of SQLite's.
    return getattr(error, "sqlite_errorcode", None) is None and str(error).startswith("Could not decode to UTF-8")


def whole(value: object, low: int = 0, high: int = HIGH) -> bool:
    """Whether it is a whole number from `low` up to, and without, `high`."""
    return value.__class__ is int and low <= value < high


def number(value: object, low: float, high: float) -> bool:
    """Whether it is a number from `low` to `high`."""
    return (value.__class__ is float or value.__class__ is int) and low <= value <= high


def text_or_none(value: object) -> bool:
    """Whether it is text as we write it, or nothing."""
    return value is None or value.__class__ is str


def is_lease(token: object, owner: object, mode: object, size: object, ttl: Any, renewals: object) -> bool:
    """Whether a row of `lock_holder` can be ours, but for its times."""
    return (
        whole(token, 1)
        and owner.__class__ is str
        and mode.__class__ is str
        and mode in MODES
        and (whole(size, 1) if mode == Mode.SEMAPHORE.value else size is None)
        and number(ttl, 0, _TTL_MAX)
        and whole(renewals)
    )


def is_time(clock: object, until: object, longest: float, *, now: float, ours: str) -> bool:
    """Whether a time of the clock `clock` can be one of ours, that was set `longest` seconds ahead at most."""
    return clock.__class__ is str and number(until, float("-inf"), now + longest + _SLACK if clock == ours else float("inf"))


def is_waiter(seq: object, owner: object, mode: object, size: object, looks: object) -> bool:
    """Whether a row of `lock_waiter` can be ours, but for its times."""
    return is_lease(1, owner, mode, size, 1, looks) and whole(seq)


class Place(NamedTuple):
    """Where a strange row of `lock_holder` is: its name and token as bytes, each with its type."""

    name: bytes
    name_type: str
    token: bytes
    token_type: str


_SHOWN = (
    "SELECT name, token, CAST(name AS BLOB), typeof(name), CAST(token AS BLOB), typeof(token) FROM lock_holder WHERE prefix = ?"
)


def evict(connection: sqlite3.Connection, prefix: str, name: str, token: int) -> bool:
    """Delete the row that `holder` shows as `name` and `token`, whatever it is made of. Whether there was one."""
    for shown, shown_token, *place in connection.execute(_SHOWN, (prefix,)).fetchall():
        if token_of(shown_token) == token and name_of(shown) == name:
            connection.execute(
                "DELETE FROM lock_holder WHERE prefix = ? AND CAST(name AS BLOB) = ? AND typeof(name) = ?"
                " AND CAST(token AS BLOB) = ? AND typeof(token) = ?",
                (prefix, *place),
            )
            return True
    return False


def holder(name: object, token: object, label: object, acquired_at: Any, waiters: int) -> Holder:
    """A strange row as people see it. What cannot be read is left out; name and token are what `evict` takes."""
    when = float(acquired_at) if number(acquired_at, 0, 1e11) else 0.0
    return Holder(name_of(name), token_of(token), name_of(label), Mode.EXCLUSIVE, None, when, None, waiters, foreign=True)


def is_name(value: object) -> bool:
    """Whether it can be a lock's name or label."""
    return value.__class__ is str and name_of(value) == value


def name_of(value: Any) -> str:
    """A name or label of any type as the text that stands for it, which a caller may give as a name."""
    text = read_text(value) if isinstance(value, bytes) else "" if value is None else str(value)
    if not text.isprintable():
        text = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return text[:_NAME_MAX] or "(empty)"


def token_of(value: object) -> int:
    """A token of any type as a number from 0 to 2**63 - 1: its own, or one that stands for what it is."""
    return value if isinstance(value, int) and value >= 0 else 2**62 + zlib.crc32(repr(value).encode())


def conflict(name: str) -> Conflict:
    """The error for a lock whose record cannot be ours."""
    return Conflict(
        f"lock {name!r}: a record stands under this name that Narrowboat has not written, or that was damaged, so nobody can "
        "tell whether it is held. Nothing was changed. `narrowboat holders` shows it; look who wrote it, then evict it by its "
        "token.",
        backend=SCHEME,
    )


def counter_conflict(name: str, counter: Sequence[object] | None) -> Conflict:
    """The answer while the counter of fencing tokens is not to be believed."""
    return Conflict(
        f"lock {name!r}: the counter of fencing tokens in this file reads {counter!r}, which it has not come to by counting, "
        "so the next token might be smaller than an earlier one. Nothing was changed. Stop all programs that use the file and "
        "take another one, or set next and reserved in lock_counter above every token that was ever given.",
        backend=SCHEME,
    )
