"""An AsyncAPI 3.1 document of a worker: its queues and topics, the messages that it takes there, and their schemas.

For catalogues, and for whoever publishes to the worker from another language. It is made of what was registered: nothing is
opened and no server is asked. What handlers publish, schedules and elections are not in it, nor is the broker's URL.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from narrowboat.codecs.cloudevents import CloudEvents
from narrowboat.codecs.codec import Codec
from narrowboat.codecs.versions import Versions
from narrowboat.working.handlers import Handler

VERSION = "3.1.0"
_SCHEMAS = "#/components/schemas/"
#: What a key of a channel, an operation, a message or a schema cannot have.
_NO_KEY = re.compile(r"[^A-Za-z0-9._-]")


def document(worker: Any, *, title: str, version: str) -> dict[str, Any]:
    """The document of a worker of either face, as JSON has it.

    Args:
        worker: the worker; its handlers have been registered.
        title: what it is called.
        version: of the program, which AsyncAPI demands.
    """
    made = _Document()
    for handler in worker._handlers:
        if isinstance(handler, Handler):
            made.add(handler)
    components = {name: part for name, part in (("messages", made.messages), ("schemas", made.schemas)) if part}
    return {
        "asyncapi": VERSION,
        "info": {"title": title, "version": version},
        "channels": made.channels,
        "operations": made.operations,
        **({"components": components} if components else {}),
    }


class _Document:
    """Its parts, by their keys. Two handlers of one topic share the channel, and messages that are alike."""

    def __init__(self) -> None:
        self.channels: dict[str, Any] = {}
        self.operations: dict[str, Any] = {}
        self.messages: dict[str, Any] = {}
        self.schemas: dict[str, Any] = {}

    def add(self, handler: Handler) -> None:
        """The channel of its source, the operation that it is, and its messages."""
        kind = "queue" if handler.group is None else "topic"
        at = _free(self.channels, handler.topic, lambda other: other["address"] == handler.topic)
        channel = self.channels.setdefault(at, {"address": handler.topic, "messages": {}, "x-narrowboat-kind": kind})
        takes = []
        for message in self._messages(handler):
            key = message["name"]
            if self.messages.setdefault(key, message) != message:  # another one of that name
                key = f"{_key(handler.source)}.{key}"
                self.messages[key] = message
            channel["messages"][key] = {"$ref": f"#/components/messages/{key}"}
            takes.append({"$ref": f"#/channels/{at}/messages/{key}"})
        operation: dict[str, Any] = {"action": "receive", "channel": {"$ref": f"#/channels/{at}"}, "messages": takes}
        told = (inspect.getdoc(handler.function) or "").partition("\n\n")
        texts = {"summary": " ".join(told[0].split()), "description": told[2].strip()}
        operation |= {field: text for field, text in texts.items() if text}
        if handler.group is not None:
            operation["x-narrowboat-group"] = handler.group
        self.operations[_free(self.operations, handler.name, lambda other: False)] = operation

    def _messages(self, handler: Handler) -> Iterator[dict[str, Any]]:
        """What its codec takes: one message, or one for each version."""
        codec: Codec[Any] | None = handler.codec
        events = codec if isinstance(codec, CloudEvents) else None
        inner: Any = codec if events is None else events.codec
        each: list[tuple[str, str | None, Codec[Any] | None]]
        if isinstance(inner, Versions):
            each = [(f"{part.name}.{number}", inner.label(number), part) for number, part in inner.versions.items()]
        elif inner is None:
            each = [(handler.source, None, None)]
        else:
            each = [(inner.name, inner.content_type, inner)]
        for name, content_type, part in each:
            message: dict[str, Any] = {"name": _key(name), "title": name}
            payload = self._schema(part, handler)
            if events is not None and events.mode == "structured":
                content_type, payload = events.content_type, events.document_schema(payload, content_type)
            elif events is not None:
                message["headers"] = events.headers_schema()
            if content_type is not None:
                message["contentType"] = content_type
            if payload is not None:
                message["payload"] = payload
            yield message

    def _schema(self, codec: Any, handler: Handler) -> dict[str, Any] | None:
        """The schema of its bodies, whose definitions are kept; None where the codec has none."""
        if not hasattr(codec, "json_schema"):
            return None
        schema, definitions = codec.json_schema(_SCHEMAS)
        if any(self.schemas.get(name, part) != part for name, part in definitions.items()):  # another type of that name
            prefix = f"{_key(handler.source)}."
            schema, definitions = codec.json_schema(_SCHEMAS + prefix)
            definitions = {f"{prefix}{name}": part for name, part in definitions.items()}
        self.schemas |= definitions
        found: dict[str, Any] = schema
        return found


def _key(name: str) -> str:
    return _NO_KEY.sub("_", name)


def _free(taken: Mapping[str, Any], name: str, same: Callable[[Any], bool]) -> str:
    """A key for `name`, or the first of `name_2`, `name_3`, ... that is free, or taken by the same."""
    key, number = _key(name), 1
    while key in taken and not same(taken[key]):
        number += 1
        key = f"{_key(name)}_{number}"
    return key
