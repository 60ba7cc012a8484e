"""`narrowboat ping`: both halves, one of them, and what is said and exited with where calls would fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from narrowboat.cli.app import run


def test_both_halves_are_asked(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each, and exit code 0."""
    assert run(["ping", url]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" of ")[0] for line in lines] == ["locks", "broker"]
    assert all("answered after" in line and line.endswith(" ms") for line in lines)


@pytest.mark.parametrize(("flags", "halves"), [(["--locks"], ["locks"]), (["--broker"], ["broker"])])
def test_one_half_may_be_named(url: str, flags: list[str], halves: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON with the seconds that the answer took."""
    assert run(["ping", url, *flags, "--json", "--timeout", "20"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert [each["half"] for each in told] == halves
    assert told[0]["seconds"] > 0 and told[0]["error"] is None and told[0]["url"].startswith("sqlite://")


def test_a_scheme_with_one_half_is_asked_for_that(capsys: pytest.CaptureFixture[str]) -> None:
    """A backend of locks is no broker that does not answer."""
    assert run(["ping", "consul://127.0.0.1:1?timeout=1"]) == 69

    assert capsys.readouterr().err.count("narrowboat:") == 1


def test_a_server_that_is_away_is_unavailable(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 69, once for both halves, and no secret is shown."""
    assert run(["ping", "redis://shop:hunter2@127.0.0.1:1/0", "--timeout", "0.5"]) == 69

    captured = capsys.readouterr()
    assert "127.0.0.1:1" in captured.err and "hunter2" not in captured.err + captured.out


@pytest.mark.parametrize("arguments", [["nonsense://x"], ["not a url"], ["memory://x"], ["sqlite:///x", "--timeout", "0"]])
def test_what_cannot_work_is_a_usage_error(arguments: list[str]) -> None:
    """Exit code 2: trying again would not help."""
    assert run(["ping", *arguments]) == 2


def test_the_file_of_a_folder_that_is_not_there_fails(tmp_path: Path) -> None:
    """As every call would."""
    assert run(["ping", f"sqlite:///{tmp_path}/nowhere/shop.db"]) != 0


def test_the_environment_says_which_halves_there_are(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`-` asks each whose variable is set, and is refused where none is."""
    monkeypatch.delenv("NARROWBOAT_LOCKS_URL", raising=False)
    monkeypatch.delenv("NARROWBOAT_BROKER_URL", raising=False)
    assert run(["ping", "-"]) == 2

    monkeypatch.setenv("NARROWBOAT_BROKER_URL", url)
    assert run(["ping", "-"]) == 0
    assert capsys.readouterr().out.startswith("broker of ")
