"""`python -m integration.mutants [BACKEND ...]`: run the mutants of these backends, or of all that this machine has servers of.

The exit code is 1 where the backend as it is does not hold, where a mutant survives, or where its text is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from integration.mutants import NAMES, SourceMutant, TextGone, table
from integration.mutants.trial import tried
from integration.servers import (
    CassandraServer,
    ConsulServer,
    KafkaServer,
    PostgreSQLServer,
    RabbitMQServer,
    RedisServer,
    Server,
    ZooKeeperServer,
)
from integration.servers.resolve import Unavailable, choose


class _SetUp(NamedTuple):
    """What a backend needs."""

    kind: type[Server]
    query: str = ""


_SET_UPS = {
    "redis": _SetUp(RedisServer, "durability=aof"),
    "postgresql": _SetUp(PostgreSQLServer),
    "zookeeper": _SetUp(ZooKeeperServer, "session_ttl=3&tick=0.5"),
    "consul": _SetUp(ConsulServer),
    "cassandra": _SetUp(CassandraServer),
    "rabbitmq": _SetUp(RabbitMQServer),
    "kafka": _SetUp(KafkaServer, "session=2&partitions=2"),
}


@contextlib.contextmanager
def _url(backend: str) -> Iterator[str]:
    """The URL of a server of that backend; of a folder for a file. `zmq:` stands for one that the trial starts itself."""
    if backend == "sqlite":
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            yield f"sqlite:///{Path(folder) / 'kit.db'}"
    elif backend == "zeromq":
        yield "zmq:"
    else:
        setup = _SET_UPS[backend]
        with choose(setup.kind).server() as server:
            yield server.url + ("?" + setup.query if setup.query else "")


def _fresh(backend: str, url: str) -> str:
    """The same for one build: what one installs in the server, such as a function, must not serve the next one."""
    if backend != "postgresql":
        return url
    return f"{url}{'&' if '?' in url else '?'}schema=m{secrets.token_hex(4)}"


def _run(backend: str, chosen: list[SourceMutant], *, control: bool) -> list[dict[str, object]]:
    """A line for each mutant, and for the build without one, as they come."""
    lines: list[dict[str, object]] = []

    def note(**line: object) -> None:
        lines.append({"backend": backend, **line})
        sys.stdout.write(json.dumps(lines[-1], ensure_ascii=False) + "\n")
        sys.stdout.flush()

    with _url(backend) as url:
        if control:
            ids = dict.fromkeys(id for each in chosen for id in each.ids)
            begun = time.monotonic()
            seen = tried(backend, _fresh(backend, url), ids)
            note(
                mutant="none", broken=seen.broken, held=len(seen.held), open=seen.open,
                fine=not seen.broken, seconds=round(time.monotonic() - begun, 1),
            )  # fmt: skip
        for each in chosen:
            begun = time.monotonic()
            try:
                seen = tried(backend, _fresh(backend, url), each.ids, each, first=True)
            except (TextGone, RuntimeError) as error:
                note(mutant=each.breaks, fine=False, broken={}, error=str(error))
                continue
            took = round(time.monotonic() - begun, 1)
            note(mutant=each.breaks, fine=bool(seen.broken), broken=seen.broken, open=seen.open, seconds=took)
    return lines


def main() -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m integration.mutants", description=__doc__)
    parser.add_argument("backends", nargs="*", help=f"of {', '.join(NAMES)}; all unless given")
    parser.add_argument("--only", action="append", default=[], help="a mutant by what it breaks, or a part of that")
    parser.add_argument("--no-control", action="store_true", help="leave out the run of the backend as it is")
    given = parser.parse_args()
    if strange := sorted(set(given.backends) - set(NAMES)):
        parser.error(f"unknown backend {', '.join(strange)}; known are {', '.join(NAMES)}")
    lines: list[dict[str, object]] = []
    for backend in given.backends or NAMES:
        chosen = [each for each in table(backend) if not given.only or any(part in each.breaks for part in given.only)]
        try:
            lines += _run(backend, chosen, control=not given.no_control) if chosen else []
        except Unavailable as error:
            sys.stdout.write(f"{backend}: not run, {error}\n")
            if given.backends:
                return 1
    bad = [line for line in lines if not line["fine"]]
    caught = sum(line["mutant"] != "none" for line in lines) - sum(line["mutant"] != "none" for line in bad)
    sys.stdout.write(f"{caught} caught, {len(bad)} not\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
