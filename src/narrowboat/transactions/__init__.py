"""Connections of others: a transaction of the caller's own, over whichever client it has.

The outbox, the inbox and fences write into a table of the program's own database, in the transaction in which the program does
its work. They know clients by this package alone, which tells by the type's name what a connection is and imports no client:
sqlite3, psycopg 3, SQLAlchemy 2 and Django, on SQLite and PostgreSQL.

    transaction = await joined(connection, ddl)     # refused: no transaction, an aborted one, another database
    answer = await transaction.execute("UPDATE t SET n = ? WHERE id = ?", (1, "a"))
    answer.changed, answer.rows

All of it is `async def` and suspends only where the connection is asynchronous, so the sync face runs it with `straight`.
"""

from narrowboat.transactions.clients import blocking, joined, opened
from narrowboat.transactions.transaction import DIALECTS, Answer, Transaction, check_dialect, check_table, table_missing

__all__ = [
    "DIALECTS",
    "Answer",
    "Transaction",
    "blocking",
    "check_dialect",
    "check_table",
    "joined",
    "opened",
    "table_missing",
]
