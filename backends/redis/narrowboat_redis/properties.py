"""The properties of a source in the form that the scripts store, and the errors for a script's refusals. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from narrowboat.contract import Properties
from narrowboat.errors import NarrowboatError
from narrowboat_redis.endpoint import RedisEndpoint
from narrowboat_redis.streams import StreamKeys


def texts_of(properties: Properties) -> tuple[bytes, bytes, bytes, bytes]:
    """Properties as they are stored.

    >>> texts_of(Properties())
    (b'30.0', b'5', b'0', b'0')
    """
    lease, most, ordered, levels = properties
    return repr(float(lease)).encode(), b"%d" % most, b"%d" % ordered, b"%d" % levels


def properties_of(texts: Sequence[bytes]) -> Properties:
    """The properties, from what `texts_of` made of them."""
    lease, most, ordered, levels = texts
    return Properties(float(lease), int(most), ordered == b"1", int(levels))


def refusal(answer: Sequence[bytes], keys: StreamKeys, asked: Properties, endpoint: RedisEndpoint) -> NarrowboatError | None:
    """The error in a script's answer; None where it begins with "ok"."""
    word = answer[0]
    if word == b"ok":
        return None
    if word == b"missing":
        return endpoint.refuse.missing(keys.path, keys.kind.value)
    if word == b"differs":
        return endpoint.refuse.differs(keys.path, properties_of(answer[1:5])._asdict(), asked)
    found, whose = answer[1].decode(), answer[2].decode()
    return endpoint.refuse.taken(keys.path.rpartition(".")[0] if whose else keys.path, found, whose or keys.kind.value)
