"""How names become nodes and back, and the order of contenders: pure functions.

    <chroot>/narrowboat/_<prefix>/<lock>/<kind>~<owner>~<sequence>

One permanent node for each lock that is in use, under it an ephemeral sequential node for each contender. `kind` is `x`
(exclusive), `s` (shared) or `p<n>` (a permit of a semaphore of n). So a listing alone shows the order of the contenders, and
those that disagree. The name of the lock is percent-encoded. A name that would be too long is hashed, and the contenders'
data has the clear name.

The sequence is ZooKeeper's: a signed 32-bit counter of the parent, printed with ten digits. After 2147483647 comes
-2147483648. So contenders are ordered by the signed 32-bit difference of their numbers, never as text or as plain numbers. At
the counter's end even that is not enough: a busy server goes on from -2147483648, but from 2147483647 again, for ever, once it
has caught up (seen with 3.9). A queue that is past the counter's end is `ambiguous`, and is ordered by its nodes' zxids.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote

from narrowboat.contract.locks import Mode
from narrowboat.driver.names import digest, escape_all

ROOT = "narrowboat"
#: Characters of a node's name. A longer one is hashed: a listing of many would not fit into ZooKeeper's largest answer (1 MB).
_LONGEST = 200
_HASHED = "#"
#: The characters that stand for themselves in a node's name, besides letters and digits.
_SAFE = "-_."
_HASH = re.compile(_HASHED + "[0-9a-f]{64}")
_CONTENDER = re.compile(r"(?:(x)|(s)|p([1-9][0-9]{0,6}))~([^~/]+)~(-?[0-9]{9,10})")


def escape(text: str) -> str:
    """`text` as the name of a node: without '/', '~' and '#', and never '.' or '..'.

    >>> escape("a/b c~"), escape(".."), escape("Füße")
    ('a%2Fb%20c%7E', '%2E%2E', 'F%C3%BC%C3%9Fe')
    """
    return escape_all(text, _SAFE if text.strip(".") or len(text) > 2 else "")


def lock_node(name: str) -> str:
    """The node of the lock `name`, relative to its namespace.

    >>> lock_node("invoice:42")
    'invoice%3A42'
    """
    escaped = escape(name)
    return escaped if len(escaped) <= _LONGEST else _HASHED + digest(name)


def lock_name(node: str) -> str | None:
    """The lock's name back from its node; None where it was hashed.

    >>> lock_name("invoice%3A42")
    'invoice:42'
    """
    return None if node.startswith(_HASHED) else unquote(node)


def of_a_lock(node: str) -> bool:
    """Whether a node of a namespace can be that of a lock: whether some lock's name is escaped to it.

    >>> of_a_lock("invoice%3A42"), of_a_lock("%ff"), of_a_lock("#abc")
    (True, False, False)
    """
    name = lock_name(node)
    if name is None:
        return is_hash(node)
    return lock_node(name) == node


def is_hash(node: str) -> bool:
    """Whether a node's name is a hash, from which the lock's name cannot be told."""
    return _HASH.fullmatch(node) is not None


def namespace(base: str, prefix: str) -> str:
    """The node of a namespace.

    >>> namespace("/shop", ""), namespace("", "a/b")
    ('/shop/narrowboat/_', '/narrowboat/_a%2Fb')
    """
    return f"{base}/{ROOT}/_{escape(prefix)}"


class Contender(NamedTuple):
    """One node of a lock's queue."""

    node: str
    owner: str
    sequence: int
    mode: Mode
    limit: int | None


def stem(mode: Mode, limit: int | None, owner: str) -> str:
    """The name of a contender's node, up to the sequence that ZooKeeper adds.

    >>> stem(Mode.SEMAPHORE, 3, "me")
    'p3~me~'
    """
    kind = {Mode.EXCLUSIVE: "x", Mode.SHARED: "s"}.get(mode) or f"p{limit}"
    return f"{kind}~{escape(owner)}~"


@functools.lru_cache(maxsize=4096)  # the waiters of a crowded lock list the same names again and again
def contender(node: str) -> Contender | None:
    """The contender that a node's name describes; None for a foreign name.

    >>> contender("x~me~0000000007")
    Contender(node='x~me~0000000007', owner='me', sequence=7, mode=<Mode.EXCLUSIVE: 'exclusive'>, limit=None)
    >>> contender("p3~me~-2147483648").sequence
    -2147483648
    >>> contender("a-foreign-node") is None
    True
    """
    match = _CONTENDER.fullmatch(node)
    if match is None:
        return None
    exclusive, shared, limit, owner, sequence = match.groups()
    mode = Mode.EXCLUSIVE if exclusive else Mode.SHARED if shared else Mode.SEMAPHORE
    return Contender(node, unquote(owner), int(sequence), mode, int(limit) if limit else None)


def distance(sequence: int, origin: int) -> int:
    """The signed 32-bit difference: how many numbers after `origin` (negative: before) `sequence` was issued.

    >>> distance(-2147483648, 2147483647), distance(3, 5)
    (1, -2)
    """
    return (sequence - origin + 2**31) % 2**32 - 2**31


def ambiguous(contenders: Iterable[Contender]) -> bool:
    """Whether the numbers do not determine the order of the contenders, because the counter has reached its end.

    >>> ambiguous([contender("x~me~2147483646")]), ambiguous([contender("x~me~2147483647")])
    (False, True)
    """
    return any(each.sequence < 0 or each.sequence == 2**31 - 1 for each in contenders)


def queue(nodes: Iterable[str]) -> list[Contender]:
    """The contenders among a lock's children, oldest first, without foreign nodes."""
    found = [each for each in map(contender, nodes) if each is not None]
    if len(found) > 1:
        origin = found[0].sequence
        found.sort(key=lambda each: (distance(each.sequence, origin), each.node))
    return found
