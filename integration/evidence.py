"""What the kit found on real servers, as JSON: a file for each part of a set-up, where `NARROWBOAT_EVIDENCE` names a folder.

A set-up is called as the test function that runs it, without `test_`. `python -m tools.evidence collect FOLDER` puts the parts
together. Without the variable nothing is written.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from pathlib import Path

from integration.servers.server import Controls
from narrowboat.conformance import report as reports

#: How a server tells its version when it starts, by the beginning of the set-up's name.
_VERSIONS = {
    "redis": r"(?:Redis|Valkey) version=([\w.]+)",
    "postgresql": r"starting (PostgreSQL [\w.]+)",
    "zookeeper": r"zookeeper\.version=([\d.]+)",
    "consul": r"Version: '?v?([\w.]+)",
    "rabbitmq": r"RabbitMQ ([\d.]+\d)",
    "kafka": r"Kafka version: ([\w.]+)",
    "cassandra": r"Cassandra version: ([\w.]+)",
    "rocketmq": r"rocketmq[- ]?(?:all-)?v?(\d[\w.]+)",
}


def _folder() -> Path | None:
    told = os.environ.get("NARROWBOAT_EVIDENCE")
    return Path(told) if told else None


def set_up() -> str:
    """The set-up of the test that runs now."""
    test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" (")[0]
    return re.sub(r"\[.*", "", test.rpartition("::")[2]).removeprefix("test_")


def write(report: reports.Report, server: Controls | None, name: str = "") -> None:
    """Write a report of the set-up `name`, by default that of the test that runs now."""
    folder = _folder()
    if folder is None:
        return
    name = name or set_up()
    backend = name.partition("_")[0]
    again = f"NARROWBOAT_KIT_ONLY={{ids}} tox -e integration-{backend}-full -- -k {backend}_conformance"
    version = "" if server is None else version_of(server)
    versions = {**report.versions, "server": version} if version else report.versions
    told = dataclasses.replace(report, set_up=name, again=again, versions=versions)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{os.getpid()}-{time.monotonic_ns()}.json"
    path.write_text(json.dumps(told.as_json(), indent=1) + "\n", encoding="utf-8")


def version_of(server: Controls) -> str:
    """The program and its version, from what the server printed. "" where it does not tell."""
    pattern = _VERSIONS.get(server.name)
    found = re.search(pattern, server.log(), re.IGNORECASE) if pattern else None
    if found is None:
        return ""
    title = {"redis": "Redis", "zookeeper": "ZooKeeper", "consul": "Consul", "rabbitmq": "RabbitMQ", "kafka": "Kafka"}
    program = "Valkey" if found[0].startswith("Valkey") else title.get(server.name, server.name.capitalize())
    return found[1] if " " in found[1] else f"{program} {found[1]}"
