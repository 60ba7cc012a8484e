"""What was registered with `worker.relay`: it publishes what waits in an outbox, as a source of the worker's supervisor.

It takes the rows that are committed, in the order in which they were stored, publishes them under their own ids, and deletes
those that the broker has confirmed. What it does not know to be published it publishes again, under the same id. A row that the
broker would never take is put aside in the table, with the reason. One relay of many works at a time, so that the messages of a
key keep their order; it takes its turn by a lock that ends with it (`narrowboat.transactions.turn`).

Written once for both faces: what differs is in `posting.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from narrowboat import events
from narrowboat._messages.handling import describe
from narrowboat._messages.source import SourceCore, make_queue, make_topic
from narrowboat.clock import Clock
from narrowboat.contract.messages import Kind, Outgoing, Receipt
from narrowboat.errors import InvalidArgument, NarrowboatError, NotFound, PublishFailed, Unsupported
from narrowboat.outbox.base import KNOWN, OutboxBase
from narrowboat.outbox.table import TOGETHER, Row, Table, read
from narrowboat.transactions import Transaction, opened
from narrowboat.transactions.transaction import done
from narrowboat.transactions.turn import Turn, listen
from narrowboat.working.failure import say
from narrowboat.working.health import SourceHealth
from narrowboat.working.publisher import Publisher

#: Seconds from one count of what waits to the next: it reads the whole table.
MEASURE = 10.0
#: What is not tried again. AccessDenied is not among them: it is the relay's and not the message's.
POISON = (InvalidArgument, Unsupported, NotFound, PublishFailed)


@dataclass(frozen=True, slots=True)
class Relay:
    """An outbox, and how to reach its database."""

    outbox: OutboxBase[Any]
    connect: Callable[[], Any]
    batch: int
    poll: float

    name: ClassVar[str] = "relay"
    queues: ClassVar[tuple[str, ...]] = ()  #: that are its own

    @property
    def source(self) -> str:
        """What it reads."""
        return self.outbox.table

    @property
    def names(self) -> tuple[str, ...]:
        """By which `only` finds it."""
        return self.name, self.source


class Relaying(Publisher):
    """One relay at work: see `narrowboat.working.supervisor.Source`. It owns its connection, and what it says of itself."""

    _BEGINS = "starting"

    def __init__(
        self,
        relay: Relay,
        broker: Any,
        posting: Any,
        seat: Any,
        clock: Clock,
        random: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        super().__init__(f"narrowboat-relay-{relay.outbox._table.name}", seat, clock, random)
        self._relay = relay
        self._table: Table = relay.outbox._table
        self._turn = Turn(self._table.name)
        self._broker = broker
        self._core = broker._core
        self._posting = posting
        self._now = now
        self._sources: dict[tuple[Kind, str], SourceCore[Any]] = {}
        self._transaction: Transaction | None = None
        self._file: int | None = None
        self._aside = 0
        self._measured = -MEASURE

    def health(self) -> SourceHealth:
        """How it fares; `handled` are the messages that it published, `failed` those that it put aside."""
        return SourceHealth(
            self._relay.source, self._relay.name, self._shown(), self._published, self._aside, self._absences, error=self._error
        )

    async def _work(self) -> None:
        try:
            while not self._draining:
                pause = 0.0
                try:
                    if self._transaction is None:
                        self._transaction = await self._connected()
                    if not await self._step(self._transaction):
                        pause = self._relay.poll
                    self._is_there()
                except Exception as error:
                    await self._let_go()
                    if isinstance(error, NarrowboatError) and not error.retryable and not self._draining:
                        raise
                    pause = self._went_away(error)
                if pause and not self._draining:
                    await self._posting.told(self._seat, self._file, self._clock() + pause, self._clock)
        finally:
            await self._let_go()
            self._turn.give()

    async def _connected(self) -> Transaction:
        connection = await done(self._relay.connect())
        try:
            transaction = await opened(connection, self._table.ddl)
        except NarrowboatError:
            with contextlib.suppress(Exception):  # what it is, only its maker knows
                await done(connection.close())
            raise
        self._transaction = transaction  # so that it is closed
        self._file = await listen(transaction, self._table.channel, self._seat.wake)
        return transaction

    async def _let_go(self) -> None:
        """Of the connection, with whatever is open in it."""
        transaction, self._transaction, self._file = self._transaction, None, None
        if transaction is not None:
            with contextlib.suppress(Exception):
                await transaction.rollback()
            with contextlib.suppress(Exception):
                await transaction.close()

    async def _step(self, transaction: Transaction) -> bool:
        """Publish one batch; whether there may be more at once."""
        await transaction.begin()
        transaction.check()
        await self._measure(transaction)
        if not await self._turn.take(transaction):
            await transaction.commit()
            self._state = "standby"
            return False
        rows = (await transaction.execute(self._table.take, (self._relay.batch, TOGETHER))).rows
        if self._turn.kept:
            await transaction.commit()  # others may write while we publish
        self._state = "running"
        sealed, poison = self._sealed(rows)
        answers = await self._posting.send(self._broker, [message for _, message in sealed]) if sealed else ()
        confirmed, refused, met = sort(sealed, answers)
        poison += refused
        if confirmed or poison:
            await transaction.begin()
            if confirmed:
                await transaction.execute(self._table.delete(confirmed))
            for seq, _, problem in poison:
                await transaction.execute(self._table.put_aside, (problem, seq))
        await transaction.commit()
        self._published += len(confirmed)
        self._aside += len(poison)
        for _, id, problem in poison:
            say("error", "relay of %r: message %r cannot be published, and is put aside: %s", self._table.name, id, problem)
        if met is not None:
            raise met
        size = sum(len(message.body) for _, message in sealed)
        return len(rows) == self._relay.batch or bool(poison) or size >= TOGETHER

    def _sealed(self, rows: Sequence[Sequence[Any]]) -> tuple[list[tuple[int, Outgoing]], list[tuple[int, str, str]]]:
        """The messages of rows, each checked as a publish is; and those that are none, with the reason."""
        sealed: list[tuple[int, Outgoing]] = []
        poison: list[tuple[int, str, str]] = []
        now = self._now()
        for values in rows:
            try:
                row = read(values, now)
                message = self._source(row).envelope.seal(row.item)
            except (InvalidArgument, Unsupported) as error:
                poison.append((values[0], str(values[1]), describe(error)))
            else:
                sealed.append((row.seq, message._replace(published_at=row.created or message.published_at)))
        return sealed, poison

    def _source(self, row: Row) -> SourceCore[Any]:
        found = self._sources.get((row.kind, row.name))
        if found is None:
            if len(self._sources) >= KNOWN:
                self._sources.clear()
            if row.kind is Kind.TOPIC:
                found = make_topic(self._core, row.name, None)
            else:
                found = make_queue(self._core, row.name, None, None, None, False, 0)
            self._sources[row.kind, row.name] = found
        return found

    async def _measure(self, transaction: Transaction) -> None:
        """Tell listeners what waits, once in a while."""
        if not self._core.listeners or self._clock() - self._measured < MEASURE:
            return
        self._measured = self._clock()
        ((waiting, aside, oldest),) = (await transaction.execute(self._table.measure)).rows
        age = max(0.0, self._now() - oldest) if isinstance(oldest, int | float) else 0.0  # what is none is put aside
        table = self._table.name
        events.emit(self._core.listeners, events.OutboxMeasured(self._core.backend, table, int(waiting), int(aside), age))

    def _tell_away(self, error: Exception) -> None:
        say("warning", "relay of %r: nothing is published, and it is tried again: %s", self._table.name, describe(error))

    def _tell_back(self) -> None:
        say("info", "relay of %r: it publishes again", self._table.name)


def sort(
    sealed: Sequence[tuple[int, Outgoing]], answers: Sequence[Receipt | NarrowboatError]
) -> tuple[list[int], list[tuple[int, str, str]], NarrowboatError | None]:
    """What becomes of each: confirmed, put aside, or left for the next try; and the first error of the latter."""
    confirmed: list[int] = []
    poison: list[tuple[int, str, str]] = []
    met: NarrowboatError | None = None
    for (seq, message), answer in zip(sealed, answers, strict=True):
        if isinstance(answer, Receipt):
            confirmed.append(seq)
        elif isinstance(answer, POISON) and not answer.retryable:
            poison.append((seq, message.id, describe(answer)))
        else:
            met = met or answer
    return confirmed, poison, met
