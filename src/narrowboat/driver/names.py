"""Names of users as names of a server: escaped where it allows fewer characters, hashed where it allows fewer of them.

For keys, nodes, queues, topics and whatever else a driver makes out of a name or prefix. Two names never become one, as long as
`mark` cannot begin (or end a part of) an escaped name. What a server shows its users stays readable where that can be.
"""

from __future__ import annotations

import functools
import hashlib

#: How a byte is written that may not stand for itself, unless a backend's server forbids the `%`.
PERCENT = "%{:02X}"


def fit(text: str, safe: str, longest: int, mark: str, *, escape: str = PERCENT) -> str:
    """`text` escaped, or `mark` and its hash where that would be longer than `longest`.

    Args:
        text: the name.
        safe: the characters beside ASCII letters and digits that stand for themselves.
        longest: characters that are kept. A hash has 64 and the mark, however small this is.
        mark: what begins no escaped text, so that no name looks like another one's hash.
        escape: how a byte is written (of the text's UTF-8).

    >>> fit("invoice:42", "-._", 20, "#"), fit("a/b", "-", 20, "h-", escape="_{:02x}")
    ('invoice%3A42', 'a_2fb')
    >>> fit("x" * 21, "", 20, "#") == "#" + digest("x" * 21)
    True
    """
    escaped = escape_all(text, safe, escape=escape)
    return escaped if len(escaped) <= longest else mark + digest(text)


def escape_all(text: str, safe: str, *, escape: str = PERCENT) -> str:
    """`text`, with `escape` for each byte that is no ASCII letter or digit and not in `safe`.

    >>> escape_all("Füße 1", "-._")
    'F%C3%BC%C3%9Fe%201'
    """
    table = _table(safe, escape)
    return "".join([table[byte] for byte in text.encode("utf-8", "surrogatepass")])


def digest(text: str) -> str:
    """The SHA-256 of `text`, in 64 hexadecimal digits: for a name of which only a part is kept.

    >>> digest("")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@functools.lru_cache(maxsize=32)
def _table(safe: str, escape: str) -> tuple[str, ...]:
    """What each byte becomes."""
    kept = safe.encode("ascii")
    return tuple(
        chr(byte) if byte in kept or (byte < 128 and chr(byte).isalnum()) else escape.format(byte) for byte in range(256)
    )
