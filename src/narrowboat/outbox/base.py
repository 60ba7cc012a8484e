"""What both faces of an outbox do alike: check a message as a publish does, and store it in the caller's transaction."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

from narrowboat._engine.checks import flag, text
from narrowboat._messages.checks import check_count, check_source_name
from narrowboat._messages.envelope import Envelope, Outbound
from narrowboat.capabilities import Scope, Support, Survives
from narrowboat.codecs import Codec
from narrowboat.codecs import check as check_codec
from narrowboat.contract.messages import Address, Kind, Outgoing
from narrowboat.driver.claims import keeper
from narrowboat.outbox.table import Table, written
from narrowboat.transactions import joined

T = TypeVar("T")

#: What an outbox takes. The broker that a relay publishes to may take less; see the relay on what becomes of the rest.
_CLAIMS = keeper(Scope.NETWORK, Survives.POWER, work=Support.NATIVE, dedup=0.0)
#: How many names have their checks kept.
KNOWN = 1000


class OutboxBase(Generic[T]):
    """The table of an outbox, and what may be written into it. It holds no connection.

    Args:
        table: its name, perhaps with a schema.
        codec: as for `broker.queue`.
        body_max: bytes of the largest body. Take what the relay's broker takes, or less.
        notify: where the database can, tell relays of each commit, so that they need not poll. It makes commits wait for one
            another for a moment; without it a message waits for the relay's `poll`.
        now: for tests; seconds since the epoch.
    """

    def __init__(
        self,
        table: str = "outbox",
        *,
        codec: Codec[T] | None = None,
        body_max: int = 1_000_000,
        notify: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._table = Table(table)
        self._codec = codec if codec is None else check_codec(codec)
        self._claims = replace(_CLAIMS, body_max=check_count("body_max", body_max, 1, 2**30))
        self._notify = flag("notify", notify)
        self._now = now
        self._envelopes: dict[tuple[str, bool], Envelope[T]] = {}

    @property
    def table(self) -> str:
        """Its name."""
        return self._table.name

    def ddl(self, dialect: str) -> str:
        """The statement that makes the table on "sqlite" or "postgresql", for a migration."""
        return self._table.ddl(dialect)

    def _sealed(self, name: str, topic: bool, item: Outbound[T]) -> Outgoing:
        """The message, checked before any I/O."""
        try:
            envelope = self._envelopes.get((name, topic))
        except TypeError:  # a list, or another thing that is no name
            envelope = None
        if envelope is None:
            kind = Kind.TOPIC if flag("topic", topic) else Kind.QUEUE
            address = Address(kind, check_source_name(kind.value, name))
            envelope = Envelope(address, self._codec, self._claims, "the outbox", 0, self._now)
            if len(self._envelopes) < KNOWN:
                self._envelopes[name, topic] = envelope
        return envelope.seal(item)

    async def _store(self, connection: Any, message: Outgoing, type: str | None) -> str:
        """Write it; its id."""
        kind = "" if type is None else text("type", type)
        transaction = await joined(connection, self._table.ddl)
        transaction.check_key("an id", message.id)
        await transaction.execute(self._table.writing(transaction.dialect, self._notify), written(message, kind))
        return message.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.table}>"
