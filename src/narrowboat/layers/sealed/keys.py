"""A key of a keyring, and what it makes for one address: ciphertexts, or signatures.

Three kinds: `aes-256-gcm` conceals and authenticates, `hmac-sha256` authenticates among those who have the secret, and
`ed25519` lets those who have the public half verify and nothing else. The first and the last need `cryptography`.

The secrets of the first two are never used themselves. Each address has a subkey, by HKDF-SHA256 (RFC 5869).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from narrowboat.dsn import hidden
from narrowboat.errors import ConfigurationError
from narrowboat.registry import how_to_install

GCM, HMAC, ED25519 = KINDS = ("aes-256-gcm", "hmac-sha256", "ed25519")
#: Bytes of every secret and public half.
SIZE = 32
NONCE = 12


class Suite(Protocol):
    """What a key does at one address. Thread-safe."""

    conceals: bool
    tail: int  #: bytes that `seal` puts into the marker

    def seal(self, bound: bytes, content: bytes, nonce: bytes) -> tuple[bytes, bytes]:
        """What goes into the marker, and the sealed content: empty where it stays in clear."""
        ...

    def open(self, bound: bytes, tail: bytes, sealed: bytes) -> bytes:
        """The content. Raises any exception where it is not what was sealed with `bound`."""
        ...


@dataclass(frozen=True)
class Key:
    """One key. `since`: it seals from then on, in seconds since the epoch, until a later one does."""

    id: str
    kind: str
    since: float
    secret: bytes | None = field(repr=False)
    public: bytes | None = field(default=None, repr=False)
    made: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)  #: of it, for each address; `format`'s

    @property
    def seals(self) -> bool:
        """Whether it has what sealing needs: a public half alone opens."""
        return self.secret is not None

    def suite(self, place: bytes) -> Suite:
        """What it does at `place`, an address as the format writes it."""
        return _MAKERS[self.kind](self, place)


def subkey(secret: bytes, place: bytes) -> bytes:
    """HKDF-SHA256 without a salt, for one address."""
    extracted = hidden(hmac.digest(bytes(32), secret, "sha256"))
    return hidden(hmac.digest(extracted, b"narrowboat-seal v1" + place + b"\1", "sha256"))


class _Gcm:
    conceals, tail = True, NONCE

    def __init__(self, key: Key, place: bytes) -> None:
        aead = primitives("ciphers.aead")
        self._aead = aead.AESGCM(subkey(key.secret or b"", place))

    def seal(self, bound: bytes, content: bytes, nonce: bytes) -> tuple[bytes, bytes]:
        return nonce, self._aead.encrypt(nonce, content, bound)

    def open(self, bound: bytes, tail: bytes, sealed: bytes) -> bytes:
        opened: bytes = self._aead.decrypt(tail, sealed, bound)
        return opened


class _Hmac:
    conceals, tail = False, hashlib.sha256().digest_size

    def __init__(self, key: Key, place: bytes) -> None:
        self._subkey = subkey(key.secret or b"", place)

    def seal(self, bound: bytes, content: bytes, nonce: bytes) -> tuple[bytes, bytes]:
        return hmac.digest(self._subkey, bound + content, "sha256"), b""

    def open(self, bound: bytes, tail: bytes, sealed: bytes) -> bytes:
        if not hmac.compare_digest(hmac.digest(self._subkey, bound + sealed, "sha256"), tail):
            raise ValueError
        return sealed


class _Ed25519:
    conceals, tail = False, 64

    def __init__(self, key: Key, place: bytes) -> None:
        ed25519 = primitives("asymmetric.ed25519")
        private = None if key.secret is None else ed25519.Ed25519PrivateKey.from_private_bytes(key.secret)
        self._private = private
        self._public = (
            private.public_key() if private is not None else ed25519.Ed25519PublicKey.from_public_bytes(key.public or b"")
        )

    def seal(self, bound: bytes, content: bytes, nonce: bytes) -> tuple[bytes, bytes]:
        assert self._private is not None  # `Key.seals` was asked
        return self._private.sign(bound + content), b""

    def open(self, bound: bytes, tail: bytes, sealed: bytes) -> bytes:
        self._public.verify(tail, bound + sealed)
        return sealed


_MAKERS: dict[str, Callable[[Key, bytes], Suite]] = {GCM: _Gcm, HMAC: _Hmac, ED25519: _Ed25519}


def primitives(name: str) -> Any:
    """A module of `cryptography`; `ConfigurationError` where that is not installed."""
    import importlib  # for programs that seal

    try:
        return importlib.import_module(f"cryptography.hazmat.primitives.{name}")
    except ImportError as error:
        raise ConfigurationError(
            f"sealing with {GCM} or {ED25519} needs cryptography, which is not installed: "
            + how_to_install("narrowboat", "seal")
        ) from error


def public_half(secret: bytes) -> bytes:
    """Of an Ed25519 secret."""
    private = primitives("asymmetric.ed25519").Ed25519PrivateKey.from_private_bytes(secret)
    made: bytes = private.public_key().public_bytes_raw()
    return made
