"""Codecs: what turns `data` into a message's bytes and back.

In the API a codec is an object, `queue("orders", codec=JSON)`, and any object with the four names of `Codec` will do; by name
(`json`) codecs are only known to URLs and to the command line, which find them in the entry point group
`narrowboat.codecs`. A codec is called in the publisher's or the consumer's own thread. It does no I/O, and it must not
run what it decodes: bytes come from whoever may publish.

`Model(Order)` reads and writes one type, `Versions` several of them, `CloudEvents` puts another codec's data into events.
What needs a library is loaded at the first look at its name, so that a missing library is found there and not by a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrowboat.codecs.codec import Codec, Encoded, Head, MessageCodec
from narrowboat.codecs.errors import InvalidBody, NewerVersion
from narrowboat.codecs.finding import by_name, check, names
from narrowboat.codecs.plain import BYTES, JSON, TEXT, Bytes, Json, Text

if TYPE_CHECKING:
    from narrowboat.codecs.cloudevents import CloudEvents
    from narrowboat.codecs.model import Model
    from narrowboat.codecs.msgpack import MSGPACK, MsgPack
    from narrowboat.codecs.protobuf import Protobuf
    from narrowboat.codecs.versions import Versions

__all__ = [
    "BYTES",
    "Bytes",
    "CloudEvents",
    "Codec",
    "Encoded",
    "Head",
    "InvalidBody",
    "JSON",
    "Json",
    "MSGPACK",
    "MessageCodec",
    "Model",
    "MsgPack",
    "NewerVersion",
    "Protobuf",
    "TEXT",
    "Text",
    "Versions",
    "by_name",
    "check",
    "names",
]

_LATER = {
    "CloudEvents": "cloudevents",
    "MSGPACK": "msgpack",
    "Model": "model",
    "MsgPack": "msgpack",
    "Protobuf": "protobuf",
    "Versions": "versions",
}


def __getattr__(name: str) -> object:
    if name in _LATER:  # only programs that use them pay
        from importlib import import_module

        return getattr(import_module(f"narrowboat.codecs.{_LATER[name]}"), name)
    raise AttributeError(f"module 'narrowboat.codecs' has no attribute {name!r}")
