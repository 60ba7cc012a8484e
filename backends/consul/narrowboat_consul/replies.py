"""Parses Consul's replies to transactions, with bounds and checks.

Another server may answer at that address, with any JSON. A reply that is not Consul's is a `ValueError` here, which the caller
translates. Nothing else is raised, and parsing takes no more memory than a few times the text.
"""

from __future__ import annotations

import json
import re
from typing import Any

#: The form of a session's id.
_ID = re.compile("[0-9A-Za-z-]{1,100}")
#: Values in one reply, at most: each costs some fifty bytes, however short it was as text. An entry has about ten.
VALUES = 1_000_000


def entries(body: str | bytes) -> list[dict[str, Any]]:
    """The entries that a transaction read or wrote: each with its `Key` and `ModifyIndex`.

    >>> entries('{"Results": [{"KV": {"Key": "a", "ModifyIndex": 3}}], "Errors": null}')
    [{'Key': 'a', 'ModifyIndex': 3}]
    """
    found = []
    for result in _list(body, "Results"):
        entry = result.get("KV") if isinstance(result, dict) else None
        if not isinstance(entry, dict) or not isinstance(entry.get("Key"), str) or type(entry.get("ModifyIndex")) is not int:
            raise ValueError("a result without a key and its index")
        if not isinstance(entry.get("Session"), str | None):
            raise ValueError("a session that is no text")
        found.append(entry)
    return found


def refusals(body: str | bytes, members: int) -> list[tuple[int, str]]:
    """Which of a transaction's `members` were refused, and why.

    >>> refusals('{"Results": null, "Errors": [{"OpIndex": 1, "What": "no"}]}', 2)
    [(1, 'no')]
    """
    found = []
    for error in _list(body, "Errors"):
        index, what = (error.get("OpIndex"), error.get("What")) if isinstance(error, dict) else (None, None)
        if type(index) is not int or not 0 <= index < members or not isinstance(what, str):
            raise ValueError("an error without its place and its text")
        found.append((index, what))
    return found


def session_id(body: str) -> str:
    """The id of a session that was made.

    >>> session_id('{"ID": "adf4238a-882b-9ddc-4a9d-5b6758e4159e"}')
    'adf4238a-882b-9ddc-4a9d-5b6758e4159e'
    """
    found = _object(body).get("ID")
    if not isinstance(found, str) or _ID.fullmatch(found) is None:
        raise ValueError("no id")
    return found


def filtered(body: str) -> bool:
    """Whether Consul says that it left entries out for want of rights (1.11 and later say so).

    The sign is no part of any text in the JSON: a quotation mark would have a backslash there.
    """
    return '"ResultsFilteredByACLs":true' in body


def _list(body: str | bytes, name: str) -> list[Any]:
    found = _object(body).get(name) or []
    if not isinstance(found, list):
        raise ValueError(f"{name} that are no list")
    return found


def _object(body: str | bytes) -> dict[str, Any]:
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    if sum(map(text.count, ",[{")) > VALUES:
        raise ValueError(f"more than {VALUES} values")
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("JSON of great depth") from None
    if not isinstance(found, dict):
        raise ValueError("JSON that is no object")
    return found
