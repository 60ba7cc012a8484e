"""What the conformance kit can do to a PostgreSQL server beyond its connections: take rights away, delete and add rows.

Everything here is done with psycopg as an operator would, by the names of tables and columns that the backend's page shows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import narrowboat
from integration.servers import PostgreSQLServer
from narrowboat.capabilities import BrokerCapabilities
from narrowboat.conformance import Harness
from narrowboat.conformance.harness import with_option, with_query

#: What the URL of messages says beside the locks'.
KEEPING = "retention=600"
#: Columns of messages that another program can add to a queue of ours.
STRANGE: dict[str, dict[str, object]] = {
    "a name and a body": {},
    "no name": {"name": ""},
    "headers that are no JSON": {"headers": "{"},
    "headers that are none": {"headers": '{"a": 1}'},
    "deep headers": {"headers": "[" * 100_000},
    "half a character": {"headers": '{"a":"\\ud800"}'},
    "a deep address for replies": {"details": "[" * 100_000},
    "details of another form": {"details": '{"a": 1}'},
    "a time that is none": {"published": float("nan")},
    "a time without end": {"published": float("inf")},
    "a priority below all": {"priority": -(2**31), "rank": 2**31 - 1},
    "attempts without end": {"attempt": 2**31 - 1},
    "a lease that nobody has": {"state": 2, "lease": -1, "until": "1970-01-01"},
    "a delay that is over": {"state": 1, "until": "-infinity"},
    "a place before all": {"place": -(2**63)},
    "a body of a megabyte": {"body": b"x" * 1_000_000},
}


class PostgreSQLHarness(Harness):
    """For one server that the harness may do anything to."""

    def _client(self) -> Any:
        server = self.server
        assert isinstance(server, PostgreSQLServer)
        return server.client()

    def _do(self, statement: str, *values: object) -> list[Any]:
        with self._client() as client:
            found = client.execute(statement, values)
            return list(found.fetchall()) if found.description else []

    @property
    def broker_claims(self) -> BrokerCapabilities:
        """With replay, which the locks' URL has no option for."""
        return narrowboat.broker(with_query(self.url, KEEPING)).capabilities

    def broker_url(self, namespace: str) -> str:
        return with_query(super().broker_url(namespace), KEEPING)

    def fresh_url(self, half: str, namespace: str) -> str:
        """In a schema that is not there yet."""
        return with_option(super().fresh_url(half, namespace), "schema", f"fresh_{namespace}")

    def residue(self, namespace: str) -> int:
        """Holders and waiters of the namespace. The row of a name stays for an hour."""
        (row,) = self._do(
            "SELECT (SELECT count(*) FROM narrowboat.waiter w JOIN narrowboat.space s ON s.id = w.space WHERE s.prefix = %s)"
            " + (SELECT coalesce(sum(cardinality(l.holders)), 0) FROM narrowboat.lock l JOIN narrowboat.space s"
            " ON s.id = l.space WHERE s.prefix = %s)",
            namespace,
            namespace,
        )
        return int(row[0])

    def cleanup(self, namespace: str) -> None:
        if self._do("SELECT to_regclass('narrowboat.message')") == [(None,)]:
            return
        of = "IN (SELECT id FROM narrowboat.space WHERE prefix = %s)"
        self._do(
            f"DELETE FROM narrowboat.message WHERE source IN (SELECT id FROM narrowboat.source WHERE space {of})", namespace
        )
        for table in ("source", "waiter", "lock"):
            self._do(f"DELETE FROM narrowboat.{table} WHERE space {of}", namespace)
        self._do(f"DROP SCHEMA IF EXISTS fresh_{namespace} CASCADE")

    def delete(self, half: str, namespace: str, name: str) -> None:
        of = "AND space IN (SELECT id FROM narrowboat.space WHERE prefix = %s)"
        if half == "locks":
            self._do(f"DELETE FROM narrowboat.lock WHERE key = %s {of}", name, namespace)
            return
        self._do(
            "DELETE FROM narrowboat.message WHERE source IN (SELECT id FROM narrowboat.source WHERE key = %s " + of + ")",
            name,
            namespace,
        )
        self._do(f"DELETE FROM narrowboat.source WHERE key = %s {of}", name, namespace)

    def plant_entries(self, namespace: str, name: str) -> list[tuple[str, Callable[[], object]]]:
        return [(label, partial(self._add, namespace, name, columns)) for label, columns in STRANGE.items()]

    def _add(self, namespace: str, name: str, columns: dict[str, object]) -> None:
        columns = {"name": "theirs", "body": b"theirs", **columns}
        self._do(
            f"INSERT INTO narrowboat.message (source, {', '.join(columns)}) SELECT s.id, {', '.join(['%s'] * len(columns))}"
            " FROM narrowboat.source s JOIN narrowboat.space p ON p.id = s.space WHERE p.prefix = %s AND s.key = %s",
            *columns.values(),
            namespace,
            name,
        )

    def revoke(self) -> None:
        self._do("REVOKE ALL ON ALL TABLES IN SCHEMA narrowboat FROM narrowboat")

    def permit(self) -> None:
        self._do("GRANT ALL ON ALL TABLES IN SCHEMA narrowboat TO narrowboat")
