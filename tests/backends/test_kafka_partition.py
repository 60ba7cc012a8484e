"""One partition of Kafka that is ours: what is handed out, in which order, and what that counts for."""

from __future__ import annotations

from narrowboat_kafka.client import TopicPartition
from narrowboat_kafka.format import records
from narrowboat_kafka.format.ledger import Claim, Ledger
from narrowboat_kafka.format.stored import Stored
from narrowboat_kafka.member.partition import Partition


def _record(offset: int, expires: bytes | None = None) -> Stored:
    packed = b"\0"
    if expires is not None:  # how many there are, then lengths and texts; every number is written doubled
        name = records.EXPIRES.encode()
        packed = b"".join([b"\2", bytes([2 * len(name)]), name, bytes([2 * len(expires)]), expires])
    return Stored("orders", 0, offset, 1500, None, b"x", packed)


def _part(count: int) -> Partition:
    part = Partition(TopicPartition("orders", 0), Ledger(0), None)
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
    part.confirm_claims()
    (handed,) = part.hand_out_claimed(1, "feed", 0.0)
    assert handed.claims == 1
    assert part.unclaim()
    assert part.ledger.claims == {0: Claim(1, True), 1: Claim(0, False)}
    assert [tag.offset for tag in part.next(2, 0.0)[0]] == [1]


def test_what_has_expired_is_settled_and_not_handed_out() -> None:
    part = _part(0)
    part.ledger.see([0, 1])
    part.admit([_record(0, expires=b"10"), _record(1)])
    (tag,), dropped = part.next(2, 11.0)
    assert (tag.offset, dropped, part.ledger.base) == (1, True, 1)


def test_what_expires_after_it_was_claimed_ahead_is_not_handed_out_either() -> None:
    part = _part(0)
    part.ledger.see([0, 1])
    part.admit([_record(0, expires=b"10"), _record(1)])
    part.claim_ahead(part.next(2, 9.0)[0])
    part.confirm_claims()
    assert [tag.offset for tag in part.hand_out_claimed(2, "feed", 11.0)] == [1]
    assert part.ledger.claims == {1: Claim(1, True)}


def test_a_partition_that_is_given_up_hands_out_nothing() -> None:
    part = _part(3)
    part.leaving = True
    assert part.next(3, 0.0) == ([], False)
