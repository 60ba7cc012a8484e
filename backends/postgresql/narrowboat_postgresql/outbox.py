"""A publish in a transaction of the caller's own, over a connection of the caller's own client: psycopg's, or SQLAlchemy's.

The message is stored as due now, and the next call for its source lets it arrive, as it does with any delayed message: so the
transaction may last and holds nothing that others wait for.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from narrowboat.contract import Outgoing
from narrowboat.driver.sources import Declare, first_properties
from narrowboat.errors import InvalidArgument
from narrowboat_postgresql.contents import part_of
from narrowboat_postgresql.options import SCHEME, MessageOptions, fit


def enlist(connection: Any, message: Outgoing, options: MessageOptions) -> Awaitable[object] | None:
    """Have `connection` store `message`; see the contract."""
    execute = getattr(connection, "exec_driver_sql", None) or getattr(connection, "execute", None)
    if execute is None:
        raise InvalidArgument(
            f"send_in takes a connection of psycopg 3 or of SQLAlchemy 2, got {type(connection).__name__}; nothing was sent",
            backend=SCHEME,
        )
    found = execute(*_statement(message, options))
    return found if isinstance(found, Awaitable) else None


def _statement(message: Outgoing, options: MessageOptions) -> tuple[str, tuple[object, ...]]:
    path, kind = message.to.path, message.to.kind.value
    most, make = first_properties(path).max_deliveries, options.declare is Declare.AUTO
    what = (options.space, fit(path), path, kind, most, make, part_of(message), message.body)
    return f"SELECT {options.schema}.send_in(%s, %s, %s, %s, %s, %s, %s::jsonb, %s)", what  # a schema's name is checked
