"""Servers that stay up when a test is done with them, for the next test of this process that asks for such a one.

    with kept.lent(KafkaServer) as server: ...

The start of some takes ten seconds and as many of a processor; `Server.dear` says which. What is lent has served others: their
queues are still there, under names of their own. So it is for tests that leave the server as it was, and look at their own
queues only. Who kills it, or changes what holds for all, makes one. `close` ends what is left; `conftest.py` calls it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from integration.fixtures import obtain
from integration.servers.server import Controls, Server

#: A server that nobody uses takes memory and a hundredth of a processor: so many are kept, a plain one and a secured.
MOST = 2

_idle: list[tuple[str, Controls]] = []


@contextlib.contextmanager
def lent(kind: type[Server], make: Callable[..., Controls] | None = None, **options: Any) -> Iterator[Any]:
    """One that runs: of those that are kept, or a new one. It is kept afterwards unless the test fails in the block."""
    name = f"{(make or kind).__qualname__} {sorted(options.items())}"
    server = _taken(name) or obtain(kind, make, **options)
    with contextlib.ExitStack() as undo:
        undo.callback(server.close)
        server.start()
        yield server
        if kind.dear and server.faults:  # a given one is nobody's to keep
            undo.pop_all()
            _idle.append((name, server))
            close(MOST)


def close(most: int = 0) -> None:
    """End those that are kept, the oldest first, but `most`."""
    while len(_idle) > most:
        _idle.pop(0)[1].close()


def _taken(name: str) -> Controls | None:
    for number, (known, server) in enumerate(_idle):
        if known == name:
            del _idle[number]
            return server
    return None
