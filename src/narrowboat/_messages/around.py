"""What stands around each publish: context managers of the program's, entered before anything is checked or sent.

For what must know of each publish in the place where it is made: a trace whose context goes with the message. It is around
`publish` and `publish_many`; requests and replies go without. Loaded where a broker has been given some.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from narrowboat._engine.later import kind
from narrowboat._messages.envelope import Outbound
from narrowboat.dsn import Host
from narrowboat.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Publishing:
    """One call of `publish` or `publish_many`, as what is around it sees it."""

    to: str  #: the queue or topic
    messages: tuple[Outbound[Any], ...]
    headers: dict[str, str] = field(default_factory=dict)  #: to be added to each message that has no such header
    backend: str = ""  #: the scheme of the broker
    server: Host | None = None  #: where the URL names one server


#: It gives a plain context manager, on asyncio as well. The first of several is outermost.
AroundPublish = Callable[[Publishing], AbstractContextManager[Any]]


def check(around: object) -> tuple[Any, ...]:
    """`around` as an argument, a worker's as well; `InvalidArgument` says what is wrong with it."""
    if callable(around) or not isinstance(around, Iterable):
        raise InvalidArgument(f"around={around!r}: expected a list of functions that give a context manager")
    found = tuple(around)
    for each in found:
        if not callable(each):
            raise InvalidArgument(f"around: {each!r} cannot be called; expected a function that gives a context manager")
        if kind(each) != "plain":
            raise InvalidArgument(
                f"around: {getattr(each, '__qualname__', each)} gives a {kind(each)}, and no context manager; does it want "
                "@contextlib.contextmanager, or @contextlib.asynccontextmanager?"
            )
    return found


@contextlib.contextmanager
def publishing(
    around: Iterable[AroundPublish], to: str, items: Iterable[Any], backend: str, server: Host | None = None
) -> Iterator[list[Outbound[Any]]]:
    """Within all: the messages with the added headers. An error that one swallows is raised all the same."""
    messages = tuple(item if isinstance(item, Outbound) else Outbound(item) for item in items)
    call = Publishing(to, messages, backend=backend, server=server)
    met: BaseException | None = None
    with contextlib.ExitStack() as stack:
        try:
            for each in around:
                stack.enter_context(each(call))
            added = call.headers
            yield [replace(each, headers={**added, **(each.headers or {})}) if added else each for each in messages]
        except BaseException as error:
            met = error
            raise
    if met is not None:  # whoever publishes is owed a receipt or an error, and would publish again
        raise met
