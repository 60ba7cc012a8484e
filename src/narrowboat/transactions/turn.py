"""One of many processes at a time: a lock that ends with its holder, by the database itself or by the machine.

On PostgreSQL it is an advisory lock of the transaction, which ends with the connection. On SQLite, whose users share a machine,
it is a lock of a file beside the database, which ends with the process. Neither has a lease that could run out meanwhile, and
nothing is left to wait for when a holder is killed.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from narrowboat._engine.forks import watch_forks
from narrowboat.transactions.transaction import POSTGRESQL, Transaction

#: Ours among a database's advisory locks; beside it stands the table's own number.
_KEY = int.from_bytes(b"nbwb", "big")


class Turn:
    """The lock of a table, however it is called. `kept`: it outlives the transaction in which it was taken."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._schema, _, self._name = table.lower().rpartition(".")
        self._file: int | None = None
        self.kept = False
        watch_forks(self)

    async def take(self, transaction: Transaction) -> bool:
        """Whether it is ours now; it does not wait."""
        if transaction.dialect == POSTGRESQL:
            number = f"CAST(CAST('{self._table}' AS regclass) AS int)"
            answer = await transaction.execute(f"SELECT pg_try_advisory_xact_lock({_KEY}, {number})")
            return bool(answer.rows[0][0])
        self.kept = True
        if self._file is not None:
            return True
        rows = (await transaction.execute("PRAGMA database_list")).rows
        file = next((path for _, name, path in rows if name == (self._schema or "main")), "")
        if not file:
            return True  # a database in memory is this connection's alone
        return self._lock(f"{file}-{self._name}.lock")

    def _lock(self, path: str) -> bool:
        import fcntl  # only relays on such a database need it

        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except BaseException:  # an interrupt included: nobody else knows of it
            os.close(file)
            raise
        self._file = file
        return True

    def give(self) -> None:
        """Let go of what is kept."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def forked(self) -> None:
        """In a child, which may outlive the relay: close what it has of the lock. The parent's is not let go by that."""
        self.give()


async def listen(transaction: Transaction, channel: str, wake: Callable[[], None]) -> int | None:
    """Have `wake` called for what is told to `channel`; the file that is readable then. None where it has to be polled."""
    driver = transaction.driver
    if type(driver).__module__.partition(".")[0] != "psycopg":
        return None
    driver.add_notify_handler(lambda notification: wake())
    await transaction.execute(f"LISTEN {channel}")
    await transaction.commit()
    return int(driver.fileno())
