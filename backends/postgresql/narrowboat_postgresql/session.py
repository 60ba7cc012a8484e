"""One connection of one lane: made at its first use, and again after a failure. Each call is one statement, within its time.

What breaks in the middle of a call may still be going on at the server. The process that does it there is remembered, so that
`end` can make sure that it is over before somebody undoes what it may have done.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from narrowboat.driver.turn import behind, turn
from narrowboat.errors import NarrowboatError, Unavailable
from narrowboat_postgresql.errors import GONE, Broken, Refused, translate
from narrowboat_postgresql.place import Place

if TYPE_CHECKING:
    from narrowboat_postgresql.library import Link, Parameter, Rows

_END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1::integer AND backend_start = $2::timestamptz"
#: Seconds between two looks whether a process of the server has ended.
_LOOK = 0.005


class Session:
    """See the module's text. From any thread, one call at a time."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._mutex = threading.Lock()
        self._link: Link | None = None
        self._space = "0"
        self._left: list[tuple[str, str]] = []  #: processes of the server that may still be at a call of ours

    def ask(self, statement: str, *parameters: Parameter, doing: str) -> Rows:
        """The rows of a statement of ours, in which "nb" stands for the schema and $1 for the namespace."""
        return self._ask(statement.replace("nb.", f"{self._place.options.schema}."), parameters, doing, binary=False)

    def call(self, function: str, *parameters: Parameter, doing: str, binary: bool = False) -> Rows:
        """The rows of a function of ours, whose first argument is the namespace."""
        names = ", ".join(f"${number}" for number in range(1, len(parameters) + 2))
        statement = f"SELECT * FROM {self._place.options.schema}.{function}({names})"  # noqa: S608  # our own words
        return self._ask(statement, parameters, doing, binary=binary)

    def _ask(self, statement: str, parameters: Sequence[Parameter], doing: str, *, binary: bool) -> Rows:
        ends = time.monotonic() + self._place.timeout
        with self._alone(ends, doing):
            link = self._ready(ends, doing)  # first: it finds out the number of our namespace
            return self._run(link, statement, [self._space, *parameters], ends, doing, binary=binary)

    def _alone(self, ends: float, doing: str) -> AbstractContextManager[object]:
        endpoint = self._place.endpoint
        return turn(self._mutex, ends - time.monotonic(), lambda: behind(endpoint, doing, backend=endpoint.scheme))

    def end(self, left: Sequence[tuple[str, str]]) -> None:
        """Make sure that those processes of the server, which were left in the middle of a call, do nothing any more."""
        doing = "ending a call that was left"
        ends = time.monotonic() + self._place.timeout
        with self._alone(ends, doing):
            for identity in left:
                while self._run(self._ready(ends, doing), _END, identity, ends, doing):
                    if time.monotonic() >= ends:
                        raise translate(Broken("its process did not end", late=True), self._place.endpoint, doing=doing)
                    time.sleep(_LOOK)

    def _run(
        self, link: Link, statement: str, parameters: Sequence[Parameter], ends: float, doing: str, *, binary: bool = False
    ) -> Rows:
        try:
            return link.run(statement, parameters, ends, binary=binary)
        except (Refused, Broken) as error:
            if isinstance(error, Broken) or error.state in GONE:
                self._drop()
            found = error
        except BaseException:  # an interrupt: the answer may still come, and would be taken for another one's
            self._drop()
            raise
        raise translate(found, self._place.endpoint, doing=doing)

    def take_left(self) -> list[tuple[str, str]]:
        """The processes that were left since the last time."""
        left, self._left = self._left, []
        return left

    def give_left(self, left: Sequence[tuple[str, str]]) -> None:
        """They have not ended yet."""
        self._left = [*left, *self._left]

    def close(self) -> None:
        """Close the connection."""
        with self._mutex:
            self._drop()

    def _ready(self, ends: float, doing: str) -> Link:
        link = self._link
        if link is not None:
            if link.usable():
                return link
            self._drop()
        try:
            link, space = self._place.connect(ends)
        except NarrowboatError as error:
            if isinstance(error, Unavailable):
                error.sent = False
            raise
        except (Refused, Broken) as error:
            found = error
        else:
            self._link, self._space = link, str(space)
            return link
        raise translate(found, self._place.endpoint, doing=doing)

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            if link.busy:
                self._left.append(link.identity)
            link.close()
