"""The keys of a lock in Consul's key-value store, and how its name becomes a key.

    <root>/p-<prefix>/n-<name>/lock           the holder: locked by the session of an exclusive holder, or the record of
                                              those who share it (no session: each of them has a key of its own)
    <root>/p-<prefix>/n-<name>/held-<owner>   one who shares it, locked by its session, so that it ends with that session
    <root>/p-<prefix>/n-<name>/wants-<owner>  one who waits for those who share it to leave; no new one may share it then

Consul refuses keys with other characters than letters, digits and `,-_./`, and keys that end like a file's name (`.json`,
`.txt`). So letters, digits and `-` stand for themselves. Any other byte of the name's UTF-8 is `_` and two hexadecimal digits.
A long name is its SHA-256. The record has the clear name. Two names never share a key.
"""

from __future__ import annotations

import functools
import re

from narrowboat.driver.names import digest, escape_all

_HASH = re.compile("h-[0-9a-f]{64}")
_OURS = re.compile(r"/n[h-][^/]*/(lock|(held|wants)[h-][^/]*)$")
#: Characters of an encoded name. A longer one is hashed: a key may have 512 bytes in all.
_LONGEST = 150


@functools.lru_cache(maxsize=4096)  # contenders of one lock ask for the same again and again
def encode(text: str) -> str:
    """`text` as one part of a key.

    >>> encode("invoice:42"), encode("a/b"), encode("..")
    ('-invoice_3a42', '-a_2fb', '-_2e_2e')
    """
    plain = escape_all(text, "-", escape="_{:02x}")
    return f"-{plain}" if len(plain) <= _LONGEST else f"h-{digest(text)}"


def decode(part: str) -> str | None:
    """The text that `encode` made a part of a key of; None where it was hashed, or where `encode` makes no such part.

    >>> decode("-invoice_3a42"), decode("h-00"), decode("-_3")
    ('invoice:42', None, None)
    """
    if not part.startswith("-"):
        return None
    try:
        data = re.sub(rb"_([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), part[1:].encode())
        text = data.decode("utf-8")
    except ValueError:
        return None
    return text if encode(text) == part else None


def is_ours(key: str) -> bool:
    """Whether one of our entries may have this key. Other programs are free to use any other key.

    >>> is_ours("narrowboat/p-/n-a/lock"), is_ours("narrowboat/p-/n-a/held-x"), is_ours("narrowboat/p-/n-a/README")
    (True, True, False)
    """
    return _OURS.search(key) is not None


class Space:
    """The keys of one namespace."""

    def __init__(self, root: str, prefix: str) -> None:
        self.folder = f"{root}/p{encode(prefix)}/"

    def of(self, name: str) -> Keys:
        """The keys of one lock."""
        return Keys(f"{self.folder}n{encode(name)}/")

    def shown_as(self, name: str) -> list[Keys]:
        """The keys of a lock that `holders` shows as `name`: those of the name, and of a hash whose name is unknown."""
        return [self.of(name)] + ([Keys(f"{self.folder}n{name}/")] if _HASH.fullmatch(name) else [])


class Keys:
    """The keys of one lock."""

    __slots__ = ("folder", "lock")

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.lock = f"{folder}lock"

    def held(self, owner: str) -> str:
        """The key of an owner that shares the lock."""
        return f"{self.folder}held{encode(owner)}"

    def wants(self, owner: str) -> str:
        """The key of an owner that waits for those who share the lock to leave."""
        return f"{self.folder}wants{encode(owner)}"
