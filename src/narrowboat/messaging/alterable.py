"""What is stored with a queue or subscription, and altering it while it is in use."""

from __future__ import annotations

from typing import Generic, TypeVar

from narrowboat._engine.runtime import run
from narrowboat._messages.source import SourceCore
from narrowboat.contract.messages import Properties
from narrowboat.messaging.message import Seconds

T = TypeVar("T")


class Alterable(Generic[T]):
    """A source with properties. Dead letters have none that anybody could alter."""

    _core: SourceCore[T]

    def properties(self) -> Properties | None:
        """What is stored with it. None: it does not exist, or was never declared. `Unsupported` without the claim `alter`."""
        return run(self._core.stored())

    def alter(
        self,
        *,
        max_deliveries: int | None = None,
        lease: Seconds | None = None,
        ordered: bool | None = None,
        priorities: int | None = None,
    ) -> Properties:
        """Store another limit or lease, for consumers that ask for none of their own. Messages stay as they are.

        Consumers that come obey it, and those that run in what they fetch `alter_lag` seconds later. Returns what is
        stored then.

        Args:
            max_deliveries: as for a queue; None: as it is.
            lease: as for a queue; None: as it is.
            ordered: refused: it says how the messages lie.
            priorities: the same.

        Raises:
            NotFound: it does not exist, or was never declared.
            Unsupported: the backend does not claim `alter`, or this cannot be altered; nothing was sent.
            Unavailable: there was no answer; it may have been altered. It can be repeated.
        """
        return run(self._core.alter(max_deliveries, lease, ordered, priorities))
