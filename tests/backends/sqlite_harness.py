"""What the conformance kit can do to an SQLite file beyond opening it: leave rows of others in it, and cut its power.

suite(SqliteHarness(f"sqlite:///{path}"), only={"L120", "B120"})
"""

import contextlib
import functools
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import narrowboat
import power_log
from narrowboat.conformance import Harness
from narrowboat.conformance.faults.power import Recording
from narrowboat.dsn import Url

#: Columns of `lock_holder` as another program may have left them; SQLite keeps any type in any column. What decides nothing (a
#: label, when it was acquired, the end of a lease by a clock that nobody here reads) leaves a lease that is honoured.
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
    {"clock": b"\xff"},
    {"renewals": "often"},
)

#: Columns of `message` and of `delivery`, the same way. What no look at the queue finds is in nobody's way, and not here.
_STRANGE: dict[str, dict[str, object]] = {
    "a name that is bytes": {"name": b"\xff\xfe"},
    "a name that is a number": {"name": 12},
    "an empty name": {"name": ""},
    "a body that is text": {"body": "text"},
    "a body that is a number": {"body": 1e300},
    "headers that are no JSON": {"headers": "[1"},
    "headers that are nested deeply": {"headers": "[" * 100_000},
    "headers that are not text": {"headers": '{"a": [1, null]}'},
    "headers that are bytes": {"headers": b"\x00\xff"},
    "a key that is bytes": {"key": b"\x00"},
    "a publish time that is text": {"published": "noon"},
    "a publish time without end": {"published": float("inf")},
    "a priority that is text": {"priority": "high"},
    "a priority out of range": {"priority": 2**62},
    "details that are no JSON": {"details": "[" * 100_000},
    "details that lead elsewhere": {"details": '[1, 2, ["queue", "payroll", ""]]'},
    "a count of copies that is text": {"copies": "two"},
    "an attempt that is text": {"attempt": "often"},
    "an attempt below zero": {"attempt": -1_000_000},
    "a rank that is text": {"rank": "first"},
}


class SqliteHarness(Harness):
    """For one file that the harness may do anything to."""

    def fresh_url(self, half: str, namespace: str) -> str:
        """Of a file that is not there yet: its first users make the tables of both halves."""
        return f"sqlite:///{Url.parse(self.url).path}.{namespace}"

    def recorded(self, url: str) -> Recording:
        """In a folder of its own beside the file."""
        path = Path(Url.parse(self.url).path)
        place = path.with_name(f"recorded-{os.urandom(4).hex()}")
        place.mkdir()
        log = place.with_suffix(".log")
        power_log.record(str(log), str(place))
        return power_log.Power(_moved(url, f"sqlite:///{place / 'kit.db'}"), log, place, place.with_suffix(".left"))

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

    def plant_entries(self, namespace: str, name: str) -> list[tuple[str, Callable[[], object]]]:
        """A message with one column that nobody can believe."""
        return [(label, functools.partial(self._plant, namespace, name, columns)) for label, columns in _STRANGE.items()]

    def _plant(self, namespace: str, name: str, columns: dict[str, object]) -> None:
        space = Url.parse(self.broker_url(namespace)).query["prefix"]
        message: dict[str, object] = {"name": "theirs", "body": b"theirs", "published": time.time(), "priority": 0, "copies": 1}
        delivery: dict[str, object] = {"state": 0, "rank": 0, "place": 0.0, "attempt": 0}
        message |= {column: value for column, value in columns.items() if column not in delivery}
        delivery |= {column: value for column, value in columns.items() if column in delivery}
        with contextlib.closing(sqlite3.connect(Url.parse(self.url).path, timeout=10)) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            found = "SELECT id FROM source WHERE space = ? AND path = ?"
            (delivery["source"],) = connection.execute(found, (space, name)).fetchone()
            (number,) = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM message").fetchone()
            for table, row in (("message", message | {"id": number}), ("delivery", delivery | {"message": number})):
                places = ", ".join("?" * len(row))
                connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", tuple(row.values()))


def _moved(url: str, place: str) -> str:
    """`url` with its options, at another place.

    >>> _moved("sqlite:////tmp/a.db?prefix=x", "sqlite:////tmp/b.db")
    'sqlite:////tmp/b.db?prefix=x'
    """
    return place + "?" * ("?" in url) + url.partition("?")[2]
