"""What a fetch brings: records, read in one pass over each batch of them, their headers only when they are used.

kafka-python makes two objects and a list for each record and measures all its parts for metrics, which takes more than half
of the time that a message costs here. This reads the same format into one tuple. What is rare stays with the library:
checksums, compression, batches as servers wrote them before version 0.11.

A batch that is sound and cannot be taken apart (a program wrote what the server did not look at, or packed gigabytes into it)
becomes one record whose value is the whole batch, and what is behind it is read. A batch that fails its checksum, or whose
library for compression is missing, is not passed over: its partition ends there, and the reader is told.
Control batches (the end of a transaction) and what its program took back (an aborted transaction) are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, UnsupportedCodecError

from narrowboat_kafka.client import Ear
from narrowboat_kafka.format.stored import Raw, Stored, varint
from narrowboat_kafka.library.met import met
from narrowboat_kafka.library.packed import RECORDS_MAX, TooMuch, unpacked

#: At a third of the price of `Stored(...)`, which is paid for each record that is read.
_stored: Callable[[Sequence[Any]], Stored] = partial(tuple.__new__, Stored)


class Fetched(Fetcher.PartitionRecords):  # type: ignore[misc]  # the base class has no annotations
    """The records of one partition in one answer. It gives whole batches, so at least as many as it is asked for.

    It raises nothing: the library would ask again and again, and nothing else would ever be done on the I/O thread.
    """

    def __init__(self, *arguments: Any, ear: Ear, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._ear = ear
        self._error: Exception | None = None

    def take(self, n: int | None = None) -> list[Stored]:
        """Batches of `n` records or more together; fewer where the answer ends. None: all of them."""
        found: list[Stored] = []
        try:
            for batch in self.record_iterator or ():
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

    def _maybe_skip_record(self, record: object) -> bool:
        return False  # it is asked about batches here, which leave out by themselves what is before the fetch

    def _unpack_records(self, tp: Any, records: Any, *_: object) -> Iterator[list[Stored]]:
        start = self.fetch_offset
        while (batch := records.next_batch()) is not None:
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError(f"a batch of {tp.topic!r}, partition {tp.partition}, fails its checksum")
            found: list[Stored] = []
            if batch.magic < 2:
                found = _old(batch, tp.topic, tp.partition, check=self.check_crcs)
                end = found[-1].offset + 1 if found else start
            else:
                self.leader_epoch = batch.leader_epoch
                if not self._is_void(batch):
                    found = _whole(batch, tp.topic, tp.partition)
                end = batch.next_offset  # it stays when the last record has been compacted away
            if found and found[0].offset < start:
                found = [record for record in found if record.offset >= start]
            self.records_read += len(found)
            self.bytes_read += batch.size_in_bytes
            self.next_fetch_offset = end
            yield found
        self.drain()

    def _is_void(self, batch: Any) -> bool:
        """Whether it has nothing for anybody: the end of a transaction, or what a transaction took back."""
        if batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


def _whole(batch: Any, topic: str, partition: int) -> list[Stored]:
    """Its records, or itself where they cannot be had."""
    whole = bytes(batch._buffer)
    try:
        return unpack(batch, topic, partition)
    except UnsupportedCodecError:
        raise
    except Exception:  # the libraries for compression raise anything about foreign bytes
        return [Raw._make((topic, partition, batch.base_offset, batch.first_timestamp, None, whole, b"\0"))]


def _old(batch: Any, topic: str, partition: int, *, check: bool) -> list[Stored]:
    """The records of a batch of one of the formats before, which had no headers."""
    found = []
    for each in batch:
        if check and not each.validate_crc():
            raise CorruptRecordError(f"offset {each.offset} of {topic!r}, partition {partition}, fails its checksum")
        time = -1 if each.timestamp is None else each.timestamp
        found.append(Stored(topic, partition, each.offset, time, each.key, each.value, b"\0"))
    return found


def unpack(batch: Any, topic: str, partition: int) -> list[Stored]:
    """The records of a batch, which is a `DefaultRecordBatch` of the library. `CorruptRecordError` where it is none."""
    data, position = unpacked(batch), 0
    base, first = batch.base_offset, batch.first_timestamp
    appended = batch.max_timestamp if batch.timestamp_type else None  # the server's time, for all of them
    found = []
    if batch.records_count > RECORDS_MAX:
        raise TooMuch(f"{batch.records_count} records")
    try:
        for _ in range(batch.records_count):
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
