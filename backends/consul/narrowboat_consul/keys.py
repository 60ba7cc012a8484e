"""Where a lock lives in Consul's key-value store, and how its name becomes a key.

    <root>/p-<prefix>/n-<name>/lock           who holds it: locked by the session of an exclusive holder, or the record of
                                              those who share it (no session: each of them has a key of its own)
    <root>/p-<prefix>/n-<name>/held-<owner>   one who shares it, locked by its session, so that it goes when that ends
    <root>/p-<prefix>/n-<name>/wants-<owner>  one who waits for those who share it to leave, so that no more come

Consul refuses keys with other characters than letters, digits and `,-_./`, and those that end like a file's name
(`.json`, `.txt`). So a name is written in letters, digits and `-`, everything else as `_` and two hexadecimal digits
for each byte of its UTF-8; a long one is its SHA-256. The clear name is kept in the record. Two names never share a key.
"""

from __future__ import annotations

import hashlib
import re

_PLAIN = re.compile(rb"[A-Za-z0-9-]")
#: Longer ones are hashed: a key may have 512 bytes in all.
_LONGEST = 150


def encode(text: str) -> str:
    """`text` as one part of a key.

    >>> encode("invoice:42"), encode("a/b"), encode("..")
    ('-invoice_3a42', '-a_2fb', '-_2e_2e')
    """
    data = text.encode("utf-8", "surrogatepass")
    plain = "".join(chr(byte) if _PLAIN.match(bytes([byte])) else f"_{byte:02x}" for byte in data)
    return f"-{plain}" if len(plain) <= _LONGEST else f"h-{hashlib.sha256(data).hexdigest()}"


class Space:
    """The keys of one namespace."""

    def __init__(self, root: str, prefix: str) -> None:
        self.folder = f"{root}/p{encode(prefix)}/"

    def of(self, name: str) -> Keys:
        """The keys of one lock."""
        return Keys(f"{self.folder}n{encode(name)}/")


class Keys:
    """The keys of one lock."""

    __slots__ = ("folder", "lock")

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.lock = f"{folder}lock"

    def held(self, owner: str) -> str:
        """The key of one who shares it."""
        return f"{self.folder}held{encode(owner)}"

    def wants(self, owner: str) -> str:
        """The key of one who waits for it to be shared no more."""
        return f"{self.folder}wants{encode(owner)}"
