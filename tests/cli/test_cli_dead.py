"""`narrowboat dead` and `narrowboat depth`: looking takes nothing away, and a redrive sends it back."""

from __future__ import annotations

import json
import re

import pytest

import narrowboat
from narrowboat.cli import run
from narrowboat.messaging import Messaging


@pytest.fixture
def letter(broker: Messaging) -> narrowboat.Queue[bytes]:
    """A queue with one dead letter."""
    queue = broker.queue("q")
    queue.publish(b"a", id="x", key="k", headers={"v": "1"})
    with queue.consume() as messages:
        messages.receive(10).reject("no such item")
    return queue


class TestDead:
    """`narrowboat dead` and `narrowboat depth`."""

    def test_showing_takes_nothing_away(
        self, url: str, letter: narrowboat.Queue[bytes], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """For programs and for people, as often as one likes."""
        assert run(["dead", url, "q", "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert run(["dead", url, "q"]) == 0
        people = capsys.readouterr().out

        assert found == {**found, "id": "x", "reason": "no such item", "attempts": 1, "origin": "q", "headers": {"v": "1"}}
        assert "no such item" in people
        assert letter.depth().dead == 1

    def test_redriving(self, url: str, letter: narrowboat.Queue[bytes], capsys: pytest.CaptureFixture[str]) -> None:
        """Back to where they came from."""
        assert run(["dead", url, "q", "--redrive", "--json"]) == 0

        assert json.loads(capsys.readouterr().out) == {"redriven": 1}
        assert (letter.depth().ready, letter.depth().dead) == (1, 0)

    def test_redriving_one(self, url: str, letter: narrowboat.Queue[bytes], capsys: pytest.CaptureFixture[str]) -> None:
        """By its id; one that is not there is said, and moves nothing else."""
        assert run(["redrive", url, "q", "--id", "nobody", "--json"]) == 1
        caught = capsys.readouterr()
        assert json.loads(caught.out) == {"redriven": 0}
        assert "1 of the ids given are not among the dead letters of 'q'" in caught.err
        assert run(["redrive", url, "q", "--count", "1", "--id", "nobody"]) == 1
        capsys.readouterr()
        assert letter.depth().dead == 1

        assert run(["redrive", url, "q", "--count", "1", "--id", "x", "--id", "nobody"]) == 0
        assert capsys.readouterr().out == "redriven: 1\n"
        assert (letter.depth().ready, letter.depth().dead) == (1, 0)

    def test_showing_one(self, url: str, letter: narrowboat.Queue[bytes], capsys: pytest.CaptureFixture[str]) -> None:
        """With its whole body and the reason; it stays."""
        assert run(["show", url, "q", "x"]) == 0
        shown = capsys.readouterr().out
        assert run(["show", url, "q", "x", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)

        assert "reason: no such item\n" in shown and shown.endswith("\n\na\n")
        assert found == {**found, "id": "x", "body": "a", "reason": "no such item", "headers": {"v": "1"}}
        assert letter.depth().dead == 1
        assert run(["show", url, "q", "y"]) == 1
        assert "no dead letter of 'q' has the id 'y'" in capsys.readouterr().err

    def test_none(self, url: str, broker: Messaging, capsys: pytest.CaptureFixture[str]) -> None:
        """A sentence, or an empty list."""
        broker.queue("q").declare()

        assert run(["dead", url, "q"]) == 0
        assert "no dead letters" in capsys.readouterr().out

    def test_depth(self, url: str, letter: narrowboat.Queue[bytes], capsys: pytest.CaptureFixture[str]) -> None:
        """For programs and for people."""
        letter.publish(b"b", delay=60)

        assert run(["depth", url, "q", "--json"]) == 0
        none = {"ready": 0, "in_flight": 0, "delayed": 1, "dead": 1, "oldest": None}
        assert json.loads(capsys.readouterr().out) == none
        letter.publish(b"c")
        assert run(["depth", url, "q"]) == 0
        shown = capsys.readouterr().out
        assert "in flight" in shown and re.search(r"\d+\.\d s", shown)
        assert run(["depth", url, "q", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["oldest"] > 0
