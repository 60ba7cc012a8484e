"""Publishing: which messages go in one call, and what its answer means for each.

One call takes messages of one topic, and answers for all together. Those of an ordered queue go one by one, those of one key
one after the other, because the server looks at the first message's key alone. Delayed ones go one by one as well: a call with
several ends the broker's timer for good (5.4.0), and nothing that is delayed comes any more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from narrowboat.contract import Address, Kind, Outgoing, Receipt
from narrowboat.errors import NarrowboatError, Unavailable, Unsupported
from narrowboat_rocketmq.envelope import group_of, outgoing
from narrowboat_rocketmq.errors import other_type, refusals, unpublished
from narrowboat_rocketmq.library import definition_pb2 as said
from narrowboat_rocketmq.library import service_pb2 as service
from narrowboat_rocketmq.link import Link
from narrowboat_rocketmq.names import Place
from narrowboat_rocketmq.options import SCHEME
from narrowboat_rocketmq.sources import Sources

#: Messages and bytes of one call; the broker takes 4 MiB, what it adds to each among them.
_MOST, _ROOM, _ADDED = 256, 3 * 1024 * 1024, 512
#: Calls that are under way at once.
_SIDE_BY_SIDE = 64

Answers = list[Any]


class Publisher:
    """See the module's text. From any thread."""

    def __init__(self, link: Link, sources: Sources) -> None:
        self._link = link
        self._sources = sources

    def send(self, messages: Sequence[Outgoing], *, dead: bool = False) -> list[Receipt | NarrowboatError]:
        """Store each message; those with a receipt are confirmed. `dead`: their queue is made whatever the URL says."""
        answers: Answers = [None] * len(messages)
        places = self._places(messages, answers, dead)
        left = [index for index, answer in enumerate(answers) if answer is None]
        turned = self._send(messages, places, left, answers)
        if turned:  # somebody has declared it ordered, or deleted it and made it anew, since we knew it
            self._send(messages, places, turned, answers)
        return answers

    def _places(self, messages: Sequence[Outgoing], answers: Answers, dead: bool) -> list[Place]:
        """Where each goes, made if need be; a refusal is the answer for each message that is for it."""
        found: dict[int, tuple[Place, NarrowboatError | None]] = {}
        places: list[Place] = []
        for index, message in enumerate(messages):
            to = message.to
            if id(to) not in found:
                found[id(to)] = self._sources.place(to), self._ready(to, dead)
            spot, why = found[id(to)]
            places.append(spot)
            if why is not None:
                answers[index] = refusals.not_sent(message.id, to.path, why, cause=why) if why.retryable else why
        return places

    def _ready(self, address: Address, dead: bool) -> NarrowboatError | None:
        if address.kind is Kind.INBOX:
            return Unsupported("replies are not offered on RocketMQ", backend=SCHEME)
        try:
            self._sources.ensure(address, always=dead)
        except NarrowboatError as error:
            return error.with_traceback(None)  # its frames have what is sent
        return None

    def _send(
        self, messages: Sequence[Outgoing], places: Sequence[Place], indexes: Sequence[int], answers: Answers
    ) -> list[int]:
        """Send what `indexes` say; those that were refused because their topic is of another type now."""
        now = time.time()
        together: dict[str, list[int]] = {}
        alone: list[int] = []
        for index in indexes:
            topic = places[index].topic
            if messages[index].delay > 0 or self._sources.is_ordered(topic):
                alone.append(index)
            else:
                together.setdefault(topic, []).append(index)
        turned: list[int] = []
        for some in together.values():
            for part in _parts(messages, some):
                request = self._request(messages, places, part, now, grouped=False)
                try:
                    answer = self._link.call("send", request, f"publishing to {places[part[0]].path!r}")
                except NarrowboatError as error:
                    answer = error.with_traceback(None)
                self._answer(messages, places, part, answer, answers, turned, grouped=False)
        for batch in _rounds(messages, places, alone):
            requests = [self._request(messages, places, [index], now, grouped=True) for index in batch]
            for index, answer in zip(batch, self._link.together("send", requests, "publishing"), strict=True):
                self._answer(messages, places, [index], answer, answers, turned, grouped=True)
        return turned

    def _request(
        self, messages: Sequence[Outgoing], places: Sequence[Place], indexes: Sequence[int], now: float, *, grouped: bool
    ) -> Any:
        made = []
        for index in indexes:
            message, spot = messages[index], places[index]
            only = spot.group if message.to.kind is Kind.SUBSCRIPTION else ""
            topic = spot.later if message.delay > 0 else spot.topic
            made.append(outgoing(message, topic, self._link.namespace, now=now, grouped=grouped, only=only))
        return service.SendMessageRequest(messages=made)

    def _answer(
        self,
        messages: Sequence[Outgoing],
        places: Sequence[Place],
        indexes: Sequence[int],
        answer: Any,
        answers: Answers,
        turned: list[int],
        *,
        grouped: bool,
    ) -> None:
        status = None if isinstance(answer, NarrowboatError) else answer.status
        if status is not None and status.code == said.OK:
            for index in indexes:
                answers[index] = Receipt(messages[index].id)
            return
        first = indexes[0]
        if status is not None and other_type(status) and messages[first].delay <= 0 and answers[first] is None:
            self._sources.turn(places[first].topic, was=grouped)
            for index in indexes:
                answers[index] = unpublished(status, self._link.endpoint, messages[index].id, places[index])
            turned += indexes
            return
        if status is not None:
            self._sources.forget(messages[first].to)
        for index in indexes:
            message, spot = messages[index], places[index]
            if status is not None:
                answers[index] = unpublished(status, self._link.endpoint, message.id, spot)
            elif isinstance(answer, Unavailable) and not answer.sent:
                answers[index] = refusals.not_sent(message.id, spot.path, answer, cause=answer)
            elif isinstance(answer, Unavailable):
                answers[index] = refusals.unknown(message.id, spot.path, answer, cause=answer)
            else:
                answers[index] = answer


def _parts(messages: Sequence[Outgoing], indexes: Sequence[int]) -> Iterator[list[int]]:
    """`indexes` in parts that fit into one call each."""
    part: list[int] = []
    size = 0
    for index in indexes:
        message = messages[index]
        weight = len(message.body) + _ADDED + 4 * sum(len(name) + len(value) for name, value in message.headers.items())
        if part and (len(part) >= _MOST or size + weight > _ROOM):
            yield part
            part, size = [], 0
        part.append(index)
        size += weight
    if part:
        yield part


def _rounds(messages: Sequence[Outgoing], places: Sequence[Place], indexes: Sequence[int]) -> Iterator[list[int]]:
    """`indexes` in rounds of which none has two messages of one key: the second waits until the first is stored."""
    rounds: list[list[int]] = []
    after: dict[tuple[str, str], int] = {}
    for index in indexes:
        message = messages[index]
        at = 0
        if message.delay <= 0 and message.key is not None:
            at = after.get((places[index].topic, group_of(message.key)), 0)
            after[places[index].topic, group_of(message.key)] = at + 1
        while len(rounds) <= at:
            rounds.append([])
        rounds[at].append(index)
    for each in rounds:
        for begin in range(0, len(each), _SIDE_BY_SIDE):
            yield each[begin : begin + _SIDE_BY_SIDE]
