"""What an offset cannot say: which messages above it are settled, which are handed out, and how often.

For each partition that a consumer owns there is one `Ledger`. Its base is the offset that is committed: everything below
is settled. The rest travels in the commit's metadata, as text of at most 4,096 characters (the server refuses more), and
is read again by whoever gets the partition next: what was acknowledged does not come back, and a crash loop is counted.

Nothing here does any I/O or knows a clock.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

#: What a metadata of ours begins with; a later version takes another one.
_VERSION = "n1:"
#: Characters that the server takes (`offset.metadata.max.bytes`; it counts characters).
LIMIT = 4096
#: From here on a partition hands out nothing new until something old is settled.
CROWDED = LIMIT * 3 // 4


class Claim(NamedTuple):
    """How often an unsettled message was handed out, and whether it is now."""

    times: int
    out: bool


_USUAL = Claim(1, True)
_AHEAD = Claim(1, False)
_FRESH = Claim(0, False)


class Ledger:
    """One partition: its `base`, what is settled above it, and the claims on what is not.

    It is told of many messages at a time, and the usual case takes no step of its own for each.
    """

    __slots__ = ("base", "claims", "next", "settled", "told")

    def __init__(self, base: int) -> None:
        self.base = base
        self.next = base  #: the first offset that was not read from the partition yet
        self.told = base  #: from this one on the metadata that this was read from said nothing
        self.settled: set[int] = set()
        self.claims: dict[int, Claim] = {}

    def see(self, offsets: Sequence[int]) -> list[bool]:
        """Records were read, in this order: whether each is to be handed out.

        What lies between them, or before them and after what was read last, does not exist (any more).
        """
        first, end = offsets[0], offsets[-1] + 1
        if self.told <= first == self.next and end - first == len(offsets):
            self.next = end
            return [True] * len(offsets)
        return [self._see(offset) for offset in offsets]

    def _see(self, offset: int) -> bool:
        if offset > self.next:
            if self.next < self.told:
                self.claims = {each: claim for each, claim in self.claims.items() if not self.next <= each < offset}
            if self.base == self.next:
                self.base = offset  # nothing below is unsettled: no need to count what may be millions
                self.settled = {each for each in self.settled if each >= offset}
            else:
                self.settled.update(range(max(self.next, self.base), offset))
        self.next = max(self.next, offset + 1)
        self._advance()
        return offset >= self.base and offset not in self.settled

    def claim(self, offsets: Sequence[int], *, out: bool = True) -> list[int]:
        """They are handed out, or soon will be (not `out`): how often each was, this time included."""
        if self.claims.keys().isdisjoint(offsets):
            self.claims.update(dict.fromkeys(offsets, _USUAL if out else _AHEAD))
            return [1] * len(offsets)
        counts = [self.claims.get(offset, _FRESH).times + 1 for offset in offsets]
        self.claims.update((offset, Claim(count, out)) for offset, count in zip(offsets, counts, strict=True))
        return counts

    def hand_out(self, offsets: Iterable[int]) -> None:
        """They were claimed before, and are in somebody's hands now."""
        claims = self.claims
        for offset in offsets:
            claim = claims[offset]
            claims[offset] = _USUAL if claim is _AHEAD else Claim(claim.times, True)

    def release(self, offset: int, *, counted: bool) -> None:
        """It is not handed out any more, and not settled either."""
        count = self.claims[offset].times
        self.claims[offset] = Claim(count if counted else count - 1, False)

    def settle(self, offsets: Iterable[int]) -> None:
        """They never come back."""
        claims, settled, base = self.claims, self.settled, self.base
        for offset in offsets:
            claims.pop(offset, None)
            if offset >= base:
                settled.add(offset)
        self._advance()

    def drop(self, end: int, kept: Collection[int]) -> int:
        """Settle everything below `end` but what is `kept`. How many.

        >>> ledger = Ledger(5)
        >>> ledger.drop(9, {6}), ledger.base, sorted(ledger.settled), ledger.next
        (3, 6, [7, 8], 9)
        """
        gone = [offset for offset in range(self.base, end) if offset not in self.settled and offset not in kept]
        for offset in gone:
            self.claims.pop(offset, None)
        self.settled.update(gone)
        self.next = max(self.next, end)
        self._advance()
        return len(gone)

    def _advance(self) -> None:
        base, settled = self.base, self.settled
        while base in settled:
            settled.discard(base)
            base += 1
        self.base = base

    def counts(self, end: int) -> tuple[int, int]:
        """How many messages are neither settled nor handed out, and how many are handed out, up to the offset `end`.

        >>> ledger = Ledger(5)
        >>> ledger.see([5, 6]), ledger.claim([6]), ledger.counts(9)
        ([True, True], [1], (3, 1))
        """
        out = sum(claim.out for claim in self.claims.values())
        return max(0, end - self.base - len(self.settled) - out), out


