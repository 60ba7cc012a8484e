"""The keyspace and the table: made on request, and what the nodes promise of what is written into them."""

from __future__ import annotations

from typing import Any

from narrowboat.driver import versions
from narrowboat.driver.texts import cut
from narrowboat.errors import ConfigurationError
from narrowboat_cassandra.options import Durability, Ring

#: The versions of Cassandra that this was tried with.
TRIED = ("5.0",)
#: The settings of a node that has what was written on its disk before it answers.
SYNCED = ("batch", "group")

KEYSPACE = (
    "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = "
    "{{'class': 'NetworkTopologyStrategy', 'replication_factor': {replication}}}"
)
TABLE = (
    "CREATE TABLE IF NOT EXISTS {table} (prefix text, name text, v bigint, h map<int, text>, about map<int, text>, w text, "
    "PRIMARY KEY ((prefix, name)))"
)


def check_version(cluster: Any, ring: Ring) -> None:
    """Raise for nodes that are too old."""
    version = min((str(host.release_version or "") for host in cluster.metadata.all_hosts()), key=versions.numbers)
    versions.tried("Cassandra", version, TRIED)
    if versions.numbers(version) < (5,):
        raise ConfigurationError(
            f"{ring} is Cassandra {version[:20]}; locks need 5.0 or later, which tells when a slot was written",
            backend=ring.scheme,
        )


def make(session: Any, ring: Ring) -> None:
    """Make what is missing of the keyspace and the table."""
    known = "SELECT table_name FROM system_schema.tables WHERE keyspace_name=%s AND table_name=%s"
    if session.execute(known, (ring.keyspace, ring.options.table.lower())).one() is not None:
        return
    if (
        session.execute("SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name=%s", (ring.keyspace,)).one()
        is None
    ):
        session.execute(KEYSPACE.format(keyspace=ring.keyspace, replication=ring.options.replication))
    session.execute(TABLE.format(table=ring.table))


def check_durability(session: Any, cluster: Any, ring: Ring) -> None:
    """Raise unless every node that answers is as durable as the URL says."""
    if ring.options.durability is Durability.MEMORY:
        return
    asked = "SELECT value FROM system_views.settings WHERE name='commitlog_sync'"
    for host in cluster.metadata.all_hosts():
        if host.is_up is False:
            continue
        found = session.execute(asked, host=host).one()
        value = str(found["value"]) if found is not None else "nothing"
        if value.lower() not in SYNCED:
            raise ConfigurationError(
                f"{ring}: durability=disk was asked for, and the node {host.endpoint} has commitlog_sync: {cut(value)}. It "
                "answers before its disk has what was written. Set batch or group in its cassandra.yaml, or leave durability "
                "away, and with it the claim.",
                backend=ring.scheme,
            )
