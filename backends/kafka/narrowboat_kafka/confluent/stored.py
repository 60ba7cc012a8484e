"""A message of librdkafka as a record of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import methodcaller
from typing import Any

from narrowboat_kafka.format.records import ID
from narrowboat_kafka.format.stored import NO_UTF8, Stored, pack_headers

#: At a third of the price of `Stored(...)`, which is paid for each message.
_stored: Callable[[Sequence[Any]], Stored] = partial(tuple.__new__, Stored)

#: `message.headers()`. Where a name is no UTF-8, the library gives a list with holes, and an exception beside it. A call that
#: Python has made often does not look for that any more, and the process ends in the holes; this one always looks.
_headers_of: Callable[[Any], Any] = methodcaller("headers")

_NONE = pack_headers([])
#: What headers begin with where the only one is the id, with one byte for its length.
_ONLY_ID = pack_headers([(ID, b"")])[:-1]


class Unnamed(Stored):
    """A record with headers whose names are no UTF-8. The library gives none of its headers then."""

    problem = f"its headers cannot be read: {NO_UTF8}"


def stored(message: Any, topic: str) -> Stored:
    """`message` as it lies in `topic`."""
    kind, timestamp = message.timestamp()
    if not kind:
        timestamp = -1
    try:
        headers = _headers_of(message)
    except (SystemError, UnicodeError):  # what it kept is damaged: it must not be asked again
        return Unnamed(topic, message.partition(), message.offset(), timestamp, message.key(), message.value(), _NONE)
    if headers is None:
        packed = _NONE
    elif len(headers) == 1 and headers[0][0] == ID and headers[0][1] is not None and len(headers[0][1]) < 64:
        value = headers[0][1]
        packed = b"%b%c%b" % (_ONLY_ID, 2 * len(value), value)
    else:
        packed = pack_headers(headers)
    return _stored((topic, message.partition(), message.offset(), timestamp, message.key(), message.value(), packed))
