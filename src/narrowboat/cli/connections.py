"""The connections of `narrowboat web`, bounded: the oldest makes room for the next one. A protocol for uvicorn.

Uvicorn bounds requests alone, and a connection that sends none has no end. A client that opens many would take all files of the
process, and asyncio logs a traceback for each that it cannot accept. What requests may do is in `access.py` and `site.py`.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


def bounded(most: int) -> type[H11Protocol]:
    """A protocol of which one server has at most that many connections, and those that asyncio accepts at once."""
    there: dict[H11Protocol, asyncio.Transport] = {}

    class Bounded(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
            super().connection_made(transport)
            there[self] = transport
            if len(there) > most:
                there.pop(next(iter(there))).abort()

        def connection_lost(self, exc: Exception | None) -> None:
            there.pop(self, None)
            super().connection_lost(exc)

    return Bounded
