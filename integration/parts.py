"""Which tests one of several processes takes together, and which are begun first.

    python -m pytest -n 2 --no-loadscope-reorder integration

The tests of a file share its servers, so one process takes them all. Where a server is a part's of a file alone, `_PARTS` says
which tests are a part, and any process takes it. What takes longest is begun first: what is begun last keeps one process busy
when the others are done. pytest-xdist asks for this through `conftest.py`; without it nothing here has an effect.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

import pytest

from integration import servers

#: The servers that a process keeps.
_DEAR = sorted(kind.name for kind in vars(servers).values() if getattr(kind, "dear", False))
#: Files whose tests take minutes, the longest first.
_LONG = (
    "test_kafka_conformance",
    "test_redis_conformance",
    "test_consul_conformance",
    "test_rabbitmq_conformance",
    "test_kafka_confluent",
    "test_kafka_share_conformance",
    "test_zookeeper_conformance",
    "test_kafka",
    "test_servers",
    "test_secrets",
    "test_cassandra_conformance",
    "test_postgresql_conformance",
    "test_rocketmq_conformance",
    "test_zeromq_conformance",
    "test_kafka_members",
    "test_kafka_writing",
    "test_kafka_administration",
    "test_tls",
)
#: Files whose tests do not all share one server: what tells one part of such a file from another, in the name of a test.
_PARTS = {
    r"test_\w+_(conformance|confluent)": r".+",  # each test starts its own
    "test_servers": r"^\w+|\[\w+",  # each starts its own
    "test_secrets": r"\[.*\]$",  # the server and how it is reached
    "test_tls": r"\[\w+",  # the server
}


def part(test: str) -> str:
    """The part of a file, or the file, that a test is of, by its id."""
    path, _, name = test.partition("::")
    stem = path.rpartition("/")[2].removesuffix(".py")
    for files, pattern in _PARTS.items():
        if re.fullmatch(files, stem):
            return " ".join([path, *(found[0] for found in re.finditer(pattern, name))])
    return path


def arrange(items: list[pytest.Item]) -> None:
    """Put the files of `_LONG` first."""
    items.sort(key=lambda item: _LONG.index(item.path.stem) if item.path.stem in _LONG else len(_LONG))


def keeps(part: str) -> str:
    """The server that stays up in its process after a part of it: see `kept`. "" for a part that leaves none."""
    return next((name for name in _DEAR if f"test_{name}" in part), "")


def following(parts: Iterable[str], has: str, others: Collection[str]) -> str:
    """Which of `parts` a process takes that `has` a server: the first for it, then the first for what no other has."""
    ordered = list(parts)
    mine = [each for each in ordered if has and keeps(each) == has]
    free = [each for each in ordered if keeps(each) not in others]
    return (mine or free or ordered)[0]


def scheduler(config: pytest.Config, log: Any) -> Any:
    """What shares the parts out among the processes, in the order of `arrange` as far as `following` lets it."""
    from xdist.scheduler import LoadScopeScheduling  # only where tests run in several processes

    class Parts(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no annotations
        def _split_scope(self, nodeid: str) -> str:
            return part(nodeid)

        def _assign_work_unit(self, node: Any) -> None:
            had = {each: keeps(next(reversed(units), "")) for each, units in self.assigned_work.items()}
            mine = had.pop(node, "")
            self.workqueue.move_to_end(following(self.workqueue, mine, set(filter(None, had.values()))), last=False)
            super()._assign_work_unit(node)

    return Parts(config, log)
