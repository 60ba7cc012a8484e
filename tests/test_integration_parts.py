"""Which tests on servers one process takes together: what shares a server, and no more of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration import parts
from integration.parts import part

FOLDER = Path(parts.__file__).parent


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("test_redis_locks.py::test_a", "test_redis_locks.py::test_b[x-sync]", True),
        ("test_redis_locks.py::test_a", "test_redis_broker.py::test_a", False),
        ("test_redis_conformance.py::test_redis[L01-x-sync]", "test_redis_conformance.py::test_redis[B01-y-sync]", True),
        ("test_redis_conformance.py::test_redis[L01-x-sync]", "test_redis_conformance.py::test_redis[L01-x-asyncio]", False),
        ("test_redis_conformance.py::test_redis[L01-x-sync]", "test_redis_conformance.py::test_redis_tls[L01-x-sync]", False),
        ("test_kafka_confluent.py::test_kafka[B01-x-sync]", "test_kafka_confluent.py::test_kafka[B01-x-asyncio]", False),
        ("test_secrets.py::test_a[redis-tls]", "test_secrets.py::test_b[redis-tls]", True),
        ("test_secrets.py::test_a[redis-tls]", "test_secrets.py::test_a[redis-plain]", False),
        ("test_tls.py::test_a[kafka-expired]", "test_tls.py::test_b[kafka]", True),
        ("test_tls.py::test_a[kafka-expired]", "test_tls.py::test_a[consul-expired]", False),
    ],
)
def test_what_shares_a_server_stays_together(one: str, other: str, together: bool) -> None:
    assert (part(f"integration/{one}") == part(f"integration/{other}")) is together


def test_each_file_that_is_named_is_there() -> None:
    names = [*parts._LONG, *(name for name in parts._PARTS if "\\" not in name)]
    assert [name for name in names if not (FOLDER / f"{name}.py").exists()] == []
