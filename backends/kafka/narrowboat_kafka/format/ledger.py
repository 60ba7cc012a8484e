"""What an offset cannot say: which messages above it are settled, which are handed out, and how often.

For each partition that a consumer owns there is one `Ledger`. Its base is the offset that is committed: everything below
is settled. The rest travels in the commit's metadata, as text of at most 4,096 characters (the server refuses more), and
is read again by the next owner of the partition: what was acknowledged does not come back, and a crash loop is counted.

Another program may commit any text for a group. What is no ledger of ours is known to be none before anything is made of it:
the length of the text and of what it unpacks to, of each number, and how many spans and claims there are all have a bound.

Nothing here does any I/O or knows a clock.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from narrowboat_kafka.format.spans import Spans

#: What a metadata of ours begins with; a later version takes another one.
_VERSION = "n1:"
#: Characters that the server takes (`offset.metadata.max.bytes`; it counts characters).
LIMIT = 4095
#: From here on a partition hands out nothing new until something old is settled.
_CROWDED = LIMIT * 3 // 4
#: Bytes that a text of ours may unpack to: more than the best compression of `LIMIT` characters.
_UNPACKED_MAX = 4 * 1024 * 1024
#: Spans of settled offsets and claims that are read from a text: a hostile one of few characters may name millions.
_MOST = 64 * 1024
#: Offsets that a text may be about. A wider window would not fit, whatever is in it.
_WIDEST = 8 * _UNPACKED_MAX
#: Bits of the largest number that is read.
_BITS = 63
#: How often a message may have been handed out: no honest count is longer.
_TIMES_MAX = 2**31

#: In a map of bits: what is all settled, and what is settled in part.
_SETTLED = re.compile(rb"\xff+|[^\x00\xff]", re.DOTALL)
#: For each byte of it, the first and last bit of each run of ones.
_PIECES = [[found.span() for found in re.finditer("1+", f"{byte:08b}"[::-1])] for byte in range(256)]


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

    __slots__ = ("base", "claims", "known_until", "next", "settled")

    def __init__(self, base: int) -> None:
        self.base = base
        self.next = base  #: the first offset that was not read from the partition yet
        self.known_until = base  #: from this one on the metadata that this was read from said nothing
        self.settled = Spans()
        self.claims: dict[int, Claim] = {}

    def see(self, offsets: Sequence[int]) -> list[bool]:
        """Records were read, in this order: whether each is to be handed out.

        What lies between them, or before them and after what was read last, does not exist (any more).
        """
        first, end = offsets[0], offsets[-1] + 1
        if self.known_until <= first == self.next and end - first == len(offsets):
            self.next = end
            return [True] * len(offsets)
        return [self._see(offset) for offset in offsets]

    def _see(self, offset: int) -> bool:
        self._skip(offset)
        self.next = max(self.next, offset + 1)
        return offset >= self.base and offset not in self.settled

    def _skip(self, offset: int) -> None:
        """Nothing that is not known yet is below that offset."""
        if offset > self.next:
            if self.next < self.known_until:
                self.claims = {each: claim for each, claim in self.claims.items() if not self.next <= each < offset}
            self.settled.add(max(self.next, self.base), offset)
            self.next = offset
        self._advance()

    def pass_by(self, end: int) -> bool:
        """Everything below `end` was read, so what was not seen of it does not exist. Whether all below is settled."""
        if end <= self.next:
            return False
        self._skip(end)
        return self.base == end

    def claim(self, offsets: Sequence[int], *, out: bool = True) -> list[int]:
        """They are handed out, or soon will be (not `out`): how often each was, this time included."""
        if self.claims.keys().isdisjoint(offsets):
            self.claims.update(dict.fromkeys(offsets, _USUAL if out else _AHEAD))
            return [1] * len(offsets)
        counts = [self.claims.get(offset, _FRESH).times + 1 for offset in offsets]
        self.claims.update((offset, Claim(count, out)) for offset, count in zip(offsets, counts, strict=True))
        return counts

    def hand_out(self, offsets: Iterable[int]) -> None:
        """Mark offsets as in flight that were claimed before."""
        claims = self.claims
        for offset in offsets:
            claim = claims[offset]
            claims[offset] = _USUAL if claim is _AHEAD else Claim(claim.times, True)

    def release(self, offset: int, *, counted: bool) -> None:
        """End a delivery that was not settled. An uncounted one takes its claim back."""
        count = self.claims[offset].times
        self.claims[offset] = Claim(count if counted else count - 1, False)

    def settle(self, offsets: Iterable[int]) -> None:
        """Mark offsets as done: they are never delivered again."""
        claims, base = self.claims, self.base
        start = stop = base  # those that follow each other are taken in together
        for offset in offsets:
            claims.pop(offset, None)
            if offset == stop:
                stop += 1
            elif offset >= base:
                self.settled.add(start, stop)
                start, stop = offset, offset + 1
        self.settled.add(start, stop)
        self._advance()

    def drop(self, end: int, kept: Collection[int]) -> int:
        """Settle everything below `end` but what is `kept`. How many.

        >>> ledger = Ledger(5)
        >>> ledger.drop(9, {6}), ledger.base, sorted(ledger.settled), ledger.next
        (3, 6, [7, 8], 9)
        """
        before, start = len(self.settled), self.base
        for stop in [*sorted(offset for offset in kept if self.base <= offset < end), end]:
            self.settled.add(start, stop)
            start = stop + 1
        gone = len(self.settled) - before
        self.claims = {offset: claim for offset, claim in self.claims.items() if offset >= end or offset in kept}
        self.next = max(self.next, end)
        self._advance()
        return gone

    def _advance(self) -> None:
        self.base = self.settled.after(self.base)
        self.settled.cut(self.base)

    def counts(self, end: int) -> tuple[int, int]:
        """How many messages are neither settled nor handed out, and how many are handed out, up to the offset `end`.

        >>> ledger = Ledger(5)
        >>> ledger.see([5, 6]), ledger.claim([6]), ledger.counts(9)
        ([True, True], [1], (3, 1))
        """
        out = sum(claim.out for claim in self.claims.values())
        return max(0, end - self.base - len(self.settled) - out), out

    def is_crowded(self, text: str) -> bool:
        """Whether its metadata, which is `text` now, is nearly full."""
        return len(text) > _CROWDED or len(self.claims) > _MOST * 3 // 4 or self.settled.count > _MOST * 3 // 4


def encode(ledger: Ledger, limit: int = LIMIT) -> str:
    """The metadata of a commit at `ledger.base`.

    Where it would be longer than `limit`, counts of claims are forgotten, the last ones first; never what is settled.
    Raises `OverflowError` where that alone is too long.
    """
    if not ledger.settled and not ledger.claims:
        return ""
    base = ledger.base
    wide = (ledger.settled.end or base) - base
    if wide > _WIDEST:
        raise OverflowError(f"{wide} offsets above {base} are more than a commit can tell of")
    bits = bytearray((wide + 7) // 8)
    for span in ledger.settled.ranges():
        _mark(bits, span.start - base, span.stop - base)
    top = max(ledger.claims, default=base - 1) - base + 1
    runs = list(_runs(ledger, top))
    while True:
        text = _pack(bits, top, runs)
        if len(text) <= limit:
            return text
        if not runs:
            raise OverflowError(f"{len(ledger.settled)} settled messages above {base} do not fit into {limit} characters")
        del runs[len(runs) // 2 :]


def _mark(bits: bytearray, start: int, stop: int) -> None:
    """Set the bits from `start` to before `stop`."""
    first, last = start >> 3, (stop - 1) >> 3
    head, tail = 0xFF << (start & 7) & 0xFF, 0xFF >> (7 - (stop - 1 & 7))
    if first == last:
        bits[first] |= head & tail
    else:
        bits[first] |= head
        bits[first + 1 : last] = b"\xff" * (last - first - 1)
        bits[last] |= tail


def _runs(ledger: Ledger, top: int) -> Iterator[tuple[int, int, Claim]]:
    """What is unsettled below `top` and not handed out for the first time, as (usual ones before it, how many alike, claim)."""
    unsettled = itertools.chain.from_iterable(ledger.settled.gaps(ledger.base, ledger.base + top))
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
    if not metadata or not metadata.startswith(_VERSION) or len(metadata) > LIMIT:
        return Ledger(base)
    text = metadata[len(_VERSION) :]
    ledger = Ledger(base)
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        if data[:1] == b"\xff":
            packed = zlib.decompressobj()
            data = packed.decompress(data[1:], _UNPACKED_MAX)
            if not packed.eof:
                raise ValueError("cut off, or more than was ever packed")
        _unpack(ledger, data)
    except (binascii.Error, zlib.error, IndexError, ValueError):
        return Ledger(base)
    return ledger


def _unpack(ledger: Ledger, data: bytes) -> None:
    size, position = _get(data, 0)
    if position + size > len(data):
        raise ValueError("cut off")
    _unpack_settled(ledger, data, position, position + size)
    top, position = _get(data, position + size)
    if top > _WIDEST:
        raise ValueError("no window is so wide")
    _unpack_claims(ledger, data, position, top)
    ledger.known_until = max(ledger.base + top, ledger.settled.end or ledger.base + 1)


def _unpack_settled(ledger: Ledger, data: bytes, begin: int, end: int) -> None:
    settled, zero = ledger.settled, ledger.base - begin * 8
    for found in _SETTLED.finditer(data, begin, end):
        first, byte = zero + found.start() * 8, data[found.start()]
        if byte == 0xFF:
            settled.add(first, zero + found.end() * 8)
        else:
            for start, stop in _PIECES[byte]:
                settled.add(first + start, first + stop)
        if settled.count > _MOST:
            raise ValueError("nobody settles in so many pieces")


def _unpack_claims(ledger: Ledger, data: bytes, position: int, top: int) -> None:
    gaps = ledger.settled.gaps(ledger.base, ledger.base + top)
    gap = range(0)

    def claim(count: int, claim: Claim) -> None:
        """The next `count` of those that are unsettled."""
        nonlocal gap
        while count:
            if not gap:
                gap = next(gaps, range(0))
                if not gap:
                    return
            part, gap = gap[:count], gap[count:]
            count -= len(part)
            if claim != _FRESH:
                if len(ledger.claims) + len(part) > _MOST:
                    raise ValueError("nobody has so many in his hands")
                ledger.claims.update(dict.fromkeys(part, claim))

    runs = 0
    while position < len(data):
        usual, position = _get(data, position)
        length, position = _get(data, position)
        code, position = _get(data, position)
        runs += 1
        if runs > _MOST or not length or code >> 1 > _TIMES_MAX:
            raise ValueError("no run of ours")
        claim(usual, _USUAL)
        claim(length, Claim(code >> 1, bool(code & 1)))
    claim(top, _USUAL)


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
        if shift > _BITS:
            raise ValueError("no number is so long")
        position += 1
    return number | data[position] << shift, position + 1
