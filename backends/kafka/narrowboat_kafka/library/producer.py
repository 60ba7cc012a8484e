"""The library's producer, with what it keeps to itself: which error is about which message, and what ever left this process.

Everything that is published without a receipt needs a true answer to one question: can it be on the server? The library
drops what it knows about that. Here each error says it. What to make of an error is decided elsewhere.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, cast

import kafka.errors as client
from kafka import KafkaProducer
from kafka.partitioner import DefaultPartitioner

from narrowboat_kafka.client import SOON, Failed
from narrowboat_kafka.format.records import Record
from narrowboat_kafka.library.met import met

#: How the library tells of an answer that ends a producer before it has stored anything.
_WRAPPED = re.compile(r"(?:KafkaError: )?Unexpected error in InitProducerIdResponse: \[Error (\d+)\]")
#: What the server says of all that a user sends; anything else it says of one message.
_OF_ALL = (client.ClusterAuthorizationFailedError, client.SaslAuthenticationFailedError)
_NUMBERLESS = "the server gave this producer no number, for which its user has to have the right to write to some topic"


class _Partitioner(DefaultPartitioner):  # type: ignore[misc]  # the base class has no annotations
    """The library's, by the key or at random, which does not pay for a choice where there is none."""

    def partition(self, topic: str, *about: Any) -> Any:
        partitions = about[-1].partitions_for_topic(topic)
        if partitions is not None and len(partitions) == 1:
            return next(iter(partitions))
        return super().partition(topic, *about)


class Producer(KafkaProducer):  # type: ignore[misc]  # the base class has no annotations
    """See the module's text. An error says whether what it is about ever left (`left`); it did where it says nothing."""

    #: It may store nothing any more, or met an error after which it refuses everything.
    is_spent = False
    _disowned = False

    def __init__(self, **config: Any) -> None:
        super().__init__(partitioner=_Partitioner(), **config)
        sender, accumulator = self._sender, self._accumulator
        complete, abort = sender._complete_batch_with_exception, accumulator.abort_batches

        def completed(batch: Any, error: Any) -> None:
            error.left = batch.drained is not None
            complete(batch, error)

        def aborted(error: Any) -> None:
            """That one ends the producer, and with it whatever is not stored yet. What has left may be stored all the same."""
            self.is_spent = True
            ended = error
            if not isinstance(error, client.IllegalStateError):  # which is what it says where we have ended it
                ended = client.KafkaError(f"the producer was ended by another message: {type(error).__name__}")
            of_one = hasattr(error, "left") or isinstance(error, client.BrokerResponseError)
            unsent = copy.copy(ended if of_one and not isinstance(error, _OF_ALL) else error)
            unsent.left = False
            accumulator.abort_undrained_batches(unsent)
            abort(ended)

        sender._complete_batch_with_exception = completed
        accumulator.abort_batches = aborted

    def publish(self, records: Sequence[Record], until: float) -> list[Failed | None]:
        """Store each; None for each that is stored."""
        # One alone has nothing to wait for. Many are gathered into few requests, and the last of those goes when all are there.
        with self._at_once() if len(records) == 1 else nullcontext():
            sent = self._hand_over(records)
            with self._at_once():
                return [self._answer(future, until) for future in sent]

    def _hand_over(self, records: Sequence[Record]) -> list[Any]:
        """Give them to the library: for each, its future or why it was not taken."""
        sent: list[Any] = []
        send = self.send
        for topic, partition, key, value, headers, timestamp in records:
            try:
                sent.append(send(topic, value, key, headers, partition, timestamp))
            except Exception as error:
                sent.append(Failed(_ours(error), left=False))
                if isinstance(error, client.KafkaTimeoutError):
                    # The server does not answer: each further one would wait as long.
                    sent += [Failed(_ours(error), left=False)] * (len(records) - len(sent))
                    break
        return sent

    def _answer(self, future: Any, until: float) -> Failed | None:
        """Wait for what became of one."""
        if isinstance(future, Failed):
            return future
        error = None
        if future.is_done:
            error = future.exception
        else:
            try:
                # The library ends every batch within its delivery timeout, where that is sooner: it is given a moment for it.
                future.get(max(0.0, until - time.monotonic()) + 1.0)
            except Exception as late:
                error = late if future.is_done else self._give_up(future, late)
        if error is None:
            return None
        why, left = _unwrapped(error), getattr(error, "left", True)
        # After some errors it stores nothing any more, or nothing in that partition: a topic that was deleted and made anew
        # under it, a server that forgot where it had been, a message that is too large. They are not told apart here.
        self.is_spent |= left
        return Failed(_ours(why), left)

    def _give_up(self, future: Any, late: Any) -> Exception | None:
        """Let the library abort all that it holds, on its own thread, where it is known what never left. That ends it."""
        self.is_spent = True
        self.end(0.0)
        try:
            future.get(SOON)
        except Exception as error:
            if future.is_done and not isinstance(error, client.IllegalStateError):
                return error  # it met something of its own meanwhile
            late.left = getattr(error, "left", True)
            return cast(Exception, late)
        return None

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """While this lasts, what the producer has or is given is sent without waiting for more."""
        accumulator = self._accumulator
        # The first caller wakes it for what is there. A batch that is begun later wakes it by itself.
        wake = not accumulator.flush_in_progress() and accumulator.has_undrained()
        accumulator.begin_flush()
        try:
            if wake:
                self._sender.wakeup()
            yield
        finally:
            with suppress(client.KafkaTimeoutError):  # what others send is not waited for
                accumulator.await_flush_completion(0)

    def end(self, seconds: float) -> None:
        """Close it. What it still tries to send is given up: its callers have been told already that the outcome is unknown."""
        self.close(timeout=seconds)

    def flush(self, timeout: float | None = None) -> None:
        """Nothing. Who closes it would wait for that, and not close it where something cannot be sent."""

    def close(self, *arguments: Any, **named: Any) -> None:
        """Close it, unless it is a parent's. The library does so when the process ends and when nobody has it any more."""
        if not self._disowned:
            super().close(*arguments, **named)

    def disown(self) -> None:
        """In a forked child: its thread and its connections are the parent's."""
        self._disowned = True


def _ours(error: Exception) -> Exception:
    return met(error) if isinstance(error, client.KafkaError) else error


def _unwrapped(error: Exception) -> Exception:
    """The server's answer to a producer's first question, of which the library keeps the number alone, in a text."""
    found = _WRAPPED.match(str(error)) if type(error) is client.KafkaError else None
    return client.for_code(int(found[1]))(_NUMBERLESS) if found else error
