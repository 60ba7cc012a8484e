"""The kit as others run it, in processes of their own: with pytest, in their own tests, with `narrowboat verify`.

A small distribution beside it registers two backends by entry points, as a third party's would: `sound` works and claims one
thing less than memory, `leaky` answers that a lock is released and keeps it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent  #: where the mutants are

BACKENDS = '''
"""Locks in memory under other names: one that works and one that does not."""
import dataclasses

import narrowboat_memory
from narrowboat.capabilities import Support
from mutants.locks import ReleaseDoesNothing

memory = narrowboat_memory.locks


def without_evict(url, options):
    return dataclasses.replace(memory.capabilities(url, options), evict=Support.ABSENT)


sound = dataclasses.replace(memory, scheme="sound", capabilities=without_evict)
leaky = dataclasses.replace(
    memory, scheme="leaky", open=lambda url, options, context: ReleaseDoesNothing(memory.open(url, options, context))
)
'''

THREE_LINES = """
from narrowboat.conformance import Harness, suite

test_conformance = suite(Harness("{url}"), only={only})
"""


#: Answers several command lines in one process: an interpreter with pytest or with the kit takes seconds to start.
ANSWERS = """
import contextlib, io, json, sys
import pytest
from narrowboat.cli import run
for program, *arguments in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = {"pytest": pytest.main, "narrowboat": run}[program](arguments)
    print(json.dumps([int(code), said.getvalue()]))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the backends and what an installer writes beside them."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "otherboat.py").write_text(BACKENDS)
    info = folder / "otherboat-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: otherboat\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[narrowboat.locks]\nsound = otherboat:sound\nleaky = otherboat:leaky\n")
    return folder


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(TESTS)]), "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def answers(folder: Path, *lines: tuple[str, ...]) -> dict[tuple[str, ...], tuple[int, str]]:
    """The exit code and all that was said, for each command line that begins with `pytest` or `narrowboat`."""
    (folder / "answers.py").write_text(ANSWERS)
    done = run(folder, "answers", json.dumps(lines))
    assert done.returncode == 0, said(done)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {line: (code, text) for line, (code, text) in zip(lines, found, strict=True)}


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "pytest", "-p", "no:cacheprovider", "-q", *arguments)


def run_kit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Without Hypothesis, whose plugin imports it at the end of each run: a third of the time of a short one.
    return run_pytest(folder, "-p", "no:hypothesispytest", "--pyargs", "narrowboat.conformance", *arguments)


def said(done: subprocess.CompletedProcess[str]) -> str:
    return f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"


# -- pytest --pyargs ------------------------------------------------------------------------------------------------


def test_pytest_runs_the_kit_on_both_faces_and_writes_the_reports(project: Path, tmp_path: Path) -> None:
    json_path, html_path = tmp_path / "run.json", tmp_path / "run.html"
    reports = ("--report-json", str(json_path), "--report-html", str(html_path))

    done = run_kit(project, "--url", "memory://", "--only", "L01", "--only", "B01,B45", *reports)

    assert done.returncode == 0, said(done)
    assert " held, 2 not offered" in done.stdout
    rows = {(row["id"], row["face"]): row["outcome"] for row in json.loads(json_path.read_text())["rows"]}
    for id, outcome in (("L01", "held"), ("B01", "held"), ("B45", "not offered")):
        assert {rows[id, "sync"], rows[id, "asyncio"]} == {outcome}
    assert "<html" in html_path.read_text()


def test_pytest_fails_on_a_broken_backend_and_says_which_rule(project: Path) -> None:
    done = run_kit(project, "--url", "leaky://", "--only", "L01,L02", "--face", "sync")

    assert done.returncode == 1, said(done)
    assert "L01 on the sync face: A free lock is granted" in done.stdout
    assert "1 broken, 2 not exercised" in done.stdout, "nothing else is tried where the first plain acquire does not work"


def test_pytest_names_each_rule_that_is_broken(project: Path) -> None:
    """Rules of no time: one of a short lease is not exercised on a machine that stands still."""
    done = run_kit(project, "--url", "leaky://", "--only", "L02,L09", "--face", "sync")

    assert done.returncode == 1, said(done)
    assert "L02 on the sync face: A try of a held lock" in done.stdout
    assert "L08, L09 on the sync face: A second release does nothing" in done.stdout
    assert "3 broken" in done.stdout


def test_what_a_backend_does_not_claim_is_refused(project: Path) -> None:
    done = run_kit(project, "--url", "sound://", "--only", "L11,L16")

    assert done.returncode == 0, said(done)
    assert "4 refused" in done.stdout


def test_pytest_is_not_green_when_something_owed_was_left_out(project: Path) -> None:
    """Chosen with pytest's own -k, the rest is still owed; chosen with --only and --face, it is not."""
    done = run_kit(project, "--url", "memory://", "--only", "L01,L04", "-k", "L01")

    assert done.returncode == 1, said(done)
    assert "owed, and not executed: L04 sync, L04 asyncio" in done.stdout


