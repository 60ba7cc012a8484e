"""Records of Kafka: as a fetch brings them, as messages are written and delivered."""

from __future__ import annotations

import math
import struct
import sys
import tracemalloc
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrowboat.contract import Address, Kind, Outgoing
from narrowboat.contract.messages import DEAD_ATTEMPTS, DEAD_REASON
from narrowboat.errors import ConfigurationError
from narrowboat_kafka.format import records
from narrowboat_kafka.format.stored import Raw, Stored

with warnings.catch_warnings():
    # kafka-python reads its schemas in a way that Python 3.11 calls deprecated; not ours to mend, and an error here.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka.errors as client
    from kafka.consumer.fetcher import Fetcher
    from kafka.record import MemoryRecords, MemoryRecordsBuilder
    from kafka.record.default_records import DefaultRecordBatch
    from kafka.record.util import calc_crc32c

    from narrowboat_kafka.client import KafkaError, TopicPartition
    from narrowboat_kafka.errors import unreadable
    from narrowboat_kafka.library.fetched import Fetched, begun, unpack
    from narrowboat_kafka.library.met import met


def _batch(rows: list[tuple[Any, ...]], compression: int = 0) -> bytes:
    """As the server keeps it: rows of (timestamp, key, value, headers)."""
    made = MemoryRecordsBuilder(2, compression, 1024 * 1024)
    for row in rows:
        assert made.append(*row) is not None
    made.close()
    return bytes(made.buffer())


def _record(offset: int, headers: list[tuple[str, bytes]] | None = None, **named: Any) -> Stored:
    fields = {"timestamp": 1500, "key": None, "value": b"x", **named}
    data = _batch([(fields["timestamp"], fields["key"], fields["value"], headers or [])])
    (read,) = unpack(begun(data), fields.get("topic", "orders"), 0)
    return read._replace(offset=offset)


# -- what a fetch brings ----------------------------------------------------------------------------------------------


class _Told(list[Any]):
    """What a fetch tells beside its records: up to where it passed, and where it cannot be read on."""

    def passed(self, tp: Any, end: int) -> None:
        self.append(end)

    def unreadable(self, tp: Any, offset: int, error: KafkaError) -> None:
        self.append((offset, type(error.__cause__)))


def _fetch(data: bytes, start: int = 0, told: _Told | None = None, **named: Any) -> Fetched:
    told = _Told() if told is None else told
    ear: Any = told  # of what a member hears, a fetch tells these two alone
    return Fetched(
        start,
        TopicPartition("orders", 3),
        MemoryRecords(data),
        check_crcs=True,
        ear=ear,
        **named,
    )


_rows = st.lists(
    st.tuples(
        st.integers(0, 2**41),
        st.one_of(st.none(), st.binary(max_size=100)),
        st.one_of(st.none(), st.binary(max_size=300)),
        st.lists(st.tuples(st.text(max_size=90), st.one_of(st.none(), st.binary(max_size=90))), max_size=3),
    ),
    min_size=1,
    max_size=70,
)


@given(_rows, st.sampled_from([0, 1]))
def test_a_fetch_is_read_as_the_library_reads_it(rows: list[tuple[Any, ...]], compression: int) -> None:
    data = _batch(rows, compression)
    theirs = Fetcher.PartitionRecords(0, TopicPartition("orders", 3), MemoryRecords(data), check_crcs=True)
    ours = _fetch(data)
    for got, want in zip(ours.take(), theirs.take(), strict=True):
        assert [getattr(got, name) for name in Stored._fields[:-1]] == [getattr(want, name) for name in Stored._fields[:-1]]
        assert got.headers == [(name.partition("\0")[0], value) for name, value in want.headers]
    assert (ours.next_fetch_offset, ours.leader_epoch, bool(ours)) == (theirs.next_fetch_offset, theirs.leader_epoch, False)


@pytest.mark.parametrize(
    ("name", "headers", "problem"),
    [
        (b"caf\xc3\xa9", [("caf\u00e9", b"1")], ""),
        (b"a\0b", [("a", b"1")], ""),
        (b"a\0\xff", [("a", b"1")], ""),
        (b"\0", [("", b"1")], ""),
        (b"caf\xe9", [], "its headers cannot be read: one of them has a name that is no UTF-8"),
        (b"\xed\xb0\x80", [], "its headers cannot be read: one of them has a name that is no UTF-8"),
    ],
)
def test_a_name_of_a_header_is_what_every_client_can_give(name: bytes, headers: list[tuple[str, bytes]], problem: str) -> None:
    """It ends at a NUL, and where one is no UTF-8 the record has no headers, and says so."""
    packed = bytes((2, 2 * len(name))) + name + b"\x021"
    record = Stored("orders", 0, 7, 1500, None, b"body", packed)
    assert (record.headers, record.problem) == (headers, problem)
    got = records.delivery(record, 1, 0.0, None)
    assert (got.id, dict(got.headers), got.malformed) == ("orders-0-7", {key: "1" for key, _ in headers}, problem)


