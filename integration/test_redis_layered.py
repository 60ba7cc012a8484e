"""The conformance kit on Redis behind a seal and compression: messages alone, since locks have neither."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path
from typing import Any

from integration.conformance import conformance
from integration.redis_harness import RedisHarness
from integration.servers import RedisServer
from narrowboat.conformance.catalogue import Fault
from narrowboat.layers.sealed.keyring import document_of
from narrowboat.layers.sealed.keys import ED25519, GCM, Key, public_half


class Messages(RedisHarness):
    """For the half that layers change."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.halves = ("broker",)


class Sealed(Messages):
    """What other programs write has no seal, and is refused: it is not delivered as it is."""

    def faults(self, half: str) -> frozenset[Fault]:
        return super().faults(half) - {Fault.FOREIGN}


_folder = tempfile.TemporaryDirectory(prefix="narrowboat-")
atexit.register(_folder.cleanup)


def _keyring(kind: str) -> str:
    secret = bytes(range(32))
    path = Path(_folder.name, f"{kind}.json")
    path.touch(0o600)
    path.write_text(document_of([Key("k1", kind, 0.0, secret, public_half(secret) if kind == ED25519 else None)]))
    return str(path)


test_redis_sealed = conformance(RedisServer, harness=Sealed, query=f"durability=aof&seal={_keyring(GCM)}&compress=zlib")
test_redis_signed = conformance(RedisServer, harness=Messages, tiers="CP", query=f"seal={_keyring(ED25519)}&seal_clear=*")
