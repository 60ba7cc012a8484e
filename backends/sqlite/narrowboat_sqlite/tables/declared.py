"""What sources were declared with: telling it, altering it, and which sources there are. Each within one transaction."""

from __future__ import annotations

from narrowboat.contract import Address, Kind, Properties
from narrowboat.driver.sources import DEAD
from narrowboat.errors import Conflict, NarrowboatError
from narrowboat_sqlite.errors import refuse
from narrowboat_sqlite.tables.sources import COLUMNS, SourceRow, source_of
from narrowboat_sqlite.tables.topology import Topology


def stored(topology: Topology, address: Address) -> Properties | Conflict | None:
    """What a consumer declared, or somebody altered since; None where nobody did."""
    found = topology.find(address)
    if isinstance(found, SourceRow):
        return found.properties if found.declared and address.kind is not Kind.TOPIC else None
    return found


def alter(topology: Topology, address: Address, lease: float | None, limit: int | None) -> Properties | NarrowboatError:
    """Store another lease or limit; what is None stays."""
    found = topology.find(address)
    if isinstance(found, Conflict):
        return found
    if found is None or not found.declared or address.kind is Kind.TOPIC:
        return refuse.undeclared(address.path, address.kind.value)
    (row,) = topology.connection.execute(
        "UPDATE source SET lease = coalesce(?, lease), max_deliveries = coalesce(?, max_deliveries) WHERE id = ?"
        " RETURNING lease, max_deliveries",
        (lease, limit, found.id),
    ).fetchall()
    # RETURNING gives a whole number of a REAL column as an int; seen with SQLite 3.40.1.
    return found.properties._replace(lease=float(row[0]), max_deliveries=row[1])


def listed(topology: Topology) -> list[Address]:
    """Every queue, topic and subscription, without dead letters and what cannot be ours."""
    query = f"SELECT {COLUMNS} FROM source WHERE space = ?"  # noqa: S608  # the constant
    found = [source_of(row) for row in topology.connection.execute(query, (topology.space,)).fetchall()]
    there = [row.address for row in found if row is not None]
    return [each for each in there if each.kind is not Kind.INBOX and not each.path.endswith(DEAD)]
