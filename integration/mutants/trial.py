"""One build of a backend under some ids of the kit: as it is, or with a mutant's change.

The build is a copy of the backend's package in front of all others, so that the kit's own child processes have it too. The kit
runs in a process of its own, `python -m integration.mutants.trial`, which prints a line of JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from integration.mutants import SourceMutant, package_of
from integration.servers import ZeroMQServer
from narrowboat.conformance import Harness
from narrowboat.conformance.runner import Outcome, Row, load, run_one
from narrowboat.conformance.scenario import Scenario

#: Seconds for the ids of one build. A broken backend is mostly found by waiting for what does not come.
LIMIT = 900.0
#: Scenarios at a time, of those that may run beside others.
TOGETHER = 4
#: How often a scenario is tried on a machine that stands still.
TURNS = 4


class Verdict(NamedTuple):
    """What the kit saw of one build."""

    broken: dict[str, str]  #: the broken ids, and why
    held: tuple[str, ...]  #: the ids that held
    open: dict[str, str]  #: the ids that proved nothing, and why


def tried(backend: str, url: str, ids: Iterable[str], change: SourceMutant | None = None, *, first: bool = False) -> Verdict:
    """Run `ids` on the sync face against `url`, with the build that has the `change`.

    Args:
        backend: the package's name without `narrowboat_`.
        url: of a server that stays as it is.
        ids: of the catalogue.
        change: None: the backend as it is.
        first: end when one is broken.

    Raises:
        TextGone: the mutant's text is no longer there.
        RuntimeError: the kit itself ended badly.
    """
    with _build(backend, change) as folder:
        path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH"), os.getcwd()])])
        command = [sys.executable, "-m", "integration.mutants.trial", url, "first" if first else "all", *ids]
        set_ = {"NARROWBOAT_STRETCH": "4", **os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, env=set_, capture_output=True, text=True, timeout=LIMIT, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if not lines:
            raise RuntimeError(f"the kit ended with {done.returncode} and no verdict: {done.stderr[-2000:]}")
        told = json.loads(lines[-1])
        if str(folder) not in told["from"]:
            raise RuntimeError(f"the kit has run another build than {folder}: {told['from']}")
        return Verdict(told["broken"], tuple(told["held"]), told["open"])


@contextmanager
def _build(backend: str, change: SourceMutant | None) -> Iterator[Path]:
    package = package_of(backend)
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        copied = Path(name) / package.name
        shutil.copytree(package, copied, ignore=shutil.ignore_patterns("__pycache__"))
        if change is not None:
            change.apply(copied)
        yield Path(name)


def _run(url: str, ids: set[str], *, first: bool) -> list[Row]:
    harness = Harness(url)
    chosen = [scenario for scenario in load() if ids & set(scenario.ids) and scenario.half in harness.halves]
    rows: list[Row] = []
    for jobs, alone in ((TOGETHER, False), (1, True)):
        with ThreadPoolExecutor(jobs, thread_name_prefix="conformance-run") as pool:
            asked = [pool.submit(_exercised, harness, each) for each in chosen if each.alone is alone]
            for future in as_completed(asked):
                rows += future.result()
                if first and rows[-1].outcome is Outcome.BROKEN:
                    pool.shutdown(wait=False, cancel_futures=True)
                    return rows
    return rows


def _exercised(harness: Harness, scenario: Scenario) -> list[Row]:
    """Its rows; where the machine stood still, which proves nothing either way, those of another run."""
    for _ in range(TURNS):
        rows = run_one(harness, scenario, "sync", size=0.2)
        if rows[0].outcome is not Outcome.NOT_EXERCISED or scenario.faults - harness.faults(scenario.half):
            break
    return rows


def main(url: str, how: str, *ids: str) -> None:
    """Print the verdict of the build that is in front."""
    if url == "zmq:":  # the server is of this build as well
        with ZeroMQServer() as server:
            _tell(server.url, ids, first=how == "first")
    else:
        _tell(url, ids, first=how == "first")
    sys.stdout.flush()
    os._exit(0)  # a broken backend may have left threads that never end


def _tell(url: str, ids: Sequence[str], *, first: bool) -> None:
    rows = [row for row in _run(url, set(ids), first=first) if row.id in ids]
    broken = {row.id: f"{row.scenario}: {row.why.strip().splitlines()[-1]}" for row in rows if row.outcome is Outcome.BROKEN}
    nothing = {row.id: row.why for row in rows if row.outcome is Outcome.NOT_EXERCISED and row.id not in broken}
    held = {row.id for row in rows if row.outcome is Outcome.HELD} - set(broken)
    origin = next((str(module.__file__) for name, module in sys.modules.items() if name == _package(url)), "")
    sys.stdout.write("\n" + json.dumps({"broken": broken, "held": sorted(held), "open": nothing, "from": origin}) + "\n")


def _package(url: str) -> str:
    scheme = url.partition("://")[0].partition("+")[0]
    return "narrowboat_" + {"amqp": "rabbitmq", "amqps": "rabbitmq", "zmq": "zeromq"}.get(scheme, scheme)


if __name__ == "__main__":
    main(*sys.argv[1:])
