"""CloudEvents 1.0 around another codec's data, for systems that pass events of many programs on.

    orders = broker.queue("orders", codec=CloudEvents(Model(Order), source="/shop", type="shop.order.placed"))

`message.data` is the data, and `codec.attributes(message)` the rest. A batch of events in one message is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from narrowboat.codecs.codec import Codec, Encoded, Head
from narrowboat.codecs.codec import decode as decode_by
from narrowboat.codecs.errors import InvalidBody
from narrowboat.codecs.finding import check
from narrowboat.codecs.labelled import is_json, media_type
from narrowboat.errors import InvalidArgument

T = TypeVar("T")

Mode = Literal["binary", "structured"]
Prefix = Literal["ce_", "ce-", "cloudEvents_", "cloudEvents:"]

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
#: What attributes in headers begin with, by the bindings: in reading each of them counts, whatever its case.
PREFIXES: tuple[Prefix, ...] = ("ce_", "ce-", "cloudEvents_", "cloudEvents:")
#: The header in which the binding of `ce_` has the content type; the others have a field of the message for it.
CONTENT_TYPE = "content-type"
#: What a publisher cannot give: the message or the codec has it.
_OURS = frozenset({"specversion", "id", "time", "partitionkey", "datacontenttype", "data", "data_base64"})
_REQUIRED = ("id", "source", "specversion", "type")
_NAME = re.compile(r"[a-z0-9]+")


class CloudEvents(Generic[T]):
    """A codec for events with the data of another codec.

    The event's `id` and `time` are the message's, its `partitionkey` is the key. Any other attribute of one event is a header
    of the publish, with the prefix: `publish(order, headers={"ce_subject": "42"})`. It may be `source` or `type` as well.

    Args:
        codec: that of the data.
        source: where the events come from, a URI reference such as `/shop`.
        type: what happened, such as `shop.order.placed`.
        mode: "binary" sends the attributes as headers and the data as the body; "structured" all in one JSON document.
        prefix: of the headers: "ce_" is that of the binding to Kafka, "cloudEvents_" of that to AMQP. Both modes then read and
            write what the binding says. Events with any prefix and in either mode are read.
        strict: whether a message has to be an event, of this `type`. Else one that is no event is read as data alone, as those
            are that were published before there were events.

    Raises:
        InvalidArgument: an empty source or type, another mode or prefix, no codec.
    """

    def __init__(
        self,
        codec: Codec[T],
        *,
        source: str,
        type: str,
        mode: Mode = "binary",
        prefix: Prefix = "ce_",
        strict: bool = False,
    ) -> None:
        self.codec: Codec[T] = check(codec)
        if hasattr(codec, "encode_message"):
            raise InvalidArgument(f"codec={codec!r}: events are not put into events")
        for name, given in (("source", source), ("type", type)):
            if not isinstance(given, str) or not given:
                raise InvalidArgument(f"{name}={given!r}: expected text, such as '/shop' or 'shop.order.placed'")
        if mode not in ("binary", "structured"):
            raise InvalidArgument(f"mode={mode!r}: expected 'binary' or 'structured'")
        if prefix not in PREFIXES:
            raise InvalidArgument(f"prefix={prefix!r}: expected one of {', '.join(map(repr, PREFIXES))}")
        self.source, self.type, self.mode, self.prefix, self.strict = source, type, mode, prefix, strict
        self.name = codec.name
        self.content_type = STRUCTURED if mode == "structured" else codec.content_type

    def encode(self, data: T, /) -> bytes:
        """The data alone: an event is made of a message."""
        return self.codec.encode(data)

    def decode(self, body: bytes, /) -> T:
        """The data alone."""
        return self.codec.decode(body)

    def encode_message(self, data: T, head: Head, /) -> Encoded:
        """See `MessageCodec`; `ValueError` for a header that cannot be an attribute."""
        headers, attributes = self._split(head)
        body = self.codec.encode(data)
        content_type = head.content_type or self.codec.content_type
        if self.mode == "structured":
            body, content_type = _document(attributes, content_type, body), STRUCTURED
        else:
            headers |= {f"{self.prefix}{name}": value for name, value in attributes.items()}
        if self.prefix == "ce_" and content_type is not None:
            headers[CONTENT_TYPE] = content_type
        return Encoded(body, content_type, headers)

    def decode_message(self, body: bytes, head: Head, /) -> T:
        """See `MessageCodec`; `InvalidBody` names the attributes that are missing, or the data's fields."""
        found = _event(body, head)
        if found is None:
            if self.strict:
                raise InvalidBody([("specversion", "is missing: this message is no event")])
            return decode_by(self.codec, body, head)
        attributes, data, content_type = found
        missing = [name for name in _REQUIRED if not attributes.get(name)]
        if missing:
            raise InvalidBody((name, "is missing") for name in missing)
        if attributes["specversion"] != "1.0":
            raise InvalidBody([("specversion", f"is {attributes['specversion']!r}, and 1.0 is known")])
        if self.strict and attributes["type"] != self.type:
            raise InvalidBody([("type", f"is {attributes['type']!r}, and has to be {self.type!r}")])
        if data is None:
            raise InvalidBody([("data", "is missing")])
        return decode_by(self.codec, data, _DataHead(head.id, head.key, head.headers, content_type, head.published_at))

    def attributes(self, message: Any, /) -> dict[str, str]:
        """The attributes of the event in a message, without the data; none where it is no event."""
        found = _event(message.body, message)
        return {} if found is None else found[0]

    def headers_schema(self) -> dict[str, Any]:
        """The JSON Schema of the headers in binary mode."""
        names = {f"{self.prefix}{name}": schema for name, schema in self._schemas().items()}
        return {"type": "object", "properties": names, "required": sorted(f"{self.prefix}{name}" for name in _REQUIRED)}

    def document_schema(self, data: Mapping[str, Any] | None, content_type: str | None) -> dict[str, Any]:
        """The JSON Schema of a body in structured mode, given that of its data."""
        name = "data" if is_json(media_type(content_type)) else "data_base64"
        found = {"type": "string", "contentEncoding": "base64"} if name == "data_base64" else {} if data is None else dict(data)
        properties = {**self._schemas(), "datacontenttype": {"type": "string"}, name: found}
        return {"type": "object", "properties": properties, "required": [*sorted(_REQUIRED), name]}

    def _schemas(self) -> dict[str, dict[str, Any]]:
        text = {"type": "string", "minLength": 1}
        return {
            "specversion": {"const": "1.0"},
            "id": text,
            "source": {**text, "format": "uri-reference", "default": self.source},
            "type": {**text, "const": self.type} if self.strict else {**text, "default": self.type},
            "time": {"type": "string", "format": "date-time"},
            "partitionkey": text,
        }

    def _split(self, head: Head) -> tuple[dict[str, str], dict[str, str]]:
        """The headers that stay, and the attributes."""
        now = time.time() if head.published_at is None else head.published_at
        attributes = {"specversion": "1.0", "id": head.id, "source": self.source, "type": self.type, "time": _instant(now)}
        headers = {}
        for header, value in head.headers.items():
            if not header.startswith(self.prefix):
                headers[header] = value
                continue
            name = header.removeprefix(self.prefix)
            if name in _OURS or not _NAME.fullmatch(name) or not value:
                raise ValueError(
                    f"header {header!r}: an attribute has a name of a-z and 0-9, a value, and is not one that comes from the "
                    f"message: {', '.join(sorted(_OURS))}"
                )
            attributes[name] = value
        if head.key:
            attributes["partitionkey"] = head.key
        return headers, attributes

    def __repr__(self) -> str:
        return f"CloudEvents({self.codec!r}, source={self.source!r}, type={self.type!r}, mode={self.mode!r})"


