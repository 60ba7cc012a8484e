"""RabbitMQ: how many settlements are under way into a quorum queue, against a queue that is written down here."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from narrowboat_rabbitmq.connection.channel import Channel
from narrowboat_rabbitmq.protocol.acks import AHEAD, Pace
from narrowboat_rabbitmq.stream import Job, Stream

#: What a server's channel hands a queue ahead of its application.
SERVER = 32
STEPS = st.lists(
    st.tuples(st.just("apply"), st.just(0))
    | st.tuples(st.just("settle"), st.integers(1, 5))
    | st.tuples(st.just("prove"), st.just(0)),
    max_size=300,
)


@given(st.integers(1, 60), st.integers(0, 500), STEPS)
def test_what_is_under_way_is_never_more_than_is_known(credit: int, backlog: int, steps: list[tuple[str, int]]) -> None:
    """Whatever the queue applies, and when: the frames that it has not applied are those that the pace counts, or fewer."""
    pace = Pace()
    pace.grant(credit)
    out, frames = 0, deque[int]()

    def push() -> None:
        nonlocal out, backlog
        while backlog and out < credit:
            backlog -= 1
            out += 1
            pace.push()

    push()
    ours = out  # in our hands, not settled
    for what, count in steps:
        if what == "settle" and pace.room > 0 and ours:
            settled = min(count, ours)
            ours -= settled
            pace.sent(settled)
            frames.append(settled)
        elif what == "apply" and frames:
            before = out = out - frames.popleft()
            push()
            ours += out - before
        elif what == "prove":
            while frames:
                before = out = out - frames.popleft()
                push()
                ours += out - before
            pace.proven()
        assert len(frames) <= AHEAD - pace.room
        assert len(frames) <= AHEAD < SERVER


class Raw:
    """pika's channel, as a list of what was sent on it."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.asked: Any = None

    def basic_ack(self, number: int, multiple: bool = False) -> None:
        self.sent.append(("ack", number, multiple))

    def basic_reject(self, number: int, requeue: bool) -> None:
        self.sent.append(("reject", number))

    def basic_nack(self, number: int, requeue: bool) -> None:
        self.sent.append(("nack", number))

    def basic_get(self, queue: str, callback: Any) -> None:
        self.sent.append(("get",))

    def queue_declare(self, queue: str, passive: bool, callback: Any) -> None:
        self.sent.append(("look",))


class Delivered:
    redelivered = False

    def __init__(self, number: int) -> None:
        self.delivery_tag = number


def streaming(messages: int, *, paced: bool = True) -> tuple[Stream, Raw]:
    stream, raw = Stream(lambda: None, paced=paced), Raw()
    stream.channel = Channel(None, None)  # type: ignore[arg-type]  # nothing of them is used
    stream.channel.raw = raw
    stream.grant(messages)
    for number in range(1, messages + 1):
        stream.on_message(None, Delivered(number), b"\0\0", b"x")
    return stream, raw


def test_acks_one_by_one_stop_for_a_proof_and_are_answered_in_the_end() -> None:
    stream, raw = streaming(101)
    job = Job(list(range(2, 102)))
    stream.submit(job)
    for _ in range(10):
        if job.answer.given:
            break
        assert raw.sent[-1] in (("get",), ("look",))
        stream._answered(None)
    assert job.answer.value == frozenset()
    assert [each[1] for each in raw.sent if each[0] == "ack"] == list(range(2, 102))
    runs = "".join("a" if each[0] == "ack" else "|" for each in raw.sent).split("|")
    assert max(map(len, runs)) == AHEAD


def test_a_classic_queue_needs_no_proof() -> None:
    stream, raw = streaming(101, paced=False)
    stream.submit(Job(list(range(2, 102))))
    assert [each[0] for each in raw.sent] == ["ack"] * 100 + ["look"]


def test_all_up_to_one_is_one_frame_and_returns_are_what_they_say() -> None:
    stream, raw = streaming(5)
    stream.submit(Job([1, 2], given_back=[3], freed=[4]))
    assert raw.sent == [("ack", 2, True), ("reject", 3), ("nack", 4), ("look",)]
    assert list(stream.outstanding) == [5]


def test_what_was_sent_without_an_answer_is_unknown_and_what_was_not_is_stale() -> None:
    stream, _ = streaming(60)
    sent, waiting = Job(list(range(2, 30))), Job([40])
    stream.submit(sent)
    stream.submit(waiting)
    assert stream.channel is not None
    stream.on_end(ConnectionError("gone"))
    assert isinstance(sent.answer.error, ConnectionError)
    assert waiting.answer.value == frozenset({40})
    assert stream.channel.unanswered == set(range(2, 2 + AHEAD))


def test_a_settlement_that_is_asked_for_again_waits_for_the_first_ones_answer() -> None:
    stream, raw = streaming(3)
    stream.submit(Job([1]))
    again = Job([1])
    stream.submit(again)
    assert [each[0] for each in raw.sent] == ["ack", "look"]
    stream._answered(None)
    stream._answered(None)
    assert again.answer.value == frozenset()
