"""The parts of the Kafka backend that need no server: options, names, levels, the ledger, records, errors."""

from __future__ import annotations

import base64
import itertools
import math
import random
import string
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrowboat_kafka import ledger as ledgers
from narrowboat_kafka import levels, names, records, retention
from narrowboat_kafka.backend import capabilities
from narrowboat_kafka.ledger import Claim, Ledger
from narrowboat_kafka.options import Options
from narrowboat_kafka.part import Part

with warnings.catch_warnings():
    # kafka-python reads its schemas in a way that Python 3.11 calls deprecated; not ours to mend, and an error here.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka.errors as client
    from kafka import TopicPartition
    from kafka.consumer.fetcher import Fetcher
    from kafka.record import MemoryRecords, MemoryRecordsBuilder
    from kafka.record.default_records import DefaultRecordBatch

    from narrowboat_kafka.driver import KafkaBroker
    from narrowboat_kafka.errors import translate, unpublished
    from narrowboat_kafka.fetched import Fetched, Stored, unpack

import narrowboat
from narrowboat.capabilities import Kept, Support, Survives
from narrowboat.contract import Address, Broker, Kind, Outgoing
from narrowboat.dsn import Url
from narrowboat.errors import (
    AccessDenied,
    Closed,
    ConfigurationError,
    Conflict,
    NotFound,
    PublishFailed,
    PublishUnknown,
    Unavailable,
    Unsupported,
)

