"""What the conformance kit can do to an SQLite file beyond opening it: leave rows in it that Narrowboat has not written.

suite(SqliteHarness(f"sqlite:///{path}"), only={"L120"})
"""

import contextlib
import sqlite3
import time

import narrowboat
from narrowboat.conformance import Harness
from narrowboat.dsn import Url

#: Columns of `lock_holder` as another program may have left them; SQLite keeps any type in any column.
_DAMAGED = (
    {"mode": "mine"},
    {"mode": b"\xff\xfe"},
    {"owner": b"\x00\xff"},
    {"token": "twelve"},
    {"token": -1},
    {"token": 2**53},
    {"token": 2**63 - 1},
    {"token": 1.5},
    {"size": "three"},
    {"size": -2},
    {"ttl": "long"},
    {"ttl": float("inf")},
    {"ends": "tomorrow"},
    {"ends": b"\x00"},
    {"ends": 1e300},
    {"clock": b"\xff"},
    {"renewals": "often"},
    {"label": b"\xff\x00"},
    {"acquired_at": "yesterday"},
    {"acquired_at": 1e300},
)


class SqliteHarness(Harness):
    """For one file that the harness may do anything to."""

    def plant_record(self, namespace: str, name: str, kind: int) -> bool:
        """A row of `lock_holder` with one column that nobody can believe."""
        if kind >= len(_DAMAGED):
            return False
        url = self.locks_url(namespace)
        with narrowboat.locks(url) as locks:
            locks.ping()  # the tables are there
        prefix = Url.parse(url).query["prefix"]
        row = {
            "prefix": prefix,
            "name": name,
            "token": 1_000_000_000 + kind,
            "owner": "somebody",
            "mode": "exclusive",
            "size": None,
            "ttl": 3600.0,
            "ends": time.time() + 1e9,
            "clock": "another",
            "renewals": 0,
            "label": "theirs",
            "acquired_at": time.time(),
            **_DAMAGED[kind],
        }
        with contextlib.closing(sqlite3.connect(Url.parse(self.url).path, timeout=10)) as connection, connection:
            connection.execute(f"INSERT INTO lock_holder VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
        return True
