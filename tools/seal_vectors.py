"""Makes `docs/sealed-vectors.json`: sealed messages with the keys and nonces that they were made with, for other languages.

    python tools/seal_vectors.py > docs/sealed-vectors.json

A test compares the file with what this makes, and opens it by the page's words alone. A change here is a new version of the
format.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from narrowboat.contract import Address, Kind, Outgoing
from narrowboat.layers.sealed.format import Sealer, milliseconds, place_of
from narrowboat.layers.sealed.keys import ED25519, KINDS, Key, public_half

PUBLISHED, SEALED = 1796040000.123, 1796040001.5
_MESSAGES: list[dict[str, Any]] = [
    {"body": b"hello"},
    {
        "kind": "topic",
        "name": "prices",
        "body": b"",
        "headers": {"trace": "t-1", "\u00fcn\u00ef": "\U0001f6f6", "a": ""},
        "key": "42",
        "content_type": "application/json",
        "correlation_id": "c-7",
        "reply_to": "narrowboat.inbox." + "0f" * 16,
    },
]


def vectors() -> list[dict[str, Any]]:
    """Each kind of key with each message; bytes are in hexadecimal."""
    found = []
    for kind in KINDS:
        secret = hashlib.sha256(kind.encode()).digest()
        public = public_half(secret) if kind == ED25519 else None
        key = Key(f"vector-{kind}", kind, 0.0, secret, public)
        for number, fields in enumerate(_MESSAGES):
            to = Address(Kind(fields.get("kind", "queue")), fields.get("name", "orders"))
            nonce = hashlib.sha256(f"nonce {kind} {number}".encode()).digest()[:12]
            reply_to = fields.get("reply_to")
            message = Outgoing(
                to,
                f"id-{number}",
                fields["body"],
                fields.get("headers", {}),
                fields.get("key"),
                PUBLISHED,
                0.0,
                0,
                None,
                fields.get("correlation_id"),
                fields.get("content_type"),
                None if reply_to is None else Address(Kind.INBOX, reply_to),
                False,
            )
            sealed = Sealer(key, place_of(to)).seal(message, milliseconds(SEALED), nonce)
            found.append(
                {
                    "key": {"id": key.id, "kind": kind, "secret": secret.hex(), **({"public": public.hex()} if public else {})},
                    "nonce": nonce.hex(),
                    "published_ms": round(PUBLISHED * 1000),
                    "sealed_ms": round(SEALED * 1000),
                    "message": told(message),
                    "sealed": told(sealed),
                }
            )
    return found


def told(message: Outgoing) -> dict[str, Any]:
    """A message for JSON."""
    return {
        "to": [message.to.kind.value, message.to.name],
        "id": message.id,
        "key": message.key,
        "content_type": message.content_type,
        "correlation_id": message.correlation_id,
        "reply_to": None if message.reply_to is None else list(message.reply_to),
        "headers": dict(message.headers),
        "body": message.body.hex(),
    }


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