# -- options and claims -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("kafka+confluent://localhost", "only one driver"),
        ("kafka://localhost/shop", "prefix"),
        ("kafka://", "host"),
        ("kafka://user@localhost", "password"),
        ("kafka://localhost?ca=/ca.pem", "kafkas"),
        ("kafka://localhost?prefix=a_b", "prefix"),
        ("kafka://localhost?prefix=a--b", "prefix"),
        ("kafka://localhost?prefix=-a", "prefix"),
        ("kafka://localhost?partitions=0", "partitions"),
        ("kafka://localhost?replication=-1", "replication"),
        ("kafka://localhost?retention=-1", "retention"),
        ("kafka://localhost?session=0.1", "session"),
        ("kafka://localhost?delay_max=0.5", "delay_max"),
        ("kafka://localhost?sasl=magic", "sasl"),
        ("kafka://localhost?partition=2", "partitions"),
    ],
)
def test_what_a_url_cannot_mean_is_refused_with_the_reason(url: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        narrowboat.broker(url)


def test_replay_is_claimed_where_the_url_says_for_how_long() -> None:
    url = Url.parse("kafka://localhost")
    assert capabilities(url, Options()).replay is Support.ABSENT
    assert capabilities(url, Options()).kept is Kept.UNTIL_CONSUMED
    kept = capabilities(url, Options(retention=3600))
    assert (kept.replay, kept.kept) == (Support.NATIVE, Kept.RETENTION)
    assert capabilities(url, Options(replication=3)).survives is Survives.NODE


@pytest.mark.parametrize(
    "ask",
    [
        lambda broker: broker.queue("orders", ordered=True),
        lambda broker: broker.queue("orders", priorities=3),
        lambda broker: broker.queue("orders").request(b"", timeout=1),
        lambda broker: broker.topic("prices").subscription("g", start="earliest"),
    ],
)
def test_what_is_not_claimed_is_refused_before_any_connection(ask: Any) -> None:
    with pytest.raises(Unsupported):
        ask(narrowboat.broker("kafka://127.0.0.1:1"))


def test_the_driver_is_loaded_late_and_covers_no_entry_object() -> None:
    import narrowboat_kafka

    assert issubclass(KafkaBroker, Broker)
    assert narrowboat_kafka.broker.scheme == "kafka"


# -- names ------------------------------------------------------------------------------------------------------------

_names = st.one_of(
    st.text(st.sampled_from("aB1._-"), min_size=1, max_size=12),
    st.text(min_size=1, max_size=30),
    st.text("x", min_size=170, max_size=300),
)
_prefixes = st.one_of(st.just(""), st.from_regex(r"[a-z0-9.]{1,4}(-[a-z0-9.]{1,4})?", fullmatch=True))
_legal = set(string.ascii_letters + string.digits + "._-")


@given(_names, _prefixes)
def test_every_name_is_one_that_the_server_takes(name: str, prefix: str) -> None:
    queue, group = Address(Kind.QUEUE, name), Address(Kind.SUBSCRIPTION, name, "g" * 100)
    for found in (
        names.topic(queue, prefix),
        names.retry(queue, prefix),
        names.retry(group, prefix),
        names.delayed(queue, prefix),
    ):
        assert set(found) <= _legal
        assert len(found) <= 249
        assert found not in (".", "..")


@given(_names, _prefixes, _names, _prefixes)
def test_no_two_names_meet(one: str, here: str, two: str, there: str) -> None:
    if (one, here) != (two, there):
        assert names.topic(Address(Kind.QUEUE, one), here) != names.topic(Address(Kind.QUEUE, two), there)


@given(_names, _names, st.from_regex(r"[a-z0-9.]{1,4}", fullmatch=True))
def test_within_a_namespace_the_server_takes_no_two_for_the_same(one: str, two: str, prefix: str) -> None:
    def seen(name: str) -> str:
        return names.topic(Address(Kind.QUEUE, name), prefix).replace("_", ".")

    if one != two:
        assert seen(one) != seen(two)


@given(st.from_regex(r"[A-Za-z0-9._]{1,180}", fullmatch=True).filter(lambda name: name not in (".", "..")))
def test_plain_names_are_kept_for_other_programs(name: str) -> None:
    stem = name.removesuffix(".dead")
    assert names.topic(Address(Kind.QUEUE, name), "") == name or not stem


# -- levels -----------------------------------------------------------------------------------------------------------


@given(st.floats(0, 30 * 86400.0), st.integers(1, 15))
def test_no_level_keeps_a_message_longer_than_it_has_to_wait(remaining: float, count: int) -> None:
    level = levels.level(remaining, count)
    assert 0 <= level < count
    assert levels.stay(level) <= remaining
    assert level + 1 == count or levels.stay(level + 1) > remaining


@given(st.floats(0, 30 * 86400.0))
def test_from_level_to_level_every_delay_ends(delay: float) -> None:
    remaining, steps = delay, 0
    count = levels.count(max(delay, 1))
    while remaining >= levels.FIRST:
        remaining -= levels.stay(levels.level(remaining, count))
        steps += 1
    assert steps <= 3 * count
    assert 0 <= remaining < levels.FIRST


# -- the ledger -------------------------------------------------------------------------------------------------------


@st.composite
def _ledgers(draw: st.DrawFn) -> Ledger:
    """A ledger as a consumer makes it: seen in order, handed out, settled or given back in any order."""
    base = draw(st.integers(0, 2**40))
    ledger = Ledger(base)
    many = draw(st.integers(0, 60))
    if many:
        ledger.see(range(base, base + many))
    for offset in range(base, ledger.next):
        for step in draw(st.lists(st.sampled_from(["claim", "back", "return"]), max_size=4)):
            if step == "claim" and not ledger.claims.get(offset, Claim(0, False)).out:
                ledger.claim([offset])
            elif step != "claim" and ledger.claims.get(offset, Claim(0, False)).out:
                ledger.release(offset, counted=step == "back")
    for offset in draw(st.permutations(range(base, ledger.next))):
        if draw(st.booleans()):
            ledger.settle([offset])
    return ledger


@given(_ledgers())
def test_what_was_committed_is_read_again(ledger: Ledger) -> None:
    again = ledgers.decode(ledger.base, ledgers.encode(ledger))
    assert again.settled == ledger.settled
    assert again.claims == {offset: claim for offset, claim in ledger.claims.items() if claim != Claim(0, False)}


@given(_ledgers(), st.integers(0, 200))
def test_counts_add_up(ledger: Ledger, more: int) -> None:
    end = ledger.next + more
    ready, out = ledger.counts(end)
    assert ready + out + len(ledger.settled) == end - ledger.base
    assert out == sum(claim.out for claim in ledger.claims.values())


@given(_ledgers())
def test_the_base_is_the_first_that_is_not_settled(ledger: Ledger) -> None:
    assert ledger.base not in ledger.settled
    assert all(offset >= ledger.base for offset in (*ledger.settled, *ledger.claims))


@settings(deadline=None)  # the width takes its time on a busy machine
@given(st.integers(0, 8_000), st.integers())
def test_what_does_not_fit_forgets_counts_and_no_settlement(width: int, seed: int) -> None:
    ledger, chance = Ledger(7), random.Random(seed)
    if width:
        ledger.see(range(7, 7 + width))
    for offset in range(7, 7 + width):
        for _ in range(chance.randrange(1, 4)):
            ledger.claim([offset])
    ledger.settle([offset for offset in range(8, 7 + width) if chance.random() < 0.5])
    text = ledgers.encode(ledger)
    assert len(text) <= ledgers.LIMIT
    again = ledgers.decode(7, text)
    assert again.settled == ledger.settled
    assert again.claims.keys() == ledger.claims.keys()


def test_more_than_fits_is_refused_and_not_cut_off() -> None:
    ledger = Ledger(0)
    chance = random.Random(1)
    ledger.settled.update(offset for offset in range(1, 60_000) if chance.random() < 0.5)
    with pytest.raises(OverflowError):
        ledgers.encode(ledger)


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(lambda data: "n1:" + base64.b64encode(data).decode())))
def test_metadata_of_somebody_else_is_no_error(text: str) -> None:
    ledger = ledgers.decode(3, text)
    assert ledger.base == 3


