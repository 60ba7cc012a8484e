"""What kafka-python raises, as the one error that the rest of the backend knows. The library's own is kept as its cause."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import kafka.errors as client

from narrowboat.driver.texts import cut
from narrowboat_kafka.client import Code, KafkaError
from narrowboat_kafka.errors import line


class SpeaksTls(client.InvalidReceiveError):  # type: ignore[misc]  # the base class has no annotations
    """The server's port is for TLS, and we came without."""


#: What the server said, in the answer that the library quotes.
_MESSAGE = re.compile(r"error_message=(?P<quote>['\"])(?P<said>.+?)(?P=quote)")
#: Of a topic that the server does not make: there the library puts the whole request around what was said.
_QUOTED = (client.InvalidReplicationFactorError, client.InvalidPartitionsError, client.PolicyViolationError)
#: What is met on our side of the wire, or is the same as that. The first that fits counts.
_OURS = (
    ((client.KafkaTimeoutError, client.RequestTimedOutError), Code.TIMED_OUT_HERE),
    (SpeaksTls, Code.SPEAKS_TLS),
    (client.UnsupportedCodecError, Code.CODEC_MISSING),
    ((client.NodeNotReadyError, client.TooManyInFlightRequests), Code.NOT_SENT),
    (client.KafkaConnectionError, Code.UNREACHABLE),
)


def met(error: BaseException, *, code: int | None = None) -> KafkaError:
    """`error` of the library, or of what it calls. `code`: where its class does not say which one it is."""
    if code is None:
        number = getattr(error, "errno", None) if isinstance(error, client.KafkaError) else None
        code = next((each for kind, each in _OURS if isinstance(error, kind)), Code.OTHER if number is None else number)
    quoted = _MESSAGE.search(str(error)) if isinstance(error, _QUOTED) else None
    text = cut(quoted["said"]) if quoted else line(error)
    found = KafkaError(code, text, retriable=bool(getattr(error, "retriable", False)))
    found.__cause__ = error
    return found


@contextmanager
def border() -> Iterator[None]:
    """What the library raises in here comes out as ours."""
    try:
        yield
    except client.KafkaError as error:
        raise met(error) from error
