"""Publishing in a transaction of the caller's own, so that a message is there if and only if what it tells of is.

For a program that writes to the same database with psycopg or SQLAlchemy. The message is visible, and consumers are notified,
when that transaction commits; a rollback takes it back. It does not replace a publish that returns when the message is stored.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from narrowboat.contract import Address, Kind
from narrowboat.driver.sources import first_properties
from narrowboat.dsn import Url, parse_options
from narrowboat.errors import InvalidArgument
from narrowboat_postgresql.options import SCHEME, MessageOptions, fit

_LONGEST = 1000


class Outbox:
    """Messages for the queues and topics of one `narrowboat.broker` URL, stored over connections that the caller has.

    Args:
        url: the broker's, of which only `schema` and `prefix` count. Nothing is connected: the schema has to be there, made by
            the first use of that broker, or by its `declare`.
    """

    def __init__(self, url: str) -> None:
        parsed = Url.parse(url)
        options = parse_options(parsed, MessageOptions, {}, core=frozenset({"timeout", "require"}))
        self._space = options.space
        self._schema = options.schema

    def statement(
        self,
        name: str,
        body: bytes,
        *,
        topic: bool = False,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
        priority: int = 0,
        ttl: float | None = None,
        id: str | None = None,
    ) -> tuple[str, tuple[object, ...]]:
        """The statement that publishes, and its parameters, for `await connection.execute(*...)` of an asynchronous psycopg.

        Args:
            name: the queue's, or the topic's.
            body: as bytes: encode it as the queue's codec does.
            topic: it is a topic.
            key: messages of one key keep their order in an ordered queue.
            headers: a mapping of text to text.
            delay: seconds before the message is delivered, from now and not from the commit.
            priority: higher goes first.
            ttl: seconds from now after which the message is not delivered any more; None: no end.
            id: for people; it is not looked up, as the transaction makes the message once.

        Raises:
            InvalidArgument: nothing was sent.
        """
        for what, text in (("name", name), ("key", key), ("id", id)):
            if text is not None and not (0 < len(text) <= _LONGEST and text.isprintable()):
                raise InvalidArgument(f"{what}: 1 to {_LONGEST} printable characters", backend=SCHEME)
        address = Address(Kind.TOPIC if topic else Kind.QUEUE, name)
        part = {
            "i": id or secrets.token_hex(16),
            "h": json.dumps(dict(headers)) if headers else None,
            "k": key,
            "a": time.time(),
            "w": max(float(delay), 0.0),
            "p": int(priority),
            "x": ttl,
        }
        most = first_properties(address.path).max_deliveries
        statement = f"SELECT {self._schema}.send_in(%s, %s, %s, %s, %s, %s::jsonb, %s)"  # checked by the options
        return statement, (self._space, fit(address.path), address.path, address.kind.value, most, json.dumps(part), body)

    def send_in(self, connection: Any, name: str, body: bytes, **options: Any) -> None:
        """Publish within the transaction of `connection`: psycopg's, or one of SQLAlchemy 2 over psycopg.

        Args:
            connection: one that is open. What is not committed is not published.
            name: the queue's, or the topic's.
            body: as bytes.
            **options: as for `statement`.

        Raises:
            InvalidArgument: nothing was sent. What the connection raises is raised as it is; its transaction has then failed.
        """
        statement, parameters = self.statement(name, body, **options)
        getattr(connection, "exec_driver_sql", connection.execute)(statement, parameters)
