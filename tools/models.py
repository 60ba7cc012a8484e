"""Check the models in `docs/models` with the tools that are installed, as they are and without each of their guards.

    python -m tools.models                  all that is installed, as a table; exit 1 where a result is not what it shall be
    python -m tools.models queue lease      some of them
    python -m tools.models --quick          a tenth of the simulated runs
    python -m tools.models --trace SEED FILE    a trace of the withdraw race, for `tests/models`

A line of a model with `// guard NAME => TEXT` is replaced by TEXT, one at a time, and the model must fail then. Alloy proves
within its bounds; Quint simulates, so it searches, and proves nothing. `python -m integration.servers install alloy quint` gets
both, by package registries; they need Java 17 and Node.js 18. What is missing is told, and is no result.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from integration.servers import cache, programs

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "docs" / "models"
_GUARD = re.compile(r"^(?P<indent>\s*).*// guard (?P<name>[a-z_]+) =>[ ]?(?P<text>.*)$")
#: Seconds for one run of a tool: what is longer has gone wrong, on a slow machine as well.
BOUND = 1800


class NotInstalled(RuntimeError):
    """A tool is not on this machine; the text says how to get it."""


class Simulated(NamedTuple):
    """A model for Quint: how many runs of how many steps, and what some of them must reach for the rest to mean something."""

    samples: int
    steps: int
    reached: str


QUINT = {
    "withdraw": Simulated(1_000, 40, "ghost"),
    "queue": Simulated(1_000, 40, "handedOver"),
    "ledger": Simulated(1_000, 40, "redelivered"),
}
ALLOY = ("lease",)
NAMES = (*ALLOY, *QUINT)
#: What a guard of the lease is there for: the check that must find a counterexample without it.
_NOTICED = {
    "margin": "OneHolder",
    "drift": "OneHolder",
    "before": "OneHolder",
    "exclusion": "OneHolder",
    "growing": "EffectsNeverGoBack",
    "fence": "EffectsNeverGoBack",
}


class Result(NamedTuple):
    """One row: what was asked of which model, what was found, and whether that is as it shall be."""

    model: str
    asked: str
    found: str
    right: bool
    seconds: float


def guards(text: str) -> dict[str, str]:
    r"""For each guard of a model its text without that guard.

    >>> guards("val a = 1 // guard one => val a = 2\n")
    {'one': 'val a = 2\n'}
    """
    lines = text.splitlines()
    found = {}
    for index, line in enumerate(lines):
        match = _GUARD.match(line)
        if match:
            found[match["name"]] = "\n".join([*lines[:index], match["indent"] + match["text"], *lines[index + 1 :]]) + "\n"
    return found


def check(name: str, samples: float = 1.0) -> Iterator[Result]:
    """The results of one model: as it is, and without each of its guards. `samples`: the share of Quint's runs."""
    path = MODELS / (f"{name}.als" if name in ALLOY else f"{name}.qnt")
    text = path.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        if name in ALLOY:
            yield from _alloy(name, text, Path(folder))
        else:
            yield from _quint(name, text, Path(folder), samples)


def _alloy(name: str, text: str, folder: Path) -> Iterator[Result]:
    for command, expected in re.findall(r"^(?:check|run) (\w+).* expect ([01])$", _one_line(text), re.MULTILINE):
        what = {"0": "no counterexample", "1": "an instance"}
        begun = time.monotonic()
        found = _solve(text, command, folder)
        yield Result(name, command, what[str(int(found))], found == (expected == "1"), time.monotonic() - begun)
    for guard, without in guards(text).items():
        begun = time.monotonic()
        found = _solve(without, _NOTICED[guard], folder)
        says = f"{_NOTICED[guard]} fails" if found else "not noticed"
        yield Result(name, f"without {guard}", says, found, time.monotonic() - begun)


def _one_line(text: str) -> str:
    """Each command on one line, with the bounds behind it."""
    return re.sub(r"\{[^{}]*\} for", "for", text)


def _solve(text: str, command: str, folder: Path) -> bool:
    """Whether Alloy finds an instance of a run, or a counterexample of a check."""
    model, out = folder / "model.als", folder / "out"
    model.write_text(text, encoding="utf-8")
    how = ["exec", "-f", "-q", "-n", "-s", "glucose", "-t", "json"]
    words = [str(java()), "-jar", str(alloy()), *how, "-o", str(out), "-c", command, str(model)]
    done = _run(words)
    receipt = out / "receipt.json"
    if not receipt.exists():
        raise RuntimeError(f"alloy did not solve {command}:\n{done[-2000:]}")
    (said,) = json.loads(receipt.read_text(encoding="utf-8"))["commands"].values()
    return bool(said.get("solution"))


