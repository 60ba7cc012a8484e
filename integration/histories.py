"""Histories with faults on real servers, by name: `python -m integration.histories redis --seconds 60 --seed 1 --seed 2`.

Each server is one of `integration.servers`, started here and killed, restarted and paused on the way. The result is printed
and, with `--json`, written as `narrowboat verify --json` does it: one file for all runs. The default run of the tests has none.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from integration.servers.resolve import Unavailable, choose
from integration.servers.server import Controls, Server
from narrowboat.conformance import Harness
from narrowboat.conformance.harness import with_query
from narrowboat.conformance.histories import history
from narrowboat.conformance.report import origin


class Backend(NamedTuple):
    """How a backend is run here."""

    server: type[Server]
    harness: Callable[..., Harness]
    query: str = ""
    make: Callable[..., Controls] | None = None
    operation: float = 2.0


def _redis() -> Backend:
    from integration.redis_harness import RedisHarness
    from integration.servers import RedisServer

    return Backend(RedisServer, RedisHarness, "durability=aof")


def _zookeeper() -> Backend:
    from integration.servers import ZooKeeperServer
    from integration.zookeeper_harness import ZooKeeperHarness

    return Backend(ZooKeeperServer, ZooKeeperHarness, "session_ttl=4&tick=0.5")


def _consul() -> Backend:
    from integration.consul_harness import ConsulHarness
    from integration.servers import ConsulServer

    return Backend(ConsulServer, ConsulHarness)


def _rabbitmq() -> Backend:
    from integration.rabbitmq_harness import RabbitHarness, SettledServer
    from integration.servers import RabbitMQServer

    return Backend(RabbitMQServer, RabbitHarness, make=SettledServer, operation=5.0)


def _kafka() -> Backend:
    from integration.kafka_harness import KafkaHarness
    from integration.servers import KafkaServer

    return Backend(KafkaServer, KafkaHarness, "session=6&partitions=4", operation=5.0)


def _postgresql() -> Backend:
    from integration.postgresql_harness import PostgreSQLHarness
    from integration.servers import PostgreSQLServer

    return Backend(PostgreSQLServer, PostgreSQLHarness)


#: What can be named. Client libraries are imported when their server is.
BACKENDS: dict[str, Callable[[], Backend]] = {
    "redis": _redis,
    "zookeeper": _zookeeper,
    "consul": _consul,
    "rabbitmq": _rabbitmq,
    "kafka": _kafka,
    "postgresql": _postgresql,
}


def main(arguments: list[str] | None = None) -> int:
    """Run it. 0: every rule held; 1: one was broken; 2: a server is missing."""
    parser = argparse.ArgumentParser(prog="python -m integration.histories", description=__doc__.partition("\n")[0])
    parser.add_argument("backends", nargs="+", choices=BACKENDS, metavar="|".join(BACKENDS))
    parser.add_argument("--seconds", type=float, default=60.0, help="of each history; 60 unless told")
    parser.add_argument("--seed", type=int, action="append", help="of the plan; may be repeated; 1 unless told")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--folder", type=Path, help="for the histories that break a rule; a temporary one unless told")
    given = parser.parse_args(arguments)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="narrowboat-histories-"))
    told: list[dict[str, Any]] = []
    head = {"commit": origin.commit(), "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    for name in given.backends:
        try:
            for seed in given.seed or [1]:
                told.append(_one(name, given.seconds, seed, folder))  # noqa: PERF401  # a list made at once would lose them to an error
        except Unavailable as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        finally:
            if given.json is not None:
                given.json.write_text(json.dumps({**head, "histories": told}, indent=1) + "\n", encoding="utf-8")
    return 1 if any(each["broken"] for each in told) else 0


def _one(name: str, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """A fresh server for each seed, so that a replay begins with nothing as well."""
    backend = BACKENDS[name]()
    with choose(backend.server).server(backend.make) as server:
        url = with_query(server.url, backend.query) if backend.query else server.url
        harness = backend.harness(url, server=server)
        result = history(harness, seconds=seconds, seed=seed, folder=folder, operation=backend.operation)
    print(result.text(), flush=True)
    return {**result.as_json(), "backend": name}


if __name__ == "__main__":
    sys.exit(main())
