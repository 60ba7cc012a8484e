"""What a field of a message may be. A peer may send anything; what has passed here keeps the promises of the contract's values.

Each function returns the value or raises `Malformed`, which names the field.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

from narrowboat.contract.messages import Address, Kind
from narrowboat_zeromq.protocol.frames import ITEMS_MAX, Malformed

#: 1 to 1,000 characters without control characters: what the core lets through. Half of a surrogate pair `unpack` refuses.
_TEXT = re.compile("[^\0-\x1f\x7f-\x9f]{1,1000}")
#: The largest whole number of a tag or token: what a database and most languages hold.
_WHOLE = 2**63
_FINITE = sys.float_info.max
#: Numbers that a tag may have.
_TAG_MAX = 8

E = TypeVar("E")


def text(what: str, value: object) -> str:
    """A name, an id, a key."""
    if type(value) is not str or _TEXT.fullmatch(value) is None:
        raise Malformed(f"{what}: 1 to 1000 characters without control characters are allowed")
    return value


def text_or_none(what: str, value: object) -> str | None:
    """The same, or nothing."""
    return None if value is None else text(what, value)


def words(what: str, value: object, longest: int = 65536) -> str:
    """Any text: a label, a reason, the value of a header."""
    if type(value) is not str or len(value) > longest:
        raise Malformed(f"{what}: text of up to {longest} characters is allowed")
    return value


def number(what: str, value: object, low: float, high: float) -> float:
    """A number between the two."""
    if (type(value) is not float and type(value) is not int) or not low <= value <= high:  # also false for NaN
        raise Malformed(f"{what}: a number from {low:g} to {high:g} is allowed")
    return value if type(value) is float else float(value)


def whole(what: str, value: object, low: int = 0, high: int = _WHOLE - 1) -> int:
    """A whole number between the two."""
    if type(value) is not int or not low <= value <= high:
        raise Malformed(f"{what}: a whole number from {low} to {high} is allowed")
    return value


def flag(what: str, value: object) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise Malformed(f"{what}: true or false is allowed")
    return value


def finite(what: str, value: object) -> float:
    """Any number that a float can be: a whole one may have thousands of digits."""
    return number(what, value, -_FINITE, _FINITE)


def row(what: str, value: object, length: int) -> Sequence[Any]:
    """An array of that length."""
    if type(value) is not list or len(value) != length:
        raise Malformed(f"{what}: an array of {length} fields is allowed")
    return value


def rows(what: str, value: object) -> Sequence[Any]:
    """An array of items, as many as one request may have."""
    if type(value) is not list or len(value) > ITEMS_MAX:
        raise Malformed(f"{what}: an array of up to {ITEMS_MAX} items is allowed")
    return value


def one_of(what: str, value: object, known: dict[str, E]) -> E:
    """What one of some words stands for."""
    if type(value) is not str or value not in known:
        raise Malformed(f"{what}: one of {', '.join(known)} is allowed")
    return known[value]


_KINDS = {kind.value: kind for kind in Kind}


def address(value: object) -> Address:
    """An address: `[kind, name, group]`."""
    kind, name, group = row("address", value, 3)
    try:
        return _address(kind, name, group)
    except TypeError:  # an array or an object, which cannot be looked up
        raise Malformed("address: an array of three texts is allowed") from None


@functools.lru_cache(maxsize=1024)
def _address(kind: object, name: object, group: object) -> Address:
    """Messages of a batch go to one address: looking at it each time would be a fifth of what a message costs."""
    found = one_of("address", kind, _KINDS)
    if found is Kind.SUBSCRIPTION:
        return Address(found, text("name", name), text("group", group))
    if group != "":
        raise Malformed("address: only a subscription has a group")
    return Address(found, text("name", name))


def tag(value: object) -> tuple[int, ...]:
    """What a delivery is known by to the server's driver: whole numbers."""
    if type(value) is not list or len(value) > _TAG_MAX:
        raise Malformed(f"tag: an array of up to {_TAG_MAX} whole numbers is allowed")
    return tuple([whole("tag", each, -_WHOLE) for each in value])
