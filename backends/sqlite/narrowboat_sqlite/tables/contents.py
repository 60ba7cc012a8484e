"""From the columns of a message to what a consumer is handed, also where another program wrote or damaged them.

Such a message is delivered with what could be read of it and a sentence on the rest, so that it is handled or becomes a dead
letter, like any other. Pure functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from narrowboat.contract import Address, Delivery, Kind
from narrowboat_sqlite.tables.strange import number, text_or_none, whole

_NOTHING = (None, None, None)
_new = tuple.__new__


def delivery(row: tuple[Any, ...], token: int) -> Delivery:
    """What `message_rows.claim` found in one row."""
    row_id, _, attempt, left, name, body, headers, key, published, priority, details = row
    said = _NOTHING if details is None else _details(details)
    texts = {} if headers is None else headers_of(headers)
    if (
        said is None
        or texts is None
        or name.__class__ is not str
        or body is None
        or not (key is None or key.__class__ is str)
        or not (published is None or number(published, -1e12, 1e12))
        or priority.__class__ is not int
    ):
        return _malformed(row, token)
    # This runs for every message: `Delivery(...)` would take twice the time.
    return _new(Delivery, (name, body, texts, key, attempt, published, priority, left, *said, (row_id, token), "", ""))


def headers_of(stored: Any) -> Mapping[str, str] | None:
    """The headers in a column; None when they are none."""
    if stored is None:
        return {}
    found = _json(stored)
    if found.__class__ is dict and all(text.__class__ is str for text in found.values()):
        return found
    return None


def _details(stored: Any) -> tuple[str | None, str | None, Address | None] | None:
    """Correlation id, content type and reply address. Only an inbox is taken: a consumer replies with rights of its own."""
    if stored is None:
        return _NOTHING
    found = _json(stored)
    if found.__class__ is not list or len(found) != 3 or not (text_or_none(found[0]) and text_or_none(found[1])):
        return None
    correlation, content_type, reply_to = found
    if reply_to is None:
        return correlation, content_type, None
    if reply_to.__class__ is not list or len(reply_to) != 3 or reply_to[0] != Kind.INBOX.value or reply_to[2] != "":
        return None
    return (correlation, content_type, Address(Kind.INBOX, reply_to[1])) if reply_to[1].__class__ is str else None


def _json(stored: Any) -> Any:
    if stored.__class__ is not str:
        return None
    try:
        return json.loads(stored)
    except (ValueError, RecursionError):  # no JSON, thousands of digits, thousands of brackets
        return None


def _malformed(row: tuple[Any, ...], token: int) -> Delivery:
    row_id, message, attempt, left, name, body, headers, key, published, priority, details = row
    said, texts = _details(details), headers_of(headers)
    wrong = {
        "name": name.__class__ is not str,
        "body": body is None,
        "headers": texts is None,
        "key": not text_or_none(key),
        "published": not (published is None or number(published, -1e12, 1e12)),
        "priority": priority.__class__ is not int,
        "details": said is None,
    }
    columns = ", ".join(column for column, is_wrong in wrong.items() if is_wrong)
    correlation, content_type, reply_to = said or _NOTHING
    return Delivery(
        str(name) if name else f"row {row_id}",
        body or b"",
        texts or {},
        None if wrong["key"] else key,
        attempt,
        None if wrong["published"] else published,
        priority if whole(priority) else 0,
        left,
        correlation,
        content_type,
        reply_to,
        (row_id, token),
        f"row {message} of the table message was deleted, damaged or written by another program: {columns} cannot be read",
    )
