"""What librdkafka tells, as the one error that the rest of the backend knows. The library's own is kept as its cause."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError as Told
from confluent_kafka import KafkaException

from narrowboat.driver.texts import cut
from narrowboat_kafka.client import Code, KafkaError


class Local(enum.IntEnum):
    """librdkafka's own numbers, for what it meets on our side of the wire."""

    BAD_MSG = -199
    BAD_COMPRESSION = -198
    TRANSPORT = -195
    RESOLVE = -193
    MSG_TIMED_OUT = -192
    PARTITION_EOF = -191
    UNKNOWN_PARTITION = -190
    UNKNOWN_TOPIC = -188
    ALL_BROKERS_DOWN = -187
    TIMED_OUT = -185
    SSL = -181
    WAIT_COORD = -180
    UNKNOWN_GROUP = -179
    NOT_IMPLEMENTED = -170
    AUTHENTICATION = -169
    TIMED_OUT_QUEUE = -166
    UNSUPPORTED_FEATURE = -165
    PURGE_QUEUE = -152
    PURGE_INFLIGHT = -151
    FATAL = -150
    GAPLESS_GUARANTEE = -148
    FENCED = -144
    ASSIGNMENT_LOST = -142


_OURS: dict[int, Code] = {
    Local.TIMED_OUT: Code.TIMED_OUT_HERE,
    Local.TIMED_OUT_QUEUE: Code.TIMED_OUT_HERE,
    Local.MSG_TIMED_OUT: Code.TIMED_OUT_HERE,
    Local.PURGE_QUEUE: Code.TIMED_OUT_HERE,
    Local.PURGE_INFLIGHT: Code.TIMED_OUT_HERE,
    Local.TRANSPORT: Code.UNREACHABLE,
    Local.ALL_BROKERS_DOWN: Code.UNREACHABLE,
    Local.RESOLVE: Code.UNREACHABLE,
    Local.SSL: Code.TLS_FAILED,
    Local.AUTHENTICATION: Code.SASL_AUTHENTICATION_FAILED,
    Local.BAD_MSG: Code.DAMAGED,
    Local.BAD_COMPRESSION: Code.DAMAGED,
    Local.NOT_IMPLEMENTED: Code.CODEC_MISSING,
    Local.UNKNOWN_TOPIC: Code.UNKNOWN_TOPIC_OR_PARTITION,
    Local.UNKNOWN_PARTITION: Code.UNKNOWN_TOPIC_OR_PARTITION,
    Local.WAIT_COORD: Code.COORDINATOR_NOT_AVAILABLE,
    Local.UNSUPPORTED_FEATURE: Code.UNSUPPORTED_VERSION,
    Local.ASSIGNMENT_LOST: Code.NOT_A_MEMBER,
    Local.UNKNOWN_GROUP: Code.NOT_A_MEMBER,
    Local.GAPLESS_GUARANTEE: Code.OUT_OF_ORDER_SEQUENCE_NUMBER,
    Local.FENCED: Code.PRODUCER_FENCED,
}
#: Kafka's numbers after which the same may succeed a moment later.
_RETRIABLE = frozenset({3, 5, 6, 7, 9, 13, 14, 15, 16, 19, 20, 27, 41, 56, 84, 89})
_PASSING = frozenset({Code.TIMED_OUT_HERE, Code.UNREACHABLE})
#: The server takes SASL, and not this mechanism. librdkafka has no number for that.
_MECHANISM = "Unsupported SASL mechanism"


def told(error: Any, *, code: int | None = None) -> KafkaError:
    """What a `KafkaError` of the library says, or an exception around one. `code`: another than its own."""
    cause = error if isinstance(error, BaseException) else KafkaException(error)
    inner = error.args[0] if isinstance(error, KafkaException) and error.args else error
    if not isinstance(inner, Told):
        found = KafkaError(Code.OTHER if code is None else code, cut(str(error), 300) or type(error).__name__)
    else:
        text = cut(inner.str() or inner.name(), 300)
        if code is None:
            number = inner.code()
            code = _OURS.get(number, number if number >= 0 else Code.OTHER)
            if _MECHANISM in text:
                code = Code.UNSUPPORTED_SASL_MECHANISM
        found = KafkaError(code, text, retriable=code in _RETRIABLE or code in _PASSING or inner.retriable())
    found.__cause__ = cause
    return found


@contextmanager
def border() -> Iterator[None]:
    """What the library raises in here comes out as ours."""
    try:
        yield
    except KafkaException as error:
        raise told(error) from error
    except TimeoutError as error:
        raise KafkaError(Code.TIMED_OUT_HERE, "the server did not answer in time", retriable=True) from error