@given(st.integers(0, 100), st.lists(st.integers(1, 50), max_size=20))
def test_offsets_that_do_not_exist_hold_nothing_up(base: int, jumps: list[int]) -> None:
    ledger, offset = Ledger(base), base - 1
    for jump in jumps:
        offset += jump
        assert ledger.see([offset]) == [True]
        ledger.claim([offset])
    ledger.settle(list(ledger.claims))
    assert ledger.base == ledger.next
    assert not ledger.settled
    assert not ledger.claims


def test_what_is_settled_is_not_handed_out_again() -> None:
    ledger = ledgers.decode(5, _committed(settled=[6, 8]))
    assert ledger.see([5, 6, 7, 8, 9]) == [True, False, True, False, True]


def test_a_crash_loop_is_counted() -> None:
    text = ""
    for times in (1, 2, 3):
        ledger = ledgers.decode(0, text)
        ledger.see([0])
        assert ledger.claim([0]) == [times]
        text = ledgers.encode(ledger)


def _committed(settled: list[int]) -> str:
    ledger = Ledger(5)
    ledger.see(range(5, 12))
    ledger.settle(settled)
    return ledgers.encode(ledger)


_offsets = st.sets(st.integers(0, 30))


@given(_offsets, _offsets, _offsets, st.permutations(range(31)), st.data())
def test_many_at_a_time_come_to_the_same_as_one_by_one(
    claimed: set[int], done: set[int], there: set[int], order: list[int], data: st.DataObject
) -> None:
    """Something is known from before; only some offsets are still `there`; then they are claimed twice, and settled."""
    before = Ledger(0)
    before.claim(sorted(claimed), out=False)
    before.settle(done)
    one, many = (ledgers.decode(before.base, ledgers.encode(before)) for _ in range(2))
    offsets = [offset for offset in sorted(there) if offset >= before.base]
    flags = [flag for group in _groups(offsets, data) for flag in many.see(group)]
    assert flags == [one._see(offset) for offset in offsets]
    assert flags == [offset not in done for offset in offsets]
    wanted = list(itertools.compress(offsets, flags))
    for _ in range(2):
        for group in _groups(wanted, data):
            out = data.draw(st.booleans())
            assert many.claim(group, out=out) == [count for offset in group for count in one.claim([offset], out=out)]
    for group in _groups([offset for offset in order if offset in wanted], data):
        many.settle(group)
        for offset in group:
            one.settle([offset])
    assert (many.base, many.next, many.settled, many.claims) == (one.base, one.next, one.settled, one.claims)
    assert ledgers.encode(many) == ledgers.encode(one)


def _groups(offsets: list[int], data: st.DataObject) -> list[list[int]]:
    found = []
    while offsets:
        size = data.draw(st.integers(1, len(offsets)))
        found.append(offsets[:size])
        offsets = offsets[size:]
    return found


# -- a partition ------------------------------------------------------------------------------------------------------


def _part(count: int) -> Part:
    part = Part(("orders", 0), Ledger(0), None)
    if count:
        part.ledger.see(range(count))
        part.admit(map(_record, range(count)))
    return part


def test_what_comes_back_goes_first_and_is_counted() -> None:
    part = _part(3)
    (first, second), _ = part.next(2, 0.0)
    part.hand_out([first, second], "feed", 0.0)
    assert first.claims == 1
    part.take_back(first, counted=True)
    (again,), _ = part.next(1, 0.0)
    part.hand_out([again], "feed", 0.0)
    assert (again.offset, again.claims) == (0, 2)
    assert part.out == {0: again, 1: second}, "the first delivery settles nothing any more"