def _quint(name: str, text: str, folder: Path, share: float) -> Iterator[Result]:
    plan = QUINT[name]
    samples = max(50, int(plan.samples * share))
    begun = time.monotonic()
    said = _simulate(text, name, samples, plan.steps, folder, "--witnesses", plan.reached)
    reached = re.search(rf"{plan.reached} was witnessed in (\d+) trace", said)
    holds = "[ok]" in said and reached is not None and int(reached[1]) > 0
    found = f"holds in {samples} runs, {plan.reached} in {reached[1] if reached else 'none'}" if "[ok]" in said else "fails"
    yield Result(name, "safe", found, holds, time.monotonic() - begun)
    for guard, without in guards(text).items():
        begun = time.monotonic()
        said = _simulate(without, name, samples, plan.steps, folder)
        broken = "[violation]" in said
        yield Result(name, f"without {guard}", "fails" if broken else "not noticed", broken, time.monotonic() - begun)


def _simulate(text: str, name: str, samples: int, steps: int, folder: Path, *more: str) -> str:
    model = folder / f"{name}.qnt"
    model.write_text(text, encoding="utf-8")
    bounds = ["--max-samples", str(samples), "--max-steps", str(steps), "--seed", "0x5eed"]
    said = _run(
        [*quint(), "run", str(model), "--backend", "typescript", "--invariant", "safe", "--verbosity", "1", *bounds, *more]
    )
    if "[ok]" not in said and "[violation]" not in said:
        raise RuntimeError(f"quint did not run {name}:\n{said[-2000:]}")
    return said


def trace(seed: str, to: Path, steps: int = 60) -> None:
    """Write one simulated run of the withdraw race."""
    bounds = ["--max-samples", "1", "--max-steps", str(steps), "--seed", seed]
    _run([*quint(), "run", str(MODELS / "withdraw.qnt"), "--backend", "typescript", *bounds, "--out-itf", str(to)])


def _run(command: list[str]) -> str:
    done = subprocess.run(  # noqa: S603  # our own words
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=BOUND
    )
    return done.stdout + done.stderr


def alloy() -> Path:
    """The jar of Alloy."""
    try:
        return next(programs.jars("alloy").glob("*.jar"))
    except programs.NotInstalled as error:
        raise NotInstalled(str(error)) from error


def java() -> Path:
    """The Java virtual machine."""
    try:
        return programs.java()
    except programs.NotInstalled as error:
        raise NotInstalled(str(error)) from error


def quint() -> list[str]:
    """The command of Quint."""
    node = shutil.which("node")
    script = cache.folder("quint") / "node_modules" / "@informalsystems" / "quint" / "dist" / "src" / "cli.js"
    if node is None or not script.exists():
        raise NotInstalled("Quint is not on this machine: python -m integration.servers install quint (needs Node.js 18)")
    return [node, str(script)]


def missing(name: str) -> str | None:
    """Why a model cannot be checked here; None where it can."""
    try:
        alloy() if name in ALLOY else quint()
    except NotInstalled as error:
        return str(error)
    return None


def main(arguments: list[str] | None = None) -> int:
    """Check them, and print a table; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.models", description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="|".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="a tenth of the simulated runs")
    parser.add_argument(
        "--trace", nargs=2, metavar=("SEED", "FILE"), help="write a run of the withdraw race, and check nothing"
    )
    given = parser.parse_args(arguments)
    if given.trace:
        trace(given.trace[0], Path(given.trace[1]))
        return 0
    unknown = [name for name in given.models if name not in NAMES]
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    wrong = False
    for name in given.models or NAMES:
        lack = missing(name)
        if lack is not None:
            print(f"{name:9} not checked: {lack}", flush=True)
            continue
        for row in check(name, 0.1 if given.quick else 1.0):
            wrong |= not row.right
            mark = "" if row.right else "  <-- WRONG"
            print(f"{row.model:9} {row.asked:24} {row.found:46} {row.seconds:6.1f} s{mark}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