def encode(ledger: Ledger, limit: int = LIMIT) -> str:
    """The metadata of a commit at `ledger.base`.

    Where it would be longer than `limit`, counts of claims are forgotten, the last ones first; never what is settled.
    Raises `OverflowError` where that alone is too long.
    """
    if not ledger.settled and not ledger.claims:
        return ""
    base = ledger.base
    bits = bytearray((max(ledger.settled, default=base - 1) - base) // 8 + 1)
    for offset in ledger.settled:
        bits[(offset - base) >> 3] |= 1 << ((offset - base) & 7)
    top = max(ledger.claims, default=base - 1) - base + 1
    runs = list(_runs(ledger, top))
    while True:
        text = _pack(bits, top, runs)
        if len(text) <= limit:
            return text
        if not runs:
            raise OverflowError(f"{len(ledger.settled)} settled messages above {base} do not fit into {limit} characters")
        del runs[len(runs) // 2 :]


def _runs(ledger: Ledger, top: int) -> Iterator[tuple[int, int, Claim]]:
    """What is unsettled below `top` and not handed out for the first time, as (usual ones before it, how many alike, claim)."""
    unsettled: Sequence[int] = range(ledger.base, ledger.base + top)
    if ledger.settled:
        unsettled = [offset for offset in unsettled if offset not in ledger.settled]
    usual = 0
    for claim, alike in itertools.groupby(map(ledger.claims.get, unsettled, itertools.repeat(_FRESH))):
        length = len(list(alike))
        if claim == _USUAL:
            usual = length
        else:
            yield usual, length, claim
            usual = 0


def _pack(bits: bytearray, top: int, runs: Iterable[tuple[int, int, Claim]]) -> str:
    data = bytearray()
    _put(data, len(bits))
    data += bits
    _put(data, top)
    for usual, length, claim in runs:
        for number in (usual, length, claim.times << 1 | claim.out):
            _put(data, number)
    packed = min(bytes(data), b"\xff" + zlib.compress(data, 6), key=len)
    return _VERSION + base64.b64encode(packed).decode("ascii").rstrip("=")


def decode(base: int, metadata: str | None) -> Ledger:
    """The ledger that was committed at `base`; one that knows nothing where the metadata is not ours."""
    ledger = Ledger(base)
    if not metadata or not metadata.startswith(_VERSION):
        return ledger
    text = metadata[len(_VERSION) :]
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        if data[:1] == b"\xff":
            data = zlib.decompress(data[1:])
        _unpack(ledger, data)
    except (binascii.Error, zlib.error, IndexError, ValueError):
        return Ledger(base)
    return ledger


def _unpack(ledger: Ledger, data: bytes) -> None:
    base = ledger.base
    size, position = _get(data, 0)
    if position + size > len(data):
        raise ValueError("cut off")
    for index, byte in enumerate(data[position : position + size]):
        ledger.settled.update(base + index * 8 + bit for bit in range(8) if byte >> bit & 1)
    top, position = _get(data, position + size)
    if top > 8 * LIMIT * LIMIT:
        raise ValueError("no window is so wide")
    unsettled = (offset for offset in range(base, base + top) if offset not in ledger.settled)
    while position < len(data):
        usual, position = _get(data, position)
        length, position = _get(data, position)
        code, position = _get(data, position)
        ledger.claims.update((offset, _USUAL) for offset in itertools.islice(unsettled, usual))
        claim = Claim(code >> 1, bool(code & 1))
        for offset in itertools.islice(unsettled, length):
            if claim != _FRESH:
                ledger.claims[offset] = claim
    ledger.claims.update((offset, _USUAL) for offset in unsettled)
    ledger.told = max(base + top, max(ledger.settled, default=base) + 1)


def _put(data: bytearray, number: int) -> None:
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)


def _get(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while data[position] & 128:
        number |= (data[position] & 127) << shift
        shift += 7
        position += 1
    return number | data[position] << shift, position + 1