def test_what_was_claimed_ahead_and_not_handed_out_does_not_count() -> None:
    part = _part(2)
    part.claim_ahead(part.next(2, 0.0)[0])
    assert part.ledger.counts(2) == (2, 0), "it is in nobody's hands"
    part.claims_are_kept()
    (handed,) = part.hand_out_claimed(1, "feed", 0.0)
    assert handed.claims == 1
    assert part.unclaim()
    assert part.ledger.claims == {0: Claim(1, True), 1: Claim(0, False)}
    assert [tag.offset for tag in part.next(2, 0.0)[0]] == [1]


def test_what_has_expired_is_settled_and_not_handed_out() -> None:
    part = _part(0)
    part.ledger.see([0, 1])
    part.admit([_record(0, [(records.ID, b"a"), (records.EXPIRES, b"10")]), _record(1)])
    (tag,), dropped = part.next(2, 11.0)
    assert (tag.offset, dropped, part.ledger.base) == (1, True, 1)


def test_what_expires_after_it_was_claimed_ahead_is_not_handed_out_either() -> None:
    part = _part(0)
    part.ledger.see([0, 1])
    part.admit([_record(0, [(records.EXPIRES, b"10")]), _record(1)])
    part.claim_ahead(part.next(2, 9.0)[0])
    part.claims_are_kept()
    assert [tag.offset for tag in part.hand_out_claimed(2, "feed", 11.0)] == [1]
    assert part.ledger.claims == {1: Claim(1, True)}


def test_a_partition_that_is_given_up_hands_out_nothing() -> None:
    part = _part(3)
    part.leaving = True
    assert part.next(3, 0.0) == ([], False)


# -- what a fetch brings ----------------------------------------------------------------------------------------------


def _batch(rows: list[tuple[Any, ...]], compression: int = 0) -> bytes:
    """As the server keeps it: rows of (timestamp, key, value, headers)."""
    made = MemoryRecordsBuilder(2, compression, 1024 * 1024)
    for row in rows:
        assert made.append(*row) is not None
    made.close()
    return bytes(made.buffer())


def _fetch(data: bytes, start: int = 0) -> Fetched:
    return Fetched(start, TopicPartition("orders", 3), MemoryRecords(data), check_crcs=True)


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
        assert [getattr(got, name) for name in (*Stored._fields[:-1], "headers")] == [
            getattr(want, name) for name in (*Stored._fields[:-1], "headers")
        ]
    assert (ours.next_fetch_offset, ours.leader_epoch, bool(ours)) == (theirs.next_fetch_offset, theirs.leader_epoch, False)


def test_a_fetch_begins_where_it_was_asked_for_and_not_where_its_first_batch_does() -> None:
    ours = _fetch(_batch([(1, None, b"%d" % number, []) for number in range(5)]), start=3)
    assert [record.value for record in ours.take()] == [b"3", b"4"]


def test_what_fails_its_checksum_is_not_handed_out() -> None:
    data = bytearray(_batch([(1, None, b"body", [])]))
    data[-3] ^= 1
    with pytest.raises(client.CorruptRecordError):
        _fetch(bytes(data)).take()


def test_the_sound_batches_before_a_broken_one_are_read_and_the_next_fetch_begins_behind_them() -> None:
    sound, broken = _batch([(1, None, b"a", []), (1, None, b"b", [])]), bytearray(_batch([(1, None, b"c", [])]))
    broken[-3] ^= 1
    ours = _fetch(sound + bytes(broken))
    assert [record.value for record in ours.take()] == [b"a", b"b"]
    assert ours.next_fetch_offset == 2
    with pytest.raises(client.CorruptRecordError):
        ours.take()


@given(st.data())
def test_a_batch_that_is_cut_off_inside_is_one_error(data: st.DataObject) -> None:
    whole = _batch([(1, b"key", b"value", [("name", b"x")])] * 3)
    batch = MemoryRecords(whole).next_batch()
    batch._buffer = batch._buffer[: data.draw(st.integers(DefaultRecordBatch.HEADER_STRUCT.size, len(whole) - 1))]
    with pytest.raises(client.CorruptRecordError):
        unpack(batch, "orders", 0)


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


