"""One request as the server has it, and how several become one call of a driver."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from narrowboat.errors import InvalidArgument, NarrowboatError
from narrowboat_zeromq.protocol.faults import to_wire
from narrowboat_zeromq.protocol.frames import Bodies, Malformed, pack
from narrowboat_zeromq.server.session import Session

logger = logging.getLogger("narrowboat.zeromq")

#: Items of one call of a driver: what a broker is given at once.
TOGETHER = 1000


class Ask:
    """A request: who asks what, and the frames of its answer once it is known."""

    __slots__ = ("answer", "args", "bodies", "id", "items", "op", "session")

    def __init__(self, session: Session[Any], id: int, op: str, args: Sequence[Any], bodies: Bodies) -> None:
        self.session = session
        self.id = id
        self.op = op
        self.args = args
        self.bodies = bodies
        self.items: Sequence[Any] = ()
        self.answer: list[bytes] = []

    def give(self, value: Any, bodies: Sequence[bytes] = ()) -> None:
        """What it asked for."""
        self.answer = pack((self.id, "ok", value), bodies)

    def fail(self, error: Exception) -> None:
        """Why it has no answer."""
        if isinstance(error, Malformed):
            error = InvalidArgument(f"the request {self.op[:40]!r} was refused: {error}; nothing of it was done")
        self.answer = pack((self.id, *to_wire(error)))

    def forgotten(self) -> None:
        """It speaks of a feed that is not there."""
        self.answer = pack((self.id, "forgotten"))


def read(asks: Sequence[Ask], decode: Callable[[Ask], Sequence[Any]]) -> list[Ask]:
    """Those whose items could be taken apart; the others are answered."""
    good = []
    for ask in asks:
        try:
            ask.items = decode(ask)
            ask.bodies.end()
        except (Malformed, ValueError, TypeError) as error:
            ask.fail(error if isinstance(error, Malformed) else Malformed(f"fields are missing, or too many ({error})"))
        else:
            good.append(ask)
    return good


def together(
    asks: Sequence[Ask],
    act: Callable[[list[Any]], Sequence[Any]],
    encode: Callable[[Any], Any],
    key: Callable[[Any], object] | None = None,
) -> None:
    """Answer all of `asks` with as few calls of `act` as may be: no call holds two items for which `key` is equal.

    A call that fails is each request's failure. Where it raised what is no error of ours, one request may be to blame: they are
    tried one by one then, because nothing was committed.
    """
    for group in _groups(asks, key):
        try:
            answers = act([item for ask in group for item in ask.items])
        except NarrowboatError as error:
            for ask in group:
                ask.fail(error)
        except Exception as error:
            if len(group) == 1:
                group[0].fail(error)
            else:
                logger.warning("a call for %d requests failed (%s); they are tried one by one", len(group), error)
                for ask in group:
                    together([ask], act, encode, key)
        else:
            at = 0
            for ask in group:
                end = at + len(ask.items)
                ask.give([encode(answer) for answer in answers[at:end]])
                at = end


def _groups(asks: Sequence[Ask], key: Callable[[Any], object] | None) -> Iterator[list[Ask]]:
    group: list[Ask] = []
    size = 0
    seen: set[object] = set()
    for ask in asks:
        keys = {key(item) for item in ask.items} if key is not None else set()
        if group and (size + len(ask.items) > TOGETHER or not seen.isdisjoint(keys)):
            yield group
            group, size, seen = [], 0, set()
        group.append(ask)
        size += len(ask.items)
        seen |= keys
    if group:
        yield group