def test_the_library_is_told_when_all_was_read_and_how_much_that_is() -> None:
    data = _batch([(1, None, b"x", [])])
    told: list[int] = []
    ours = _fetch(data + data, on_drain=lambda read: told.append(read.bytes_read))
    assert len(ours.take()) == 2
    assert told == [len(data) * 2], "it begins the next fetch with another partition where this one had something"


def test_a_fetch_begins_where_it_was_asked_for_and_not_where_its_first_batch_does() -> None:
    ours = _fetch(_batch([(1, None, b"%d" % number, []) for number in range(5)]), start=3)
    assert [record.value for record in ours.take()] == [b"3", b"4"]


def test_what_fails_its_checksum_is_not_handed_out_and_told_once() -> None:
    data = bytearray(_batch([(1, None, b"body", [])]))
    data[-3] ^= 1
    told = _Told()
    ours = _fetch(bytes(data), told=told)
    assert ours.take() == []
    assert not ours, "the library would ask it again and again"
    assert (0, client.CorruptRecordError) in told
    assert ours.take() == []


def test_the_sound_batches_before_a_broken_one_are_read_and_the_next_fetch_begins_behind_them() -> None:
    sound, broken = _batch([(1, None, b"a", []), (1, None, b"b", [])]), bytearray(_batch([(1, None, b"c", [])]))
    broken[-3] ^= 1
    told = _Told()
    ours = _fetch(sound + bytes(broken), told=told)
    assert [record.value for record in ours.take()] == [b"a", b"b"]
    assert ours.next_fetch_offset == 2
    assert ours.take() == []
    assert told[-1] == (2, client.CorruptRecordError)