class _DataHead(NamedTuple):
    """The head of the data in an event: the content type is the data's."""

    id: str
    key: str | None
    headers: Mapping[str, str]
    content_type: str | None
    published_at: float | None


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _document(attributes: Mapping[str, str], content_type: str | None, body: bytes) -> bytes:
    event = dict(attributes)
    if content_type is not None:
        event["datacontenttype"] = content_type
    if is_json(media_type(content_type)):
        # A publish may say so of any bytes, and what is no document of its own could close this one and set its attributes.
        json.loads(body.decode(), parse_constant=_no_constant)
        return json.dumps(event, ensure_ascii=False).encode()[:-1] + b', "data": ' + body + b"}"
    return json.dumps({**event, "data_base64": base64.b64encode(body).decode()}, ensure_ascii=False).encode()


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _event(body: bytes, head: Head) -> tuple[dict[str, str], bytes | None, str | None] | None:
    """Attributes, data and its content type; None for a message that is no event."""
    lower = {name.lower(): value for name, value in head.headers.items()}
    content_type = head.content_type or lower.get(CONTENT_TYPE)
    media = media_type(content_type)
    if media == BATCH:
        raise InvalidBody([("content type", "is that of a batch of events, and one event a message is read")])
    if media == STRUCTURED:
        return _read(body)
    for prefix in map(str.lower, PREFIXES):
        if f"{prefix}specversion" in lower:
            attributes = {name.removeprefix(prefix): value for name, value in lower.items() if name.startswith(prefix)}
            return attributes, body, content_type
    return None


def _read(body: bytes) -> tuple[dict[str, str], bytes | None, str | None]:
    """A document of the structured mode."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidBody([("", f"no JSON: {error}")]) from None
    if not isinstance(event, dict):
        raise InvalidBody([("", "no JSON object")])
    content_type = event.get("datacontenttype")
    if not isinstance(content_type, str | None):
        raise InvalidBody([("datacontenttype", "is no text")])
    attributes = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in event.items()
        if value is not None and name not in ("data", "data_base64")
    }
    if "data_base64" in event:
        try:
            data = base64.b64decode(event["data_base64"], validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise InvalidBody([("data_base64", str(error))]) from None
        return attributes, data, content_type
    if "data" not in event:
        return attributes, None, content_type
    if content_type is not None and not is_json(media_type(content_type)) and isinstance(event["data"], str):
        return attributes, event["data"].encode(errors="surrogatepass"), content_type
    return attributes, json.dumps(event["data"]).encode(), content_type
