"""What is written: through one idempotent producer, with an outcome for each message."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import kafka.errors as client

from narrowboat_kafka.client import Clients, at_once
from narrowboat_kafka.records import Record

#: Errors after which a producer stores nothing any more, or nothing in that partition: a topic that was deleted and made
#: anew under it, a server that forgot where it had been.
_STUCK = (
    client.KafkaTimeoutError,
    client.ProducerFencedError,
    client.InvalidProducerEpochError,
    client.OutOfOrderSequenceNumberError,
    client.UnknownProducerIdError,
    client.IllegalStateError,
)
#: How the library tells of an answer that ends a producer before it has stored anything.
_WRAPPED = re.compile(r"(?:KafkaError: )?Unexpected error in InitProducerIdResponse: \[Error (\d+)\]")
_NUMBERLESS = "the server gave this producer no number, for which its user has to have the right to write to some topic"


class Failed(Exception):
    """A record that was not stored, or maybe was. `left`: it may have reached the server."""

    def __init__(self, error: Exception, *, left: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.left = left


def publish(clients: Clients, records: Sequence[Record]) -> list[Failed | None]:
    """Store each record; None for each that all replicas in step have. Blocks for one operation timeout at most."""
    try:
        producer = clients.producer
    except client.KafkaError as error:  # the server cannot be reached
        return [Failed(error, left=False)] * len(records)
    until = time.monotonic() + clients.timeout
    # One alone has nothing to wait for. Many are gathered into few requests, and the last of those goes when all are there.
    with at_once(producer) if len(records) == 1 else nullcontext():
        sent = _hand_over(producer, records)
        with at_once(producer):
            answers = [_answer(future, until) for future in sent]
    if any(answer is not None and isinstance(answer.error, _STUCK) and answer.left for answer in answers) or _ended(producer):
        clients.retire_producer(producer)
    return answers


def _hand_over(producer: Any, records: Sequence[Record]) -> list[Any]:
    """Give them to the producer: for each, its future or why it was not taken."""
    sent: list[Any] = []
    send = producer.send
    for topic, partition, key, value, headers, timestamp in records:
        try:
            sent.append(send(topic, value, key, headers, partition, timestamp))
        except Exception as error:
            sent.append(Failed(error, left=False))
            if isinstance(error, client.KafkaTimeoutError):
                # The server does not answer: each further one would wait as long.
                sent += [Failed(error, left=False)] * (len(records) - len(sent))
                break
    return sent


def _answer(future: Any, until: float) -> Failed | None:
    """Wait for what became of one."""
    if isinstance(future, Failed):
        return future
    if not future.is_done:
        try:
            # The library ends every batch within its delivery timeout, which is ours; this is a net under it.
            future.get(max(0.0, until - time.monotonic()) + 1.0)
        except Exception as error:
            return _failed(error, future)
    met = future.exception
    return None if met is None else _failed(met, future)


def _failed(error: Any, future: Any) -> Failed:
    about, unsent = getattr(error, "future", None), future._produce_future in getattr(error, "unsent", ())
    if about is None or about is future._produce_future:
        return Failed(_unwrapped(error), left=not unsent and getattr(error, "left", True))
    # It is about another batch, and has ended the producer; this one may have been stored before.
    return Failed(client.KafkaError(f"the producer was ended by another message: {type(error).__name__}"), left=not unsent)


def _unwrapped(error: Exception) -> Exception:
    """The server's answer to a producer's first question, of which the library keeps the number alone, in a text."""
    found = _WRAPPED.match(str(error)) if type(error) is client.KafkaError else None
    return client.for_code(int(found[1]))(_NUMBERLESS) if found else error


def _ended(producer: Any) -> bool:
    """Whether it met an error after which it refuses everything."""
    manager = producer._transaction_manager
    return bool(manager is not None and manager.has_fatal_error())
