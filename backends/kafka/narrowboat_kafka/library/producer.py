"""The library's producer, with what it keeps to itself: which error is about which message, and what ever left this process.

Everything that is published without a receipt needs a true answer to one question: can it be on the server? The library
drops what it knows about that. Here each error says it. When to send, and what to make of an error, is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kafka.errors as client
from kafka import KafkaProducer
from kafka.partitioner import DefaultPartitioner

#: How the library tells of an answer that ends a producer before it has stored anything.
_WRAPPED = re.compile(r"(?:KafkaError: )?Unexpected error in InitProducerIdResponse: \[Error (\d+)\]")
_NUMBERLESS = "the server gave this producer no number, for which its user has to have the right to write to some topic"


class _Partitioner(DefaultPartitioner):  # type: ignore[misc]  # the base class has no annotations
    """The library's, by the key or at random, which does not pay for a choice where there is none."""

    def partition(self, topic: str, *about: Any) -> Any:
        partitions = about[-1].partitions_for_topic(topic)
        if partitions is not None and len(partitions) == 1:
            return next(iter(partitions))
        return super().partition(topic, *about)


class Producer(KafkaProducer):  # type: ignore[misc]  # the base class has no annotations
    """See the module's text.

    An error of one batch says which that is (`batch_future`) and whether it ever left (`left`). An error that ends the
    producer is given to other batches as well: which of those never left it says in `unsent`.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__(partitioner=_Partitioner(), **config)
        sender, accumulator = self._sender, self._accumulator
        complete, abort = sender._complete_batch_with_exception, accumulator.abort_batches

        def completed(batch: Any, error: Any, *arguments: Any, **named: Any) -> Any:
            error.left = batch.drained is not None
            error.batch_future = batch.produce_future
            return complete(batch, error, *arguments, **named)

        def aborted(error: Any) -> None:
            unsent = {batch.produce_future for batch in accumulator._incomplete.all() if batch.drained is None}
            error.unsent = unsent | getattr(error, "unsent", set())
            abort(error)

        sender._complete_batch_with_exception = completed
        accumulator.abort_batches = aborted

    @contextmanager
    def at_once(self) -> Iterator[None]:
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
            accumulator._flushes_in_progress.decrement()

    @property
    def has_ended(self) -> bool:
        """Whether it met an error after which it refuses everything."""
        manager = self._transaction_manager
        return bool(manager is not None and manager.has_fatal_error())

    def end(self, seconds: float) -> None:
        """Close it. What it still tries to send is given up: its callers have been told already that the outcome is unknown."""
        try:
            self.close(timeout=seconds)
        except client.KafkaError:
            self._sender.force_close()
            self._closed = True

    def disown(self) -> None:
        """In a forked child: its thread and its connections are the parent's."""
        self._closed = True


def verdict(error: Any, future: Any) -> tuple[Exception, bool]:
    """Why the message of `future` was not stored, and whether it may have reached the server all the same."""
    about, unsent = getattr(error, "batch_future", None), future._produce_future in getattr(error, "unsent", ())
    if about is None or about is future._produce_future:
        return _unwrapped(error), not unsent and getattr(error, "left", True)
    # It is about another batch, and has ended the producer; this one may have been stored before.
    return client.KafkaError(f"the producer was ended by another message: {type(error).__name__}"), not unsent


def _unwrapped(error: Exception) -> Exception:
    """The server's answer to a producer's first question, of which the library keeps the number alone, in a text."""
    found = _WRAPPED.match(str(error)) if type(error) is client.KafkaError else None
    return client.for_code(int(found[1]))(_NUMBERLESS) if found else error
