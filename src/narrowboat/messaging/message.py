"""A message in a consumer's hands, and a batch of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from narrowboat._engine.holdable import Uncopied
from narrowboat._engine.runtime import run
from narrowboat._messages.checks import check_nack, check_reject
from narrowboat._messages.consumer import Consumer
from narrowboat._messages.delivery import TrackedDelivery
from narrowboat._messages.requests import make_reply
from narrowboat._messages.settle import ACK
from narrowboat.contract.messages import Outcome, Receipt
from narrowboat.errors import NarrowboatError

T = TypeVar("T")

Seconds = float | timedelta


class Message(TrackedDelivery[T]):
    """One message, ours for one lease. Settle it once: ack, nack or reject; what it tells is in `TrackedDelivery`.

    The first settlement wins: any later one, of any kind, raises `StaleDelivery` and changes nothing. One that raised
    `SettleUnknown` may be repeated.
    """

    __slots__ = ()

    _consumer: Consumer[Any]

    def ack(self, *, wait: bool = True) -> None:
        """Acknowledge the message: it is never redelivered.

        Args:
            wait: return when the backend has answered. False returns at once; only listeners then hear of a failure.

        Raises:
            StaleDelivery: the message is no longer ours; nothing was changed.
            SettleUnknown: there was no answer; the message may be redelivered.
        """
        if wait:
            self._settle(ACK)
            return
        consumer = self._consumer
        consumer.core.check_open()
        if not consumer.settlement.post((self,), ACK):
            raise consumer.settlement.refusal(self)

    def nack(self, delay: Seconds = 0) -> None:
        """Have the message redelivered, not before `delay` seconds. At its last delivery it becomes a dead letter.

        Raises as `ack`; `Unsupported` for a delay that the backend does not claim.
        """
        core = self._consumer.core
        self._settle(check_nack(core.capabilities, core.backend, delay))

    def reject(self, reason: str) -> None:
        """Move the message to the dead letters, with the reason. Raises as `ack`; `Unsupported` where there are none."""
        core = self._consumer.core
        self._settle(check_reject(core.capabilities, core.backend, reason))

    def extend(self, seconds: Seconds) -> None:
        """Let the lease end `seconds` from now.

        Raises:
            StaleDelivery: the message is no longer ours; it was not revived.
            Unsupported: the backend's deliveries have no lease of their own.
            Unavailable: there was no answer; the lease may have been extended.
        """
        (answer,) = run(self._consumer.settlement.extend((self,), seconds))
        if answer is not None:
            raise answer

    def reply(self, body: T) -> Receipt:
        """Answer a request; the queue's codec encodes it. It is dropped when the requester is gone."""
        consumer = self._consumer
        (answer,) = run(consumer.core.publish((make_reply(consumer.core, self, body),)))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _settle(self, outcome: Outcome) -> None:
        (answer,) = run(self._consumer.settlement.settle((self,), outcome))
        if answer is not None:
            raise answer


class Batch(Uncopied, Sequence[Message[T]], Generic[T]):
    """Several messages that are settled in one exchange. Settling raises nothing: it gives one outcome for each message,
    None or the error that it met, in order. One that was settled on its own before gives `StaleDelivery`.
    """

    __slots__ = ("_messages",)

    def __init__(self, messages: list[Message[T]]) -> None:
        self._messages = messages

    def ack(self) -> list[NarrowboatError | None]:
        """Acknowledge all of them."""
        return self._settle(ACK)

    def nack(self, delay: Seconds = 0) -> list[NarrowboatError | None]:
        """Have all of them redelivered, not before `delay` seconds."""
        core = self._messages[0]._consumer.core
        return self._settle(check_nack(core.capabilities, core.backend, delay))

    def reject(self, reason: str) -> list[NarrowboatError | None]:
        """Move all of them to the dead letters, for one reason."""
        core = self._messages[0]._consumer.core
        return self._settle(check_reject(core.capabilities, core.backend, reason))

    def extend(self, seconds: Seconds) -> list[NarrowboatError | None]:
        """Let each lease end `seconds` from now."""
        return run(self._messages[0]._consumer.settlement.extend(self._messages, seconds))

    def _settle(self, outcome: Outcome) -> list[NarrowboatError | None]:
        return run(self._messages[0]._consumer.settlement.settle(self._messages, outcome))

    @overload
    def __getitem__(self, index: int) -> Message[T]: ...

    @overload
    def __getitem__(self, index: slice) -> list[Message[T]]: ...

    def __getitem__(self, index: int | slice) -> Message[T] | list[Message[T]]:
        return self._messages[index]

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Message[T]]:
        return iter(self._messages)

    def __repr__(self) -> str:
        return f"<Batch of {len(self)}>"
