"""What the conformance kit can do to Cassandra beyond its connections: delete rows, write into them, count what is left.

Everything here goes through the client library alone, as an operator's tools would.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile

from integration.foreign import DAMAGED
from narrowboat.conformance import Harness
from narrowboat.dsn import Url
from narrowboat_cassandra.schema import KEYSPACE, TABLE

_ROW = "narrowboat.narrowboat_locks WHERE prefix=%s AND name=%s"


@contextmanager
def cql(url: str) -> Iterator[Any]:
    """A session of the library's own with the node of `url`, which has no TLS."""
    parsed = Url.parse(url)
    user, password = parsed.username, parsed.password
    login = PlainTextAuthProvider(user, password.reveal()) if user is not None and password is not None else None
    cluster = Cluster(
        [parsed.hosts[0].name],
        port=parsed.hosts[0].port,
        protocol_version=4,
        auth_provider=login,
        execution_profiles={EXEC_PROFILE_DEFAULT: ExecutionProfile(request_timeout=60)},
        connect_timeout=30,
        control_connection_timeout=30,
    )
    try:
        yield cluster.connect()
    finally:
        cluster.shutdown()


def make_table(session: Any, keyspace: str = "narrowboat", table: str = "narrowboat_locks") -> None:
    """The keyspace and the table, as the page says that they are made."""
    session.execute(KEYSPACE.format(keyspace=keyspace, replication=1))
    session.execute(TABLE.format(table=f"{keyspace}.{table}"))


class CassandraHarness(Harness):
    """For a node that the harness may do anything to."""

    def residue(self, namespace: str) -> int:
        """Slots that are taken: the row of an idle lock keeps its version for a day."""
        with cql(self.url) as session:
            make_table(session)
            rows = session.execute(
                "SELECT h, w FROM narrowboat.narrowboat_locks WHERE prefix=%s ALLOW FILTERING", (self._prefix(namespace),)
            )
            return sum(len(row.h or {}) + (row.w is not None) for row in rows)

    def delete(self, half: str, namespace: str, name: str) -> None:
        with cql(self.url) as session:
            session.execute(f"DELETE FROM {_ROW} IF EXISTS", (self._prefix(namespace), name))

    def plant_record(self, namespace: str, name: str, kind: int) -> bool:
        """Something in the first slot that nobody can believe."""
        if kind >= len(DAMAGED):
            return False
        with cql(self.url) as session:
            make_table(session)
            session.execute(
                "UPDATE narrowboat.narrowboat_locks SET h[0]=%s WHERE prefix=%s AND name=%s IF v=null",
                (DAMAGED[kind].decode("utf-8", "replace"), self._prefix(namespace), name),
            )
        return True

    def _prefix(self, namespace: str) -> str:
        return Url.parse(self.locks_url(namespace)).query["prefix"]
