"""What a fetch brings: records, read in one pass over each batch of them, their headers only when they are used.

kafka-python makes two objects and a list for each record and measures all its parts for metrics, which takes more than half
of the time that a message costs here. This reads the same format into one tuple. What is rare stays with the library:
checksums, and batches as servers wrote them before version 0.11.

A batch that is sound and cannot be taken apart (a program wrote what the server did not look at, or packed gigabytes into it)
becomes one record whose value is the whole batch, and what is behind it is read. A batch that fails its checksum, or whose
library for compression is missing, is not passed over: its partition ends there, and the reader is told.
Control batches (the end of a transaction) and what its program took back (an aborted transaction) are skipped.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from kafka.errors import CorruptRecordError, UnsupportedCodecError

from narrowboat_kafka.client import Ear
from narrowboat_kafka.format.stored import Raw, Stored, varint
from narrowboat_kafka.library.met import met
from narrowboat_kafka.library.packed import RECORDS_MAX, TooMuch, unpacked

#: At a third of the price of `Stored(...)`, which is paid for each record that is read.
_stored: Callable[[Sequence[Any]], Stored] = partial(tuple.__new__, Stored)


#: How a batch begins since version 0.11, and what of its attributes says what.
_HEADER = struct.Struct(">qiibIhiqqqhii")
_CODEC, _APPENDED, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
#: What the record of a control batch has as its key, behind two bytes of a version, where it takes back a transaction.
_ABORT = b"\0\0"


class Batch(NamedTuple):
    """What the beginning of a batch says. `whole`: its bytes, with that."""

    whole: bytes
    base: int
    leader_epoch: int
    attributes: int
    last: int  #: offset of its last record, which may have been compacted away
    first_timestamp: int
    max_timestamp: int
    producer: int
    records: int


def begun(whole: bytes) -> Batch:
    """A batch of these bytes. `CorruptRecordError` where they are too few."""
    try:
        base, _, epoch, _, _, attributes, last, first, most, producer, _, _, count = _HEADER.unpack_from(whole)
    except struct.error as error:
        raise CorruptRecordError(f"a batch is cut off: {error}") from error
    return Batch(whole, base, epoch, attributes, base + last, first, most, producer, count)


class Fetched:
    """The records of one partition in one answer. It gives whole batches, so at least as many as it is asked for.

    It stands in the place of a class of the library's, and is made by that. It raises nothing: the library would ask again and
    again, and nothing else would ever be done on the I/O thread.

    Args:
        fetch_offset: what is before that was not asked for.
        tp: the partition.
        records: of the library, with the batches as they came.
        ear: who hears what comes beside records.
        check_crcs: look at the checksums.
        aborted_transactions: what was taken back, each with the number of its producer and its first offset.
        on_drain: called once, when all was read.
    """

    def __init__(
        self,
        fetch_offset: int,
        tp: Any,
        records: Any,
        *,
        ear: Ear,
        check_crcs: bool = True,
        aborted_transactions: Any = None,
        on_drain: Callable[[Any], object] = lambda _: None,
        **_: Any,
    ) -> None:
        self.topic_partition = tp
        self.next_fetch_offset = self._start = fetch_offset
        self.leader_epoch = -1
        self.bytes_read = 0
        self._ear = ear
        self._checks = check_crcs
        self._aborted = deque(sorted(aborted_transactions or (), key=lambda each: each.first_offset))
        self._taken_back: set[int] = set()  #: the producers whose records are for nobody just now
        self._on_drain = on_drain
        self._error: Exception | None = None
        self._batches: Iterator[list[Stored]] | None = self._read(tp.topic, tp.partition, records)

    def __bool__(self) -> bool:
        return self._batches is not None

    def drain(self) -> None:
        """Nothing more is read of it."""
        if self._batches is not None:
            self._batches = None
            self._on_drain(self)

    def take(self, n: int | None = None) -> list[Stored]:
        """Batches of `n` records or more together; fewer where the answer ends. None: all of them."""
        found: list[Stored] = []
        try:
            for batch in self._batches or ():
                found += batch
                if n is not None and len(found) >= n:
                    break
        except Exception as error:
            self._error = error
        if not found or found[-1].offset + 1 != self.next_fetch_offset:
            self._ear.passed(self.topic_partition, self.next_fetch_offset)
        if self._error is not None and not found:  # what came before it is sound, and was given
            self.drain()
            self._ear.unreadable(self.topic_partition, self.next_fetch_offset, met(self._error))
        return found

    def _read(self, topic: str, partition: int, records: Any) -> Iterator[list[Stored]]:
        start = self._start
        while (batch := records.next_batch()) is not None:
            if self._checks and not batch.validate_crc():
                raise CorruptRecordError(f"a batch of {topic!r}, partition {partition}, fails its checksum")
            found: list[Stored] = []
            if batch.magic < 2:
                found = _old(batch, topic, partition, check=self._checks)
                end = found[-1].offset + 1 if found else start
            else:
                head = begun(bytes(batch._buffer))
                self.leader_epoch = head.leader_epoch
                if not self._is_void(head):
                    found = _whole(head, topic, partition)
                end = head.last + 1
            if found and found[0].offset < start:
                found = [record for record in found if record.offset >= start]
            self.bytes_read += batch.size_in_bytes
            self.next_fetch_offset = end
            yield found
        self.drain()

    def _is_void(self, batch: Batch) -> bool:
        """Whether it has nothing for anybody: the end of a transaction, or what a transaction took back."""
        if batch.producer >= 0:
            while self._aborted and self._aborted[0].first_offset <= batch.last:
                self._taken_back.add(self._aborted.popleft().producer_id)
            if batch.attributes & _CONTROL:
                (end, *_) = unpack(batch, "", -1) or (None,)
                if end is not None and end.key is not None and end.key[2:4] == _ABORT:
                    self._taken_back.discard(batch.producer)
            elif batch.attributes & _TRANSACTIONAL and batch.producer in self._taken_back:
                return True
        return bool(batch.attributes & _CONTROL)


def _whole(batch: Batch, topic: str, partition: int) -> list[Stored]:
    """Its records, or itself where they cannot be had."""
    try:
        return unpack(batch, topic, partition)
    except UnsupportedCodecError:
        raise
    except Exception:  # the libraries for compression raise anything about foreign bytes
        return [Raw._make((topic, partition, batch.base, batch.first_timestamp, None, batch.whole, b"\0"))]


def _old(batch: Any, topic: str, partition: int, *, check: bool) -> list[Stored]:
    """The records of a batch of one of the formats before, which had no headers."""
    found = []
    for each in batch:
        if check and not each.validate_crc():
            raise CorruptRecordError(f"offset {each.offset} of {topic!r}, partition {partition}, fails its checksum")
        time = -1 if each.timestamp is None else each.timestamp
        found.append(Stored(topic, partition, each.offset, time, each.key, each.value, b"\0"))
    return found


def unpack(batch: Batch, topic: str, partition: int) -> list[Stored]:
    """The records of a batch. `CorruptRecordError` where it is none."""
    data, position = unpacked(batch.attributes & _CODEC, batch.whole[_HEADER.size :]), 0
    base, first = batch.base, batch.first_timestamp
    appended = batch.max_timestamp if batch.attributes & _APPENDED else None  # the server's time, for all of them
    found = []
    if batch.records > RECORDS_MAX:
        raise TooMuch(f"{batch.records} records")
    try:
        for _ in range(batch.records):
            size, position = varint(data, position)
            end = position + size
            delta, position = varint(data, position + 1)  # behind the attributes, of which there are none yet
            offset, position = varint(data, position)
            size, position = varint(data, position)
            key = None
            if size >= 0:
                key = data[position : position + size]
                position += size
            size, position = varint(data, position)
            value = None
            if size >= 0:
                value = data[position : position + size]
                position += size
            if position > end:
                raise ValueError("a record is longer than it says")
            time = first + delta if appended is None else appended
            found.append(_stored((topic, partition, base + offset, time, key, value, data[position:end])))
            position = end
        if position != len(data):
            raise ValueError(f"{len(data) - position} bytes are left over")
    except (IndexError, ValueError) as error:
        raise CorruptRecordError(f"a batch of {topic!r}, partition {partition}, cannot be read: {error}") from error
    return found
