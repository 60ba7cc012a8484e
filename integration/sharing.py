"""Which tests one of several processes takes together, and which are begun first.

    python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder integration

The tests of a file share a server, so one process takes them all. A test that has a server of its own, or shares it with a part
of its file, says so with `apart`. What takes longest is begun first, or one process is still at it when the others are done.
"""

from __future__ import annotations

import pytest

#: Files whose tests take minutes, the longest first.
_LONG = (
    "test_kafka_conformance",
    "test_redis_conformance",
    "test_consul_conformance",
    "test_rabbitmq_conformance",
    "test_zookeeper_conformance",
    "test_servers",
    "test_secrets",
    "test_tls",
    "test_kafka",
    "test_rabbitmq",
    "test_kafka_rights",
    "test_redis_broker",
)


def apart(name: str) -> pytest.MarkDecorator:
    """The mark of tests that need no other test's server. Those with one name stay together."""
    return pytest.mark.xdist_group(name)


def arrange(items: list[pytest.Item]) -> None:
    """Sort them, and keep the tests of a file together that are not `apart`."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(apart(item.path.stem))
    items.sort(key=lambda item: _LONG.index(item.path.stem) if item.path.stem in _LONG else len(_LONG))
