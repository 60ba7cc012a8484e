"""The compose file's monitoring: what it mounts and names is there, and running programs measure what the dashboard shows.

Grafana is not started. Prometheus is, where Debian's package `prometheus` has put it on the path.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import narrowboat
from programs import ENOUGH, ROOT, WEB, WEB_AT, WORKER, Programs

SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
#: where a file of a service is, within its container -> the file here
MOUNTS = {
    (service, inner): ROOT / outer
    for service, each in SERVICES.items()
    for outer, inner, *_ in (volume.split(":") for volume in each["volumes"])
    if outer.startswith(".")
}
SCRAPE = yaml.safe_load((ROOT / "monitoring/prometheus.yml").read_text())
#: how many there are
ALERTS = sum(
    len(group["rules"]) for group in yaml.safe_load(MOUNTS["prometheus", "/etc/prometheus/alerts.yml"].read_text())["groups"]
)
DASHBOARD = "/var/lib/grafana/dashboards/narrowboat.json"


def test_what_is_mounted_is_there() -> None:
    assert len(MOUNTS) == 5
    assert [str(path) for path in MOUNTS.values() if not path.is_file()] == []


@pytest.mark.parametrize("service", ["web", "worker"])
def test_each_variable_is_one_that_a_program_reads(service: str) -> None:
    """The shop's, or the library's."""
    folders = (ROOT / "shop", Path(narrowboat.__file__).parent)
    source = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    unread = [name for name in SERVICES[service]["environment"] if f'"{name}"' not in source]
    assert unread == []


def test_the_services_find_each_other() -> None:
    """By the ports that their commands name, and Grafana by the paths that are mounted."""
    jobs = {job["job_name"]: job["dns_sd_configs"] for job in SCRAPE["scrape_configs"]}
    assert jobs == {
        "web": [{"names": ["web"], "type": "A", "port": 8000}],
        "worker": [{"names": ["worker"], "type": "A", "port": 8080}],
    }
    assert SERVICES["web"]["command"].endswith("--host 0.0.0.0")  # uvicorn's own port is 8000
    assert SERVICES["worker"]["command"].endswith("--health 0.0.0.0:8080")
    assert [("prometheus", f"/etc/prometheus/{name}") in MOUNTS for name in SCRAPE["rule_files"]] == [True]

    (source,) = yaml.safe_load((ROOT / "monitoring/grafana-source.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((ROOT / "monitoring/grafana-dashboards.yaml").read_text())["providers"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert ("grafana", f"{provider['options']['path']}/narrowboat.json") in MOUNTS
    assert SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == DASHBOARD


def shown() -> set[str]:
    """The metrics that the dashboard and the alerts name, with the suffixes of a histogram's parts."""
    files = MOUNTS["grafana", DASHBOARD], MOUNTS["prometheus", "/etc/prometheus/alerts.yml"]
    texts = [json.dumps([panel["targets"] for panel in json.loads(files[0].read_text())["panels"]]), files[1].read_text()]
    return {name for text in texts for name in re.findall(r"\bnarrowboat_\w+", text)}


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Of a web process and a worker on SQLite, by the name of their job. An order went through both."""
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch, Programs() as programs:
        for name in ("NARROWBOAT_LOCKS_URL", "NARROWBOAT_BROKER_URL"):
            patch.setenv(name, f"sqlite:///{folder}/narrowboat.db")
        patch.setenv("SHOP_DB", str(folder / "shop.db"))
        patch.delenv("SHOP_SCHEDULES_URL", raising=False)
        programs.start(*WEB)
        _, web = programs.wait(WEB_AT)
        programs.start(*WORKER, "--health", "127.0.0.1:0")
        _, worker = programs.wait(r"(http://\S+)/ready")
        httpx2.post(f"{web[1]}/items/kettle/orders", timeout=ENOUGH).raise_for_status()
        programs.wait("mail: your order")
        yield {"web": web[1], "worker": worker[1]}


def test_what_is_shown_is_measured(addresses: dict[str, str]) -> None:
    """Each metric of the dashboard and of the alerts is in what web or worker tell Prometheus."""
    told = set()
    for address in addresses.values():
        for family in text_string_to_metric_families(httpx2.get(f"{address}/metrics", timeout=ENOUGH).text):
            suffixes = {"histogram": ("_bucket", "_count"), "counter": ("_total",)}.get(family.type, ("",))
            told |= {family.name + suffix for suffix in suffixes}
    assert shown() - told == set()


@pytest.fixture
def prometheus(addresses: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """A Prometheus of the compose file's configuration, with these addresses in the place of the services' names."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not on the path: Debian's package prometheus has it")
    shutil.copy(MOUNTS["prometheus", "/etc/prometheus/alerts.yml"], tmp_path)
    written = {**SCRAPE, "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"}}
    written["scrape_configs"] = [
        {"job_name": job, "static_configs": [{"targets": [address.removeprefix("http://")]}]}
        for job, address in addresses.items()
    ]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(written))
    options = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0"]
    process = subprocess.Popen([program, *options], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stderr is not None
            said = ""
            for line in process.stderr:
                said += line
                if (found := re.search(r'msg="Listening on" address=(\S+)', line)) or "error" in line:
                    break
            assert found, said
            yield f"http://{found[1]}"
        finally:
            process.terminate()
            process.communicate()


def test_prometheus_scrapes_both_and_takes_the_alerts(prometheus: str) -> None:
    """It has the order's handler and the wait for its lock, has evaluated each rule, and found nothing to tell."""

    def asked(path: str, **query: str) -> Any:
        answer = httpx2.get(f"{prometheus}/api/v1/{path}", params=query, timeout=ENOUGH)
        return answer.json()["data"]

    wanted = {"narrowboat_handler_duration_seconds_count", "narrowboat_lock_wait_seconds_count", "narrowboat_queue_messages"}
    ends = time.monotonic() + ENOUGH
    while True:
        rules = [rule for group in asked("rules")["groups"] for rule in group["rules"]]
        missing = wanted - set(asked("label/__name__/values"))
        if not missing and {rule["health"] for rule in rules} == {"ok"}:
            break
        assert time.monotonic() < ends, (missing, rules, asked("targets"))
        time.sleep(0.1)  # between two questions: Prometheus tells nobody that it has scraped
    assert {each["health"] for each in asked("targets")["activeTargets"]} == {"up"}
    assert len(rules) == ALERTS and {rule["state"] for rule in rules} == {"inactive"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the path: Debian's package prometheus has it")
def test_promtool_takes_the_files_as_they_are_mounted(tmp_path: Path) -> None:
    for (service, inner), path in MOUNTS.items():
        if service == "prometheus":
            shutil.copy(path, tmp_path / Path(inner).name)
    told = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0 and f"{ALERTS} rules found" in told.stdout, told.stdout + told.stderr
