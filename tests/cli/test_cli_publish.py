"""`narrowboat publish`: lines, records and files become messages, and what is wrong is said with its place."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cli_program import call, command, finish

from narrowboat.cli import run
from narrowboat.messaging import Messaging


class TestPublish:
    """`narrowboat publish`."""

    def test_lines_become_messages(self, url: str, broker: Messaging) -> None:
        """Byte for byte, without their ends; an empty line is an empty message."""
        code, out, _ = call("publish", url, "q", "--key", "k", "--header", "v=1", text="a\n\nb\r\nc")

        assert (code, out) == (0, "published 4\n")
        with broker.queue("q").consume(idle=0) as messages:
            assert [(m.body, m.key, dict(m.headers)) for m in messages] == [
                (body, "k", {"v": "1"}) for body in (b"a", b"", b"b\r", b"c")
            ]

    def test_ndjson_beats_the_options(self, url: str, broker: Messaging, tmp_path: Path) -> None:
        """Line by line, from a file."""
        (tmp_path / "in").write_bytes(b'{"body": "a"}\n\n{"body_base64": "/w==", "key": "mine", "id": "x"}\n')

        assert run(["publish", url, "q", str(tmp_path / "in"), "--ndjson", "--key", "all"]) == 0

        with broker.queue("q").consume(idle=0) as messages:
            found = [(m.body, m.key) for m in messages]
        assert found == [(b"a", "all"), (b"\xff", "mine")]

    def test_a_whole_file_is_one_message(self, url: str, broker: Messaging, tmp_path: Path) -> None:
        """With its lines."""
        (tmp_path / "in").write_bytes(b"a\nb\n")

        assert run(["publish", url, "q", str(tmp_path / "in"), "--whole", "--id", "x"]) == 0

        assert broker.queue("q").depth().ready == 1

    def test_the_same_id_twice_is_a_duplicate(self, url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """Counted, and no failure."""
        (tmp_path / "in").write_bytes(b"a")
        arguments = ["publish", url, "q", str(tmp_path / "in"), "--id", "x", "--json"]

        assert (run(arguments), run(arguments)) == (0, 0)

        *_, last = capsys.readouterr().out.splitlines()
        assert json.loads(last) == {"published": 0, "failed": 0, "unknown": 0, "duplicates": 1}

    def test_a_malformed_line_stops_its_batch(self, url: str, broker: Messaging) -> None:
        """All before that batch was published; the line's number is told, and so is what was published."""
        text = '{"body": "a"}\n{"body": "b"}\n{"body": "c"}\nnonsense\n'

        code, out, err = call("publish", url, "q", "--ndjson", "--batch", "2", "--json", text=text)

        assert code == 65
        assert json.loads(out)["published"] == 2
        assert "line 4: it is no JSON" in err
        assert "nothing from line 3 on was published" in err
        assert broker.queue("q").depth().ready == 2

    def test_an_argument_out_of_range_names_its_line(self, url: str, broker: Messaging) -> None:
        """Whoever checks it: the library does."""
        code, _, err = call("publish", url, "q", "--ndjson", text='{"body": "a"}\n\n{"body": "b", "delay": -1}\n')

        assert code == 65
        assert "line 3: " in err
        assert "delay" in err
        assert broker.queue("q").depth().ready == 0

    def test_one_id_is_for_one_message(self, url: str) -> None:
        """A second one would silently be dropped."""
        code, _, err = call("publish", url, "q", "--id", "x", text="a\nb\n")

        assert code == 65
        assert "line 2: --id names one message" in err

    def test_to_a_topic(self, url: str, broker: Messaging) -> None:
        """Every group gets it."""
        prices = broker.topic("prices").subscription("g")
        prices.declare()

        assert call("publish", url, "prices", "--topic", text="7\n")[0] == 0

        assert prices.depth().ready == 1

    def test_a_slow_writer_is_not_kept_waiting(self, url: str, broker: Messaging) -> None:
        """What is on the pipe is published, although the input has not ended."""
        process = command("publish", url, "q", stdin=subprocess.PIPE)
        process.stdin.write("a\n")
        process.stdin.flush()

        with broker.queue("q").consume() as messages:
            message = messages.receive(timeout=10)
        assert message is not None
        assert message.body == b"a"
        assert finish(process)[0] == 0
