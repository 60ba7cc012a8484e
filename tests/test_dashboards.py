"""The alert rules and the dashboard of the pages: they load, and each metric and label that they name is measured."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from narrowboat.health import Connection
from narrowboat.working import Health, SourceHealth
from narrowboat.working.answers import exposition

prometheus_client = pytest.importorskip("prometheus_client")

DOCS = Path(__file__).resolve().parent.parent / "docs"
ALERTS, DASHBOARD = DOCS / "alerts.yml", DOCS / "dashboard.json"
#: Labels that Prometheus adds, or that a histogram has.
THEIRS = {"job", "instance", "le"}


def measured() -> dict[str, set[str]]:
    """Each metric with its labels, as it is in a scrape: by the library's own list, and by the worker's health."""
    from narrowboat.telemetry.prometheus import Metrics

    registry = prometheus_client.CollectorRegistry()
    metrics = Metrics(registry)
    found: dict[str, set[str]] = {"narrowboat_queue_messages": {"backend", "queue", "state"}}
    found["narrowboat_queue_oldest_seconds"] = {"backend", "queue"}
    for each in vars(metrics).values():
        if isinstance(each, prometheus_client.Histogram):
            for suffix in ("_bucket", "_count", "_sum"):
                found[each._name + suffix] = set(each._labelnames)
        elif isinstance(each, prometheus_client.Counter):
            found[f"{each._name}_total"] = set(each._labelnames)
        elif isinstance(each, prometheus_client.Gauge):
            found[each._name] = set(each._labelnames)
    connection = Connection("memory://x", "memory", "connected")
    health = Health((SourceHealth("orders", "ship", "running"),), connection, connection)
    for name, labels in re.findall(r"^(\w+)\{(.*)\} ", exposition(health).decode(), re.MULTILINE):
        found[name] = set(re.findall(r"(\w+)=", labels))
    return found


def alerts() -> list[str]:
    """The expressions of the rules: read without a parser of YAML, as the file is plain."""
    text = ALERTS.read_text(encoding="utf-8")
    return re.findall(r"expr: (?:>-\n)?(.*?)\n +(?:for|labels):", text, re.DOTALL)


def panels() -> list[str]:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    found = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return [*found, *(each["query"] for each in board["templating"]["list"] if each["type"] == "query")]


@pytest.mark.parametrize("expression", [*alerts(), *panels()])
def test_what_an_expression_names_is_measured(expression: str) -> None:
    """Its metrics, the labels that it chooses by, and those that it groups by."""
    known = measured()
    named = re.findall(r"narrowboat_\w+", expression)
    assert named and set(named) <= known.keys()
    labels = set.union(*(known[name] for name in named)) | THEIRS
    chosen = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression)
    grouped = [word for inner in re.findall(r"\bby \(([^)]*)\)", expression) for word in inner.split(", ")]
    assert {*chosen, *grouped} <= labels


def base(name: str) -> str:
    """Of a histogram's parts, the histogram."""
    return re.sub("_(bucket|count|sum)$", "", name)


def test_what_has_neither_rule_nor_panel_is_known() -> None:
    """A new metric is shown, or is named here."""
    assert len(alerts()) == ALERTS.read_text(encoding="utf-8").count("alert:") == 9
    shown = {base(name) for text in [*alerts(), *panels()] for name in re.findall(r"narrowboat_\w+", text)}
    unseen = {base(name) for name in measured()} - shown
    assert unseen == {
        "narrowboat_messages_malformed_total",
        "narrowboat_connection_losses_total",
        "narrowboat_connection_away_seconds_total",
        "narrowboat_outbox_messages",
        "narrowboat_outbox_age_seconds",
        "narrowboat_worker_calls_returned_total",
        "narrowboat_worker_calls_failed_total",
        "narrowboat_worker_source_state",
        "narrowboat_worker_broker_reached",
        "narrowboat_worker_schedules_reached",
    }


def test_the_dashboard_is_whole() -> None:
    """Panels have a place of their own, a unit and a source that the reader chooses."""
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in board["panels"]})
    sources: set[Any] = {each["datasource"]["uid"] for panel in board["panels"] for each in (panel, *panel["targets"])}
    assert sources == {"${source}"}
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in board["panels"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the path: Debian's package prometheus has it")
def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    """Each of them, and the dashboard's expressions as rules as well."""
    board = tmp_path / "board.yml"
    lines = [text.replace("$__rate_interval", "5m").replace("$queue", ".*") for text in panels() if "label_values" not in text]
    rules = "".join(f"      - record: panel:{number}\n        expr: {json.dumps(line)}\n" for number, line in enumerate(lines))
    board.write_text(f"groups:\n  - name: panels\n    rules:\n{rules}")

    for path, count in ((ALERTS, 9), (board, len(lines))):
        told = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False)
        assert told.returncode == 0 and f"{count} rules found" in told.stdout, told.stderr
