"""Whether all numbers in a value are finite. JSON has no NaN and no infinity, and libraries write them as `null`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from narrowboat.codecs.errors import InvalidBody


def check_finite(plain: Any) -> None:
    """`InvalidBody` names the numbers in `plain`, which has dicts and lists, that are not finite."""
    found = [(path, "is no number that JSON has") for path in _not_finite(plain, "")]
    if found:
        raise InvalidBody(found)


def _not_finite(plain: Any, path: str) -> Iterator[str]:
    if isinstance(plain, float):
        if not math.isfinite(plain):
            yield path
    elif isinstance(plain, dict):
        for name, value in plain.items():
            yield from _not_finite(value, f"{path}.{name}" if path else str(name))
    elif isinstance(plain, (list, tuple, set, frozenset)):
        for position, value in enumerate(plain):
            yield from _not_finite(value, f"{path}[{position}]")