KIT = ("pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-q", "--pyargs", "narrowboat.conformance")
#: Command lines that cannot work, and what is said of each.
SENSELESS = {
    KIT: "give --url",
    (*KIT, "--url", "memry://"): "memory",
    (*KIT, "--url", "memory://", "--only", "L999"): "unknown id or scenario L999",
    (*KIT, "--url", "memory://?colour=red"): "colour",
    ("narrowboat", "verify", "soud://"): "sound",
    ("narrowboat", "verify", "memory://", "--only", "L999"): "L999",
    ("narrowboat", "verify", "memory://", "--tier", "Q"): "unknown tier Q",
    ("narrowboat", "verify", "memory://", "--face", "trio"): "trio",
    ("narrowboat", "verify", "memory://", "--size", "0"): "size",
}


@pytest.fixture(scope="module")
def refusals(project: Path) -> dict[tuple[str, ...], tuple[int, str]]:
    """What is answered to each of them."""
    return answers(project, *SENSELESS)


@pytest.mark.parametrize("line", SENSELESS, ids=" ".join)
def test_options_that_make_no_sense_run_nothing_and_say_why(
    refusals: dict[tuple[str, ...], tuple[int, str]], line: tuple[str, ...]
) -> None:
    code, text = refusals[line]

    assert code == (pytest.ExitCode.USAGE_ERROR if line[0] == "pytest" else 2), text
    assert SENSELESS[line] in text
    assert "passed" not in text
    assert "Traceback" not in text


def test_a_process_ends_with_the_exit_code_of_a_refusal(project: Path) -> None:
    """As pytest does, so does `narrowboat verify`."""
    done = run(project, "narrowboat", "verify", "soud://")

    assert done.returncode == 2, said(done)
    assert "sound" in done.stderr


# -- in other people's tests ----------------------------------------------------------------------------------------


def test_three_lines_in_their_own_tests_are_enough(project: Path, tmp_path: Path) -> None:
    for scheme in ("sound", "leaky"):
        text = THREE_LINES.format(url=f"{scheme}://", only=["L01", "L02", "L16"])
        (tmp_path / f"test_{scheme}.py").write_text(text)

    sound = run_pytest(project, str(tmp_path / "test_sound.py"))
    leaky = run_pytest(project, str(tmp_path / "test_leaky.py"), "-k", "L01 and not asyncio")

    assert sound.returncode == 0, said(sound)
    assert "8 passed" in sound.stdout
    assert leaky.returncode == 1, said(leaky)
    assert "L01 on the sync face" in leaky.stdout
    assert "1 failed" in leaky.stdout


def test_a_projects_own_options_do_not_clash(project: Path, tmp_path: Path) -> None:
    """Its conftest has a --url, an --only and a --size of its own, and never hears of the kit's."""
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser):\n"
        "    for name in ('--url', '--only', '--size', '--tier', '--face', '--report-json'):\n"
        "        parser.addoption(name, default='mine')\n"
    )
    (tmp_path / "test_mine.py").write_text(
        "def test_mine(request):\n"
        "    assert request.config.getoption('--url') == 'http://theirs'\n"
        "    assert request.config.getoption('--only') == 'mine'\n"
    )

    done = run_pytest(project, str(tmp_path), "--url", "http://theirs")

    assert done.returncode == 0, said(done)
    assert "1 passed" in done.stdout


def test_pytest_alone_loads_nothing_of_ours_but_one_module(project: Path, tmp_path: Path) -> None:
    (tmp_path / "test_modules.py").write_text(
        "import sys\n"
        "def test_modules():\n"
        "    ours = {name for name in sys.modules if name.partition('.')[0].startswith('narrowboat')}\n"
        "    assert ours == {'narrowboat_pytest'}\n"
    )

    done = run_pytest(project, str(tmp_path))

    assert done.returncode == 0, said(done)


# -- narrowboat verify ----------------------------------------------------------------------------------------------


def test_verify_exits_with_0_when_all_held_and_writes_the_reports(project: Path, tmp_path: Path) -> None:
    json_path, html_path = tmp_path / "run.json", tmp_path / "run.html"

    done = run(
        project, "narrowboat", "verify", "sound://", "--only", "L01,L16", "--json", str(json_path), "--html", str(html_path)
    )

    assert done.returncode == 0, said(done)
    assert "sound://: 2 held, 2 refused in" in done.stdout
    data = json.loads(json_path.read_text())
    assert data["counts"] == {"held": 2, "refused": 2, "broken": 0, "not exercised": 0, "not offered": 0}
    assert "<html" in html_path.read_text()


def test_verify_exits_with_1_when_something_is_broken_and_names_it(project: Path, tmp_path: Path) -> None:
    json_path = tmp_path / "run.json"

    done = run(project, "narrowboat", "verify", "leaky://", "--only", "L01", "--json", str(json_path))

    assert done.returncode == 1, said(done)
    assert "L01 sync broken: acquire free lock gives a handle" in done.stdout
    assert "L01 asyncio broken" in done.stdout
    assert json.loads(json_path.read_text())["counts"]["broken"] == 2
