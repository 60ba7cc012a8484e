"""The command line before it does anything: what it says about mistakes, and about itself."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from cli_program import HANGS, PROGRAM, call

from narrowboat import registry
from narrowboat.cli import run
from narrowboat.cli.app import app


class TestErrors:
    """One line, the right code, no traceback, no secret."""

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (["depth", "nope://h", "q"], 2, "unknown scheme 'nope'"),
            (["depth", "shop.db", "q"], 2, "that is not a URL"),
            (["depth", "sqlite:///x.db?tiemout=1", "q"], 2, "Did you mean 'timeout'?"),
            (["depth", "-", "q"], 2, "NARROWBOAT_BROKER_URL is not set"),
            (["holders", "-"], 2, "NARROWBOAT_LOCKS_URL is not set"),
            (["holders", "sqlite:///x.db", ""], 2, "lock name ''"),
            (["holders", "memory://"], 2, "lives inside one process"),
            (["publish", "memory://", "q"], 2, "lives inside one process"),
            (["lock", "memory://", "a"], 2, "Missing argument"),
            (["lock", "memory://", "a", "ls", "-l"], 2, "write -- before the command"),
            (["lock", "memory://", "a", "--ttl", "nan", "--", "true"], 2, "'nan' is no number of seconds"),
            (["lock", "memory://", "a", "--timeout", "-1", "--", "true"], 2, "no number of seconds from 0"),
            (["lock", "memory://", "a", "--ttl", "6", "--grace", "3", "--", "true"], 2, "at most 2 s, a third of the ttl"),
            (["lock", "memory://", "a", "--shared", "--limit", "2", "--", "true"], 2, "exclude each other"),
            (["lock", "sqlite:///x.db", "a\nb", "--", "true"], 2, "control characters"),
            (["publish", "memory://", "q", "--header", "x"], 2, "write NAME=VALUE"),
            (["publish", "memory://", "q", "/nowhere/at/all"], 2, "does not exist"),
            (["consume", "memory://", "q", "--concurrency", "2"], 2, "belongs to --exec"),
            (["demo", "--locks", "memory://"], 2, "processes of their own"),
            (["demo", "--broker", "memory://"], 2, "--broker: the sale's workers"),
            (["demo", "--workers", "1"], 2, "leaves nobody"),
            (["depth", "sqlite:///nowhere/at/all/x.db", "q"], None, "nowhere"),
            (["publsh", "memory://", "q"], 2, "publsh"),
            (["depth", "q", "redis://shop:hunter2@h/0", "oops"], 2, "unexpected extra argument"),
            (["depth", "redis://shop:hunter2@h:x/0", "q"], 2, ""),
        ],
    )
    def test_one_line_says_what_is_wrong(
        self,
        arguments: list[str],
        code: int | None,
        said: str,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """And the exit code which kind of wrong."""
        monkeypatch.delenv("NARROWBOAT_LOCKS_URL", raising=False)
        monkeypatch.delenv("NARROWBOAT_BROKER_URL", raising=False)
        monkeypatch.setattr(sys, "stdin", sys.__stdin__)

        found = run(arguments)

        text = capsys.readouterr().err
        assert said in text
        assert text.startswith("narrowboat: ")
        assert text.count("\n") == 1
        assert "hunter2" not in text
        assert found == code if code is not None else found not in (0, 70)

    def test_a_traceback_is_there_for_who_asks(self, capsys: pytest.CaptureFixture[str]) -> None:
        """With --debug."""
        assert run(["depth", "--debug", "nope://h", "q"]) == 2
        assert "Traceback" in capsys.readouterr().err

    @pytest.mark.parametrize("blocked", ["click", "rich"])
    def test_without_the_extra_it_says_how_to_get_it(self, blocked: str) -> None:
        """In one line, and the library itself can be imported all the same."""
        script = (
            "import sys\n"
            f"sys.modules[{blocked!r}] = None\n"  # what Python itself takes as: not installed
            "import narrowboat, narrowboat._script\n"
            "sys.exit(narrowboat._script.main())\n"
        )

        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

        assert done.returncode == 2
        assert done.stderr == (
            f"narrowboat: the command line needs {blocked}, which is not installed: "
            "pip install --upgrade '.[cli]' in a clone of Narrowboat (narrowboat[cli] once it is published)\n"
        )

    def test_importing_the_library_imports_no_command_line(self) -> None:
        """Its start-up costs only those who use it."""
        script = "import sys, narrowboat; print({'click', 'rich', 'narrowboat.cli'} & set(sys.modules))"

        assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "set()\n"


class TestGeneral:
    """Version, completion, backends."""

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The installed one."""
        assert run(["--version"]) == 0
        assert capsys.readouterr().out.startswith("narrowboat 0.")

    @pytest.mark.parametrize(
        ("shell", "said"), [("bash", "complete -o"), ("zsh", "#compdef narrowboat"), ("fish", "complete ")]
    )
    def test_completion_scripts(self, shell: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
        """One for each shell."""
        assert run(["completion", shell]) == 0

        text = capsys.readouterr().out
        assert said in text
        assert "_NARROWBOAT_COMPLETE" in text

    def test_completion_completes(self) -> None:
        """What the script asks, the program answers."""
        env = {"_NARROWBOAT_COMPLETE": "bash_complete", "COMP_WORDS": "narrowboat de", "COMP_CWORD": "1"}

        _, out, _ = call(env=env)

        assert {line.partition(",")[2] for line in out.split()} == {"declare", "delete", "depth", "dead", "demo"}

    def test_backends_for_programs(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Both contracts, with claims."""
        assert run(["backends", "--json"]) == 0

        found = json.loads(capsys.readouterr().out)
        assert found["locks"]["sqlite"]["claims"]["fencing"] == "native"
        assert found["brokers"]["memory"]["claims"]["scope"] == "process"
        assert found["locks"]["sqlite"]["state"] == "installed"
        assert found["locks"]["sqlite"]["example"] == "sqlite:///shop.db"
        assert found["locks"]["sqlite"]["note"] == ""

    def test_backends_say_what_else_is_to_be_known_of_a_scheme_here(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the entry object of the backend says of it."""
        noting = dataclasses.replace(registry.broker_backend("memory"), note=lambda scheme: f"{scheme} has a note")
        monkeypatch.setitem(registry._loaded, (registry.BROKERS, "memory"), noting)
        assert run(["backends", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["brokers"]["memory"]["note"] == "memory has a note"
        assert run(["backends"]) == 0
        assert "; memory has a note" in capsys.readouterr().out

    def test_backends_for_people(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A table."""
        assert run(["backends"]) == 0

        text = capsys.readouterr().out
        assert "guarantee" in text
        assert "sqlite" in text


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["backends"], 0),
        (["--version"], 0),
        (["nosuch"], 2),
        (["depth", "{url}", "q"], 1),
        (["publish", "{url}", "q"], 0),
        (["lock", "{url}", "n", "--", "sh", "-c", "exit 3"], 3),
    ],
)
def test_standard_streams_that_are_closed_are_output_that_nobody_wants(arguments: list[str], code: int, tmp_path: Path) -> None:
    """The exit code is the command's, and nothing of what it would print goes into a file that it opens."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    line = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *PROGRAM, *(each.format(url=url) for each in arguments)]
    assert subprocess.run(line, check=False, timeout=HANGS).returncode == code


def test_help_leaves_examples_on_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Click's mark for that is one character, and a raw docstring has two."""
    for command in app.list_commands(click.Context(app)):
        assert run([command, "--help"]) == 0
        assert "\\b" not in capsys.readouterr().out, command
