"""What a driver does with the version that a server says it has: numbers to compare, and a word to the log when it is new.

A driver is proven on some versions of its server. A later minor one hardly changes what it stands on; a major one may, and then
the one who looks for a reason finds a line in the log. Nothing is refused, and no call is made for it.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Collection

_logger = logging.getLogger("narrowboat")
_mutex = threading.Lock()
_told: set[tuple[str, int]] = set()


def numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with, to be compared; nothing where it is no version.

    >>> numbers("3.10.8") < numbers("4.0.5-rc.1"), numbers("7.2.0-alpine"), numbers("unstable")
    (True, (7, 2, 0), ())
    """
    found = re.match(r"[0-9]{1,9}(\.[0-9]{1,9})*", version)
    return tuple(int(each) for each in found[0].split(".")) if found is not None else ()


def tried(product: str, version: str, known: Collection[str]) -> bool:
    """Whether the major version of the server is one of those in `known`; once in a process the log is told where it is not.

    Args:
        product: the server's name, for people.
        version: what it said. What is no version says nothing, and is not told of.
        known: versions with which the driver was proven, such as "3.10" and "4.3".
    """
    major = numbers(version)[:1]
    if not major or any(numbers(each)[:1] == major for each in known):
        return bool(major)
    with _mutex:
        news = (product, major[0]) not in _told
        _told.add((product, major[0]))
    if news:
        _logger.warning(
            "%s %s was never tried with this version of Narrowboat; tried were %s. `narrowboat verify URL` tries it",
            product,
            version[:40],
            ", ".join(known),
        )
    return False
