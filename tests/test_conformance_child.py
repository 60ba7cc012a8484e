"""The kit's child processes: what they are given, who can see it, and that a fork is as a process that was started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from child_programs import HERE, echo, ends_well, exit_of, exits, looks, spoken, tells_variable, waits

from narrowboat.conformance.users.children import Child
from narrowboat.conformance.watch import watch

# -- the link -----------------------------------------------------------------------------------------------------


def test_a_childs_arguments_are_not_on_its_command_line() -> None:
    """Every user of the machine can read that, and a URL has a password. What is said later comes in order behind them."""

    async def talk(child: Child) -> Any:
        child.tell("go", value="x")
        got = await child.event("got")
        with open(f"/proc/{child.pid}/cmdline", "rb") as file:
            line = file.read()
        return got, await child.event("told"), line, await child.exit()

    got, told, line, code = spoken(talk, echo, url="redis://:hunter2@h/0", number=7)

    assert (got["url"], got["number"], told["value"], code) == ("redis://:hunter2@h/0", 7, "x", 0)
    assert b"narrowboat.conformance.users.child" in line
    assert b"hunter2" not in line


# -- a fork is as a process that was started ------------------------------------------------------------------------


@pytest.mark.parametrize("early", [{}, {"PYTHONUNBUFFERED": "1"}, {"PYTHONIOENCODING": "latin-1:replace"}], ids=str)
def test_a_child_finds_what_a_started_process_finds(early: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams, signals, arguments, paths, variables, descriptors, threads."""
    for name, value in early.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "narrowboat.conformance.users.child", f"{looks.__module__}:looks"]
    with subprocess.Popen(
        command, env={**os.environ, **HERE}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        started.stdin.write(b"{}\n")
        started.stdin.flush()
        wanted = json.loads(started.stdout.readline())

    async def talk(sibling: Child) -> dict[str, Any]:
        await sibling.event("waiting")  # none of its descriptors is the other's
        child = await Child.start(looks, {}, watch(), HERE)
        try:
            return await child.event("seen")
        finally:
            await child.close()

    seen = spoken(talk, waits)

    assert seen["groups"] == wanted["groups"]
    assert {**seen, "at": 0} == {**wanted, "at": 0}


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_an_exit_code_is_told(code: int) -> None:
    assert spoken(exit_of, exits, code=code) == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGABRT])
def test_the_signal_that_ended_it_is_told(number: signal.Signals) -> None:
    """As a negative exit code. SIGINT is Python's KeyboardInterrupt, which ends the process by that signal."""

    async def talk(child: Child) -> int:
        await child.event("waiting")
        child._signal(number)
        return await child.exit()

    assert spoken(talk, waits) == -number


def test_a_stopped_child_stands_and_goes_on() -> None:
    async def talk(child: Child) -> int:
        await child.event("waiting")
        child.stop()
        with open(f"/proc/{child.pid}/stat", encoding="ascii") as stat:
            assert stat.read().rpartition(")")[2].split()[0] == "T"
        child.resume()
        child.tell("go")
        return await child.exit()

    assert spoken(talk, waits) == 0


def test_a_child_ends_as_python_ends() -> None:
    """Its atexit handlers run, its streams are flushed, and the interpreter is finalised; once."""

    async def talk(child: Child) -> int:
        code = await child.exit()
        await child.close()
        assert sorted(child.errors.decode().replace("no newline", "no newline\n").split("\n")) == [
            *("", "atexit", "finalised", "no newline", "printed"),
        ]
        return code

    assert spoken(talk, ends_well) == 0


def test_nothing_signals_a_child_that_has_ended() -> None:
    """Its process id stays its own until the runner knows the end. Then a signal is sent nowhere."""

    async def talk(child: Child) -> int:
        await child.event("waiting")
        with open(f"/proc/{child.pid}/stat", encoding="ascii") as stat:
            os.kill(child.pid, signal.SIGKILL)
            while stat.read().rpartition(")")[2].split()[0] != "Z":  # this loop stands: the runner cannot know yet
                stat.seek(0)
        child.stop()
        child.kill()
        code = await child.exit()
        child.kill()
        return code

    assert spoken(talk, waits) == -signal.SIGKILL


def test_variables_and_the_directory_are_those_of_the_moment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The runner's, changed behind its first child."""
    for value in ("first", "secönd"):
        folder = tmp_path / value
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("KIT_TRIES", value)
        told = spoken(lambda child: child.event("variable"), tells_variable, name="KIT_TRIES")
        assert told["own"] == told["inner"] == f"{value} {folder}"