@pytest.mark.parametrize(
    ("codec", "library", "module"), [(2, "snappy", "snappy"), (3, "lz4", "lz4.frame"), (4, "zstd", "zstandard")]
)
def test_what_is_compressed_is_read_where_its_library_is_there_and_names_it_where_it_is_not(
    codec: int, library: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[tuple[Any, ...]] = [(1, None, b"%d" % number * 100, []) for number in range(50)]
    data = _batch(rows, codec)
    assert [record.value for record in _fetch(data).take()] == [value for _, _, value, _ in rows]
    monkeypatch.setitem(sys.modules, module, None)  # an import of it fails from now on
    told = _Told()
    assert _fetch(data, told=told).take() == []
    assert told[-1] == (0, client.UnsupportedCodecError)
    error = unreadable(
        met(client.UnsupportedCodecError(f"Libraries for {library} compression codec not found")),
        TopicPartition("orders", 3),
        0,
    )
    assert isinstance(error, ConfigurationError)
    assert "pip install" in str(error)


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_what_means_gigabytes_is_one_record_that_nobody_unpacked(codec: int) -> None:
    data = _batch([(1, None, bytes(80 * 2**20), [])], codec)
    following = _batch([(1, None, b"next", [])])
    tracemalloc.start()
    try:
        (got,) = _fetch(data).take()
        assert tracemalloc.get_traced_memory()[1] < 150 * 2**20
    finally:
        tracemalloc.stop()
    assert isinstance(got, Raw)
    assert got.value == data
    delivery = records.delivery(got, 1, 0.0, None)
    assert (delivery.body, delivery.malformed != "", delivery.id) == (data, True, "orders-3-0")
    assert [record.value for record in _fetch(data + following).take()] == [data, b"next"]


def _tail(data: bytes, *, control: bool = False, offset: int = 0, producer: int = -1, transactional: bool = False) -> bytes:
    """A batch with other attributes, as a server keeps it; its checksum is made anew."""
    changed = bytearray(data)
    struct.pack_into(">q", changed, 0, offset)
    attributes = (0x20 if control else 0) | (0x10 if transactional else 0)
    struct.pack_into(">h", changed, DefaultRecordBatch.ATTRIBUTES_OFFSET, attributes)
    struct.pack_into(">q", changed, 43, producer)
    struct.pack_into(">I", changed, DefaultRecordBatch.CRC_OFFSET, calc_crc32c(changed[DefaultRecordBatch.ATTRIBUTES_OFFSET :]))
    return bytes(changed)


def test_what_a_transaction_took_back_is_for_nobody_and_its_end_is_passed() -> None:
    taken_back = _tail(_batch([(1, None, b"a", [])]), producer=7, transactional=True)
    aborted = _tail(_batch([(1, b"\0\0\0\0", b"\0\0\0\0\0\0", [])]), control=True, offset=1, producer=7, transactional=True)
    kept = _tail(_batch([(1, None, b"c", [])]), offset=2, producer=7, transactional=True)
    committed = _tail(_batch([(1, b"\0\0\0\1", b"\0\0\0\0\0\0", [])]), control=True, offset=3, producer=7, transactional=True)
    told, about = _Told(), SimpleNamespace(producer_id=7, first_offset=0)
    ours = _fetch(taken_back + aborted + kept + committed, told=told, aborted_transactions=[about])
    assert [record.value for record in ours.take()] == [b"c"]
    assert told == [4], "what is behind the last record does not exist"


@given(st.data())
def test_a_batch_that_is_cut_off_inside_is_one_error(data: st.DataObject) -> None:
    whole = _batch([(1, b"key", b"value", [("name", b"x")])] * 3)
    with pytest.raises(client.CorruptRecordError):
        unpack(begun(whole[: data.draw(st.integers(0, len(whole) - 1))]), "orders", 0)


@given(st.data())
def test_a_batch_that_cannot_be_taken_apart_is_handed_out_as_it_is(data: st.DataObject) -> None:
    whole = bytearray(_batch([(1, b"key", b"value", [("name", b"x")])] * 3))
    at = data.draw(st.integers(DefaultRecordBatch.HEADER_STRUCT.size, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    broken = _tail(bytes(whole))
    got = _fetch(broken + _tail(_batch([(1, None, b"behind", [])]), offset=3)).take()
    assert got[-1].value == b"behind"
    # A record that claims an offset before the batch's own is nobody's: a server takes no such batch.
    assert len(got) == 4 or got[0].value == broken or (len(got) == 3 and got[0].offset == 1)
    for record in got:  # some changes only make another record of it
        records.delivery(record, 1, 0.0, None)
        records.republished(record, "orders.retry", 1, {})


@given(st.binary(max_size=40))
def test_headers_that_nobody_can_read_are_none(packed: bytes) -> None:
    headers = _record(0)._replace(packed=packed).headers
    assert all(isinstance(name, str) for name, _ in headers)


def test_what_the_server_wrote_long_ago_is_read_as_well() -> None:
    made = MemoryRecordsBuilder(1, 0, 1024)
    made.append(1500, b"key", b"value", [])
    made.close()
    (got,) = _fetch(bytes(made.buffer())).take()
    assert (got.offset, got.timestamp, got.key, got.value, got.headers) == (0, 1500, b"key", b"value", [])


# -- messages -----------------------------------------------------------------------------------------------------------


def _as_read(record: records.Record, offset: int = 0) -> Stored:
    return _record(offset, record.headers, topic=record.topic, key=record.key, value=record.value, timestamp=record.timestamp)


_text = st.text(min_size=1, max_size=20)


@given(
    st.binary(max_size=50),
    st.dictionaries(
        _text.filter(lambda name: "\0" not in name and not name.startswith("narrowboat-")), st.text(max_size=20), max_size=4
    ),
    st.one_of(st.none(), _text),
    st.one_of(st.none(), _text),
    st.integers(0, 9),
)
def test_a_message_arrives_as_it_was_sent(
    body: bytes, headers: dict[str, str], key: str | None, correlation: str | None, priority: int
) -> None:
    message = Outgoing(
        Address(Kind.QUEUE, "orders"), "id", body, headers, key, 12.5, 0.0, priority, None, correlation, None, None, dedup=False
    )
    got = records.delivery(_as_read(records.outgoing(message, "orders", None, 100.0)), 1, 100.0, "tag")
    assert (got.id, got.body, dict(got.headers), got.key, got.attempt) == ("id", body, headers, key, 1)
    assert (got.published_at, got.priority, got.correlation_id, got.expires_in, got.tag) == (
        12.5,
        priority,
        correlation,
        None,
        "tag",
    )


def test_a_record_of_somebody_else_is_delivered_as_it_is() -> None:
    raw = _record(7, [("name", b"\xff"), ("empty", None), ("narrowboat-attempts", b"many")], key=b"\xfe", value=None)  # type: ignore[list-item]  # as the client gives it
    got = records.delivery(raw, 1, 0.0, None)
    assert (got.id, got.body, got.attempt) == ("orders-0-7", b"", 1)
    assert got.key is not None
    assert records.data(got.key) == b"\xfe"
    assert records.data(got.headers["name"]) == b"\xff"
    moved = records.delivery(_as_read(records.republished(raw, "orders.dead", None, {}), 99), 1, 0.0, None)
    assert (moved.id, moved.key, moved.headers["name"]) == (got.id, got.key, got.headers["name"])


@pytest.mark.parametrize("headers", [[], [(records.ID, b"")], [(records.ID, b"a"), (records.ID, b"")]])
def test_a_record_without_an_id_keeps_the_one_that_it_was_given(headers: list[tuple[str, bytes]]) -> None:
    raw = _record(7, headers)
    given = records.delivery(raw, 1, 0.0, None).id
    assert given == "orders-0-7"
    moved = _as_read(records.republished(raw, "orders.dead", None, {}), 99)
    assert records.delivery(moved, 1, 0.0, None).id == given


def test_what_is_published_again_carries_its_claims_and_its_time() -> None:
    raw = _record(0, [(records.ID, b"a"), (records.ATTEMPTS, b"2"), (records.DUE, b"1"), (records.STEP, b"1")])
    again = records.republished(raw, "retry", 3, {records.ATTEMPTS: "5", records.DUE: "9.5", records.STEP: "8.5"})
    assert [name for name, _ in again.headers].count(records.DUE) == 1
    got = _as_read(again)
    assert records.number(got, records.DUE, 0.0) == 9.5
    assert records.delivery(got, 1, 0.0, None).attempt == 6


def test_the_time_to_live_counts_from_the_publish() -> None:
    message = Outgoing(Address(Kind.QUEUE, "q"), "id", b"", {}, None, 0.0, 0.0, 0, 5.0, None, None, None, dedup=False)
    got = _as_read(records.outgoing(message, "q", None, 100.0))
    assert records.delivery(got, 1, 103.0, None).expires_in == pytest.approx(2.0)
    assert records.expires(got) == 105.0
    assert records.expires(_record(0)) == math.inf
    assert records.expires(_record(0, [(records.EXPIRES, b"never")])) == math.inf


@pytest.mark.parametrize(
    "text", [b"inf", b"nan", b"-", b"1e999", b"-1", b"-0.9", b"-1000000", b"1.5", b"1e308", b"9" * 5000, b"", b"\xff"]
)
def test_numbers_of_somebody_else_are_no_numbers(text: bytes) -> None:
    record = _record(0, [(records.ATTEMPTS, text), (records.PRIORITY, text)])
    got = records.delivery(record, 1, 0.0, None)
    assert (got.attempt, got.priority, records.attempts(record)) == (1, 0, 0)
    assert records.ATTEMPTS in got.malformed or text == b""


def test_what_is_whole_is_not_called_malformed() -> None:
    message = Outgoing(Address(Kind.QUEUE, "q"), "id", b"", {"h": "v"}, "k", 0.0, 9.0, 0, 5.0, "c", "t", None, dedup=False)
    record = _as_read(records.outgoing(message, "q", 3, 100.0))
    assert records.delivery(record, 1, 103.0, None).malformed == ""
    assert records.delivery(_record(0), 1, 103.0, None).malformed == ""
    assert records.delivery(record._replace(packed=b"\x02\x08"), 1, 103.0, None).malformed


def test_what_is_too_large_dies_without_its_body_and_says_where_it_is() -> None:
    many = [(f"h{number}", b"x" * 100) for number in range(3000)]
    for headers, kept in (([("h", b"v")], True), (many, False), ([("h", b"v"), (DEAD_REASON, b"r" * 9_000_000)], True)):
        stored = _record(12, headers, key=b"k" * 70_000, value=b"b")
        letter = records.without_body(records.republished(stored, "orders.dead", None, {DEAD_ATTEMPTS: "3"}), stored)
        names = dict(letter.headers)
        assert (letter.value, letter.key) == (b"", None)
        assert names[records.DEAD_ORIGINAL] == b"orders/0/12"
        assert names[DEAD_ATTEMPTS] == b"3"
        assert names[records.ID] == b"orders-0-12"
        assert ("h" in names or "h1" in names) == kept
        assert sum(len(name) + len(value) for name, value in letter.headers) < 2**18


@given(st.text(min_size=1, max_size=80))
def test_an_id_of_any_length_arrives(id: str) -> None:
    assert records.delivery(_record(0, [(records.ID, records.data(id))]), 1, 0.0, None).id == id
