"""One client's session: who it is, by which connection it speaks, and what the server keeps for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from narrowboat.contract.locks import Request
from narrowboat.contract.messages import Feed, Source

D = TypeVar("D")

#: Feeds that one session may have open, and owners that it may have waiting.
FEEDS_MAX, WAITING_MAX = 4096, 65536


class Session(Generic[D]):
    """See the module's text. `rang`: told with the session when it has somebody to wake, from any thread."""

    def __init__(self, token: str, desk: D, rang: Callable[[Session[D]], None]) -> None:
        self.token = token
        self.desk = desk
        self.peer = b""  #: the connection by which it speaks
        self.connection = 0  #: the how-manieth of this session it is
        self.heard = 0.0
        self.feeds: dict[int, tuple[Feed, Source]] = {}
        self.waiting: dict[str, Request] = {}  #: owners whose last answer was that they wait
        self._rang = rang
        self._wakes: dict[str | int, None] = {}  # in their order

    def wake(self, whom: str | int) -> Callable[[], None]:
        """What wakes an owner or a feed of this session."""

        def ring() -> None:
            self._wakes[whom] = None
            self._rang(self)

        return ring

    def take_wakes(self) -> list[str | int]:
        """Whom to wake."""
        wakes, self._wakes = self._wakes, {}
        return list(wakes)
