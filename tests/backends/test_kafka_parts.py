"""The parts of the Kafka backend that need no server: options, names, levels, the ledger, records, errors."""

from __future__ import annotations

import base64
import random
import string
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrowboat_kafka import ledger as ledgers
from narrowboat_kafka import levels, names, records
from narrowboat_kafka.backend import capabilities
from narrowboat_kafka.ledger import Claim, Ledger
from narrowboat_kafka.options import Options
from narrowboat_kafka.part import Part

with warnings.catch_warnings():
    # kafka-python reads its schemas in a way that Python 3.11 calls deprecated; not ours to mend, and an error here.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka.errors as client

    from narrowboat_kafka.driver import KafkaBroker
    from narrowboat_kafka.errors import translate, unpublished

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
    for offset in range(base, base + draw(st.integers(0, 60))):
        ledger.see(offset)
    for offset in range(base, ledger.next):
        for step in draw(st.lists(st.sampled_from(["claim", "back", "return"]), max_size=4)):
            if step == "claim" and not ledger.claims.get(offset, Claim(0, False)).out:
                ledger.claim(offset)
            elif step != "claim" and ledger.claims.get(offset, Claim(0, False)).out:
                ledger.release(offset, counted=step == "back")
    for offset in draw(st.permutations(range(base, ledger.next))):
        if draw(st.booleans()):
            ledger.settle(offset)
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


@given(st.integers(0, 20_000), st.randoms(use_true_random=False))
def test_what_does_not_fit_forgets_counts_and_no_settlement(width: int, chance: Any) -> None:
    ledger = Ledger(7)
    for offset in range(7, 7 + width):
        ledger.see(offset)
        for _ in range(chance.randrange(1, 4)):
            ledger.claim(offset)
    for offset in range(8, 7 + width):
        if chance.random() < 0.5:
            ledger.settle(offset)
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
        assert ledger.see(offset)
        ledger.claim(offset)
    for at in list(ledger.claims):
        ledger.settle(at)
    assert ledger.base == ledger.next
    assert not ledger.settled
    assert not ledger.claims


def test_what_is_settled_is_not_handed_out_again() -> None:
    ledger = ledgers.decode(5, _committed(settled=[6, 8]))
    assert [ledger.see(offset) for offset in (5, 6, 7, 8, 9)] == [True, False, True, False, True]


def test_a_crash_loop_is_counted() -> None:
    text = ""
    for times in (1, 2, 3):
        ledger = ledgers.decode(0, text)
        ledger.see(0)
        assert ledger.claim(0) == times
        text = ledgers.encode(ledger)


def _committed(settled: list[int]) -> str:
    ledger = Ledger(5)
    for offset in range(5, 12):
        ledger.see(offset)
    for offset in settled:
        ledger.settle(offset)
    return ledgers.encode(ledger)


# -- a partition ------------------------------------------------------------------------------------------------------


def _part(count: int) -> Part:
    part = Part(("orders", 0), Ledger(0), None)
    part.ready.extend(record for record in map(_record, range(count)) if part.ledger.see(record.offset))
    return part


def test_what_comes_back_goes_first_and_is_counted() -> None:
    part = _part(3)
    (first, times), _ = (part.hand_out(part.next(0.0)[0], "feed", 0.0) for _ in range(2))
    assert times == 1
    part.take_back(first, counted=True)
    record, _ = part.next(0.0)
    assert record.offset == 0
    assert part.hand_out(record, "feed", 0.0)[1] == 2


def test_what_was_claimed_ahead_and_not_handed_out_does_not_count() -> None:
    part = _part(2)
    for _ in range(2):
        part.claim_ahead(part.next(0.0)[0])
    assert part.ledger.counts(2) == (2, 0), "it is in nobody's hands"
    part.claims_are_kept()
    handed = part.hand_out_claimed("feed", 0.0)
    assert handed is not None
    assert handed[1] == 1
    assert part.unclaim()
    assert part.ledger.claims == {0: Claim(1, True), 1: Claim(0, False)}
    assert part.next(0.0)[0].offset == 1


def test_what_has_expired_is_settled_and_not_handed_out() -> None:
    part = _part(0)
    part.ready.extend([_record(0, [(records.ID, b"a"), (records.EXPIRES, b"10")]), _record(1)])
    part.ledger.see(0)
    part.ledger.see(1)
    record, dropped = part.next(11.0)
    assert (record.offset, dropped, part.ledger.base) == (1, True, 1)


def test_a_partition_that_is_given_up_hands_out_nothing() -> None:
    part = _part(3)
    part.leaving = True
    assert part.next(0.0) == (None, False)


# -- records ----------------------------------------------------------------------------------------------------------


def _record(offset: int, headers: list[tuple[str, bytes]] | None = None, **named: Any) -> Any:
    fields = {"topic": "orders", "partition": 0, "timestamp": 1500, "key": None, "value": b"x", "headers": headers or []}
    return SimpleNamespace(**{**fields, "offset": offset, **named})


def _as_read(record: records.Record, offset: int = 0) -> Any:
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
    assert not records.expired(got, 104.9)
    assert records.expired(got, 105.0)


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