# -- retention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "wanted", "told"),
    [
        ({"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}, 0.0, None),
        ({"cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1"}, 0.0, "retention.ms=604800000"),
        ({"cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1"}, 604800.0, None),
        ({"cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1"}, 604801.0, "604801 s"),
        ({"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "1000"}, 0.0, "retention.bytes=1000"),
        ({"cleanup.policy": "compact", "retention.ms": "1", "retention.bytes": "1"}, 0.0, "cleanup.policy=compact:"),
        (
            {"cleanup.policy": "compact,delete", "retention.ms": "1", "retention.bytes": "-1"},
            0.0,
            "compact,delete, retention.ms=1",
        ),
        ({}, 0.0, None),
    ],
)
def test_a_topic_that_keeps_less_than_the_url_promises_is_told(
    found: dict[str, str], wanted: float, told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", "narrowboat.kafka"):  # whatever an example of the docs has set
        retention.report("orders", "queue 'orders'", found, wanted)
    if told is None:
        assert not caplog.messages
    else:
        (message,) = caplog.messages
        assert told in message
        assert "kafka-configs.sh --alter --topic orders" in message


# -- records ----------------------------------------------------------------------------------------------------------


def _record(offset: int, headers: list[tuple[str, bytes]] | None = None, **named: Any) -> Stored:
    fields = {"timestamp": 1500, "key": None, "value": b"x", **named}
    data = _batch([(fields["timestamp"], fields["key"], fields["value"], headers or [])])
    (read,) = unpack(MemoryRecords(data).next_batch(), fields.get("topic", "orders"), 0)
    return read._replace(offset=offset)


def _as_read(record: records.Record, offset: int = 0) -> Stored:
    return _record(offset, record.headers, topic=record.topic, key=record.key, value=record.value, timestamp=record.timestamp)


_text = st.text(min_size=1, max_size=20)


@given(
    st.binary(max_size=50),
    st.dictionaries(_text.filter(lambda name: not name.startswith("narrowboat-")), st.text(max_size=20), max_size=4),
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
    moved = records.delivery(_as_read(records.again(raw, "orders.dead", None, {}), 99), 1, 0.0, None)
    assert (moved.id, moved.key, moved.headers["name"]) == (got.id, got.key, got.headers["name"])


def test_what_is_published_again_carries_its_claims_and_its_time() -> None:
    raw = _record(0, [(records.ID, b"a"), (records.ATTEMPTS, b"2"), (records.DUE, b"1"), (records.STEP, b"1")])
    again = records.again(raw, "retry", 3, {records.ATTEMPTS: "5", records.DUE: "9.5", records.STEP: "8.5"})
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


def test_numbers_of_somebody_else_are_no_numbers() -> None:
    for text in (b"inf", b"nan", b"-", b"1e999"):
        assert records.delivery(_record(0, [(records.ATTEMPTS, text), (records.PRIORITY, text)]), 1, 0.0, None).attempt == 1


@given(st.text(min_size=1, max_size=80))
def test_an_id_of_any_length_arrives(id: str) -> None:
    assert records.delivery(_record(0, [(records.ID, records.data(id))]), 1, 0.0, None).id == id


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("met", "ours"),
    [
        (client.KafkaTimeoutError("late"), Unavailable),
        (client.NodeNotReadyError("1"), Unavailable),
        (client.TopicAuthorizationFailedError("orders"), AccessDenied),
        (client.GroupAuthorizationFailedError("orders"), AccessDenied),
        (client.SaslAuthenticationFailedError("no"), AccessDenied),
        (client.UnknownTopicOrPartitionError("orders"), NotFound),
        (client.InvalidTopicError("a_b"), Conflict),
        (client.InvalidReplicationFactorError("3"), ConfigurationError),
        (client.InvalidSessionTimeoutError("1"), ConfigurationError),
        (RuntimeError("NetworkSelector closed!"), Closed),
        (OSError("gone"), Unavailable),
    ],
)
def test_errors_of_the_client_are_ours(met: Exception, ours: type[Exception]) -> None:
    error = translate(met, "publishing to 'orders'")
    assert type(error) is ours
    assert error.__cause__ is met
    assert "publishing to 'orders'" in str(error)


@pytest.mark.parametrize(
    ("met", "left", "ours"),
    [
        (client.MessageSizeTooLargeError("big"), True, PublishFailed),
        (client.KafkaTimeoutError("late"), True, PublishUnknown),
        (client.KafkaTimeoutError("late"), False, PublishFailed),
        (client.NotEnoughReplicasAfterAppendError("one"), True, PublishUnknown),
        (client.TopicAuthorizationFailedError("orders"), True, AccessDenied),
    ],
)
def test_a_publish_has_failed_only_where_the_message_never_left(met: Exception, left: bool, ours: type[Exception]) -> None:
    error = unpublished(met, "id", "orders", left=left)
    assert type(error) is ours
    assert "orders" in str(error)
