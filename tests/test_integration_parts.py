"""Tests on servers in several processes: what shares a server is one process's, and no two processes take one port."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from integration import parts
from integration.parts import following, part
from integration.servers.ports import free_port

FOLDER = Path(parts.__file__).parent


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("test_redis_locks.py::test_a", "test_redis_locks.py::test_b[x-sync]", True),
        ("test_redis_locks.py::test_a", "test_redis_broker.py::test_a", False),
        ("kafka_clients/test_kafka_members.py::test_a[python]", "kafka_clients/test_kafka_members.py::test_b[confluent]", True),
        ("test_redis_conformance.py::test_redis[sync]", "test_redis_conformance.py::test_redis[asyncio]", False),
        ("test_redis_conformance.py::test_redis[sync]", "test_redis_conformance.py::test_redis_tls[sync]", False),
        ("test_kafka_confluent.py::test_kafka[sync]", "test_kafka_confluent.py::test_kafka[asyncio]", False),
        ("test_secrets.py::test_a[redis-tls]", "test_secrets.py::test_b[redis-tls]", True),
        ("test_secrets.py::test_a[redis-tls]", "test_secrets.py::test_a[redis-plain]", False),
        ("test_tls.py::test_a[kafka-expired]", "test_tls.py::test_b[kafka]", True),
        ("test_tls.py::test_a[kafka-expired]", "test_tls.py::test_a[consul-expired]", False),
    ],
)
def test_what_shares_a_server_stays_together(one: str, other: str, together: bool) -> None:
    assert (part(f"integration/{one}") == part(f"integration/{other}")) is together


REDIS, RABBIT, KAFKA, OTHER = (f"integration/test_{name}.py" for name in ("redis", "rabbitmq", "kafka", "kafka_rights"))


@pytest.mark.parametrize(
    ("left", "has", "others", "next_one"),
    [
        ([KAFKA, REDIS, OTHER], "", set(), KAFKA),
        ([REDIS, RABBIT, KAFKA, OTHER], "kafka", {"rabbitmq"}, KAFKA),
        ([KAFKA, RABBIT, REDIS], "", {"kafka"}, RABBIT),
        ([KAFKA, REDIS, RABBIT], "", {"kafka", "rabbitmq"}, REDIS),
        ([REDIS, KAFKA], "rabbitmq", {"kafka"}, REDIS),
        ([OTHER, RABBIT], "", {"kafka", "rabbitmq"}, OTHER),
    ],
)
def test_a_process_goes_on_with_the_server_that_it_has(left: list[str], has: str, others: set[str], next_one: str) -> None:
    """And takes what none of the others has a server for, as long as there is such a part."""
    assert following(left, has, others) == next_one


class Node:
    """One of several processes, as the scheduler sees it."""

    shutting_down = False
    gateway = SimpleNamespace(id="gw")

    def __init__(self) -> None:
        self.sent: list[int] = []

    def send_runtest_some(self, numbers: list[int]) -> None:
        self.sent += numbers

    def shutdown(self) -> None:
        self.shutting_down = True


def test_pytest_xdist_asks_what_follows() -> None:
    """By the names that the library does not promise: were one of them gone, each process would start each server."""
    config: Any = SimpleNamespace(getvalue=lambda name: ["2*popen"], option=SimpleNamespace(loadscopereorder=False))
    scheduler = parts.scheduler(config, SimpleNamespace(loadscopesched=lambda *words: None))
    tests = [f"integration/test_{name}.py::test" for name in ("kafka", "rabbitmq", "redis", "kafka_b", "rabbitmq_b", "kafka_c")]
    nodes = [Node(), Node()]
    for node in nodes:
        scheduler.add_node(node)
    for node in nodes:
        scheduler.add_node_collection(node, tests)
    scheduler.schedule()
    while scheduler.workqueue:
        for node in nodes:
            for number in node.sent[:]:
                scheduler.mark_test_complete(node, number)

    assert [[tests[number] for number in node.sent] for node in nodes] == [
        [tests[number] for number in (0, 3, 5, 2)],  # those of Kafka, and then what needs neither
        [tests[number] for number in (1, 4)],
    ]


def test_each_file_that_is_named_is_there() -> None:
    names = [*parts._LONG, *(name for name in parts._PARTS if "\\" not in name)]
    assert [name for name in names if not list(FOLDER.rglob(f"{name}.py"))] == []


def test_no_two_processes_take_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "4")
    taken = []
    for number in range(4):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{number}")
        taken.append({free_port() % 4 for _ in range(20)})
    assert sorted(map(len, taken)) == [1, 1, 1, 1]
    assert len(set.union(*taken)) == 4
