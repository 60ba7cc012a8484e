"""What others wrote, on its way through the command line: JSON for any bytes, nothing that moves a terminal, no secrets."""

from __future__ import annotations

import json
import sqlite3
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_program import call
from hypothesis import given
from hypothesis import strategies as st

import narrowboat
from narrowboat.cli import run
from narrowboat.cli.output import redact
from narrowboat.cli.portable import json_text
from narrowboat.cli.records import parse_ndjson, to_line
from narrowboat.contract import Depth
from narrowboat.messaging import Messaging

#: Any text that a driver may give: with controls, with bytes that were no UTF-8, with what turns the direction.
ODD = st.text(st.one_of(st.characters(), st.sampled_from("\x1b\x00\x7f\x85\x9b\u202e\u2028\u2066\udc80\udcff\U0001f600")))
#: Text whose odd parts stand for bytes.
BYTES = st.binary(max_size=20).map(lambda data: data.decode("utf-8", "surrogateescape"))


def message(**fields: Any) -> types.SimpleNamespace:
    """What a delivery shows of itself."""
    plain: dict[str, Any] = {
        "id": "1",
        "body": b"",
        "headers": {},
        "key": None,
        "attempt": 1,
        "priority": 0,
        "published_at": None,
        "correlation_id": None,
        "content_type": None,
    }
    return SimpleNamespace(**{**plain, **fields})


class TestJson:
    """Valid for every parser, printable on every terminal, and as it was for whoever reads it again."""

    @given(
        st.recursive(st.none() | st.floats() | ODD, lambda inner: st.lists(inner) | st.dictionaries(ODD, inner), max_leaves=8)
    )
    def test_any_value_is_strict_json_that_a_terminal_only_shows(self, value: Any) -> None:
        """No bare surrogate, no control character, no NaN."""
        text = json_text({"value": value})

        assert text.isprintable()
        assert isinstance(json.loads(text, parse_constant=pytest.fail), dict)
        json.dumps(json.loads(text), ensure_ascii=False).encode()  # no surrogate came in by an escape

    @given(BYTES, st.dictionaries(BYTES, BYTES, max_size=3), st.binary(max_size=20))
    def test_what_consume_writes_publish_reads_as_it_was(self, text: str, headers: dict[str, str], body: bytes) -> None:
        """Also what is no UTF-8."""
        line = to_line(message(id=text, key=text, headers=headers, body=body, correlation_id=text, content_type=text))
        record = parse_ndjson(line)

        assert line.count(b"\n") == 1
        assert line[:-1].decode().isprintable()
        assert record.body == body
        assert record.options.get("headers", {}) == headers
        assert {record.options[name] for name in ("id", "key", "correlation_id", "content_type")} == {text}

    @pytest.mark.parametrize(
        "line",
        [
            b'{"body": "", "key_base64": "?"}',
            b'{"body": "", "key_base64": 7}',
            b'{"body": "", "delay_base64": "MQ=="}',
            b'{"body": "", "headers_base64": {"a": 7}}',
            b'{"body": "", "headers_base64": "MQ=="}',
        ],
    )
    def test_what_is_no_base64_is_a_bad_line(self, line: bytes) -> None:
        """With the field's name."""
        with pytest.raises(ValueError, match="_base64"):
            parse_ndjson(line)


class TestTerminal:
    """Escapes of others are shown, not obeyed."""

    @pytest.mark.parametrize("odd", ["\x1b[31m", "\x9b31m", "\x7f", "\u202e", "\u2028", "\x85", "\u2066"])
    def test_a_lock_and_a_dead_letter_are_shown_as_they_are_written(
        self, odd: str, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """In tables and in JSON."""
        with narrowboat.locks(url) as locks, locks.lock("n", label="l"), narrowboat.broker(url) as broker:
            queue = broker.queue("q")
            queue.publish(b"x", headers={"h": "v"})
            with queue.consume(idle=1) as messages:
                next(iter(messages)).reject("why")
            with sqlite3.connect(tmp_path / "shop.db") as connection:  # what the library takes from nobody, others can write
                connection.execute("UPDATE lock_holder SET label = ?", (f"l{odd}",))
                connection.execute("UPDATE message SET key = ?, name = ?", (f"k{odd}", f"i{odd}"))
            connection.close()
            for arguments in (["holders", url], ["dead", url, "q"]):
                for json_too in ([], ["--json"]):
                    assert run([*arguments, *json_too]) == 0
                    out = capsys.readouterr().out
                    assert odd not in out
                    assert not json_too or json.loads(out)

    def test_what_verify_prints_is_only_shown(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Its errors quote servers."""
        import narrowboat.conformance

        def verify_command(url: str, *, out: Callable[..., Any], **_: Any) -> int:
            out("L01 sync broken: \x1b[31m\x9b\u202e\n    second line\n")
            return 1

        monkeypatch.setattr(narrowboat.conformance, "verify_command", verify_command)

        assert run(["verify", "memory://"]) == 1
        assert capsys.readouterr().out == "L01 sync broken: \\x1b[31m\\x9b\\u202e\n    second line\n"


class TestExec:
    """One message, whatever is in it, costs its own attempts and nothing else."""

    def test_a_header_that_no_environment_can_hold_stops_nobody(self, url: str, broker: Messaging, tmp_path: Path) -> None:
        """Half of a surrogate pair, written by another program: its command runs too, and so do all others."""
        queue = broker.queue("q")
        queue.publish(b"odd", headers={"a": "b"}, key="k")
        for number in range(3):
            queue.publish(b"good%d" % number)
        with sqlite3.connect(tmp_path / "shop.db") as connection:
            connection.execute(
                """UPDATE message SET headers = '{"a":"\\ud800"}', details = '["\\ud800","\\ud800",null]' WHERE id = 1"""
            )
        connection.close()

        code, out, err = call("consume", url, "q", "--exec", "cat; echo", "--count", "4")

        assert (code, err) == (0, "")
        assert sorted(out.split()) == ["good0", "good1", "good2", "odd"]
        assert queue.depth() == Depth(0, 0, 0, 0)

    def test_what_keeps_a_command_from_running_gives_the_message_back(
        self, url: str, broker: Messaging, tmp_path: Path
    ) -> None:
        """A variable of 300 kB is more than the system takes: said, and a dead letter after its attempts."""
        queue = broker.queue("q", max_deliveries=1)
        queue.declare()
        queue.publish(b"big", headers={"a": "b"})
        with sqlite3.connect(tmp_path / "shop.db") as connection:
            connection.execute("UPDATE message SET headers = ?", (json.dumps({"a": "x" * 300_000}),))
        connection.close()
        queue.publish(b"good")
        code, out, err = call("consume", url, "q", "--exec", "cat", "--idle", "2")

        assert (code, out) == (0, "good")
        assert "could not be run: Argument list too long" in err
        assert queue.depth() == Depth(0, 0, 0, 1)

    def test_an_empty_command_is_refused(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        """It would acknowledge everything."""
        for empty in ("", "  "):
            assert run(["consume", url, "q", "--exec", empty]) == 2
            assert "--exec is empty" in capsys.readouterr().err


class TestSecrets:
    """A URL may hold a password: where it goes, and where it does not."""

    SHOW = "env | grep -c '^NARROWBOAT_.*_URL=' || true"

    @pytest.mark.parametrize(("option", "seen"), [((), "0"), (("--keep-urls",), "2")])
    def test_a_command_sees_the_urls_only_if_it_is_to_see_them(
        self, option: tuple[str, ...], seen: str, url: str, broker: Messaging
    ) -> None:
        """Under a lock, and for a message."""
        broker.queue("q").publish(b"")
        env = {"NARROWBOAT_LOCKS_URL": url, "NARROWBOAT_BROKER_URL": url}

        locked = call("lock", *option, "-", "n", "--", "sh", "-c", self.SHOW, env=env)
        handled = call("consume", *option, "-", "q", "--exec", self.SHOW, "--count", "1", env=env)

        assert (locked[1].strip(), handled[1].strip()) == (seen, seen)

    @pytest.mark.parametrize(
        "url",
        [
            "redis://:hunter2@h:1/0",
            "redis://:hunter2/x@h/0",
            "redis://:hunter2@x@h/0",
            "redis://:hun'ter2=@h/0",
            "redis:/:hunter2@h/0",
            ":hunter2@h/0",
            "redis://h/0?password=hunter2",
            "redis://h/0?my_token=hunter2&x=1",
        ],
    )
    @pytest.mark.parametrize(
        "command", [["depth", "sqlite:///x.db", "q"], ["lock", "n"], ["publish"], ["verify", "x://", "--only"]]
    )
    def test_a_misplaced_url_shows_no_password(self, url: str, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """Not even with --debug."""
        run([*command, url, "--debug"])
        said = capsys.readouterr()

        assert "ter2" not in said.out + said.err
        assert "ter2" not in redact(f"what {url} is")

    @pytest.mark.parametrize("command", [["verify", "-"], ["demo", "--locks", "-"], ["demo", "--broker", "-"]])
    def test_a_url_may_come_from_the_environment_everywhere(
        self, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It names a backend that this command refuses, and without the variable it says so."""
        for name in ("NARROWBOAT_LOCKS_URL", "NARROWBOAT_BROKER_URL"):
            monkeypatch.delenv(name, raising=False)
        assert run(command) == 2
        assert "is not set" in (err := capsys.readouterr().err) or "are not set" in err
        for name in ("NARROWBOAT_LOCKS_URL", "NARROWBOAT_BROKER_URL"):
            monkeypatch.setenv(name, "nope://h")
        assert run(command) == 2
        assert "nope" in capsys.readouterr().err

    def test_verify_does_not_choose_between_two_backends(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """One report is about one backend."""
        monkeypatch.setenv("NARROWBOAT_LOCKS_URL", "memory://a")
        monkeypatch.setenv("NARROWBOAT_BROKER_URL", "memory://b")

        assert run(["verify", "-"]) == 2
        assert "unset one of them" in capsys.readouterr().err


class TestMistakes:
    """What is typed wrong is told with what was meant."""

    def test_nothing_at_all_shows_the_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        """As it is, in its lines."""
        assert run([]) == 2
        assert "Commands:\n  lock " in capsys.readouterr().out

    def test_a_command_that_is_none_is_told_with_the_nearest(self, capsys: pytest.CaptureFixture[str]) -> None:
        """In one line."""
        assert run(["lok"]) == 2
        assert "Did you mean 'lock'?" in capsys.readouterr().err

    def test_choices_stand_in_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Without the escapes of line breaks."""
        assert run(["completion"]) == 2
        assert "Choose from: bash, zsh, fish" in capsys.readouterr().err

    def test_a_queue_that_is_not_there_is_not_an_empty_one(
        self, url: str, broker: Messaging, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """An alert on the depth of a mistyped name could never fire."""
        broker.queue("orders").publish(b"")
        with broker.queue("orders").consume(idle=1) as messages:
            next(iter(messages)).ack()

        assert run(["depth", url, "orders", "--json"]) == 0
        assert capsys.readouterr().out == '{"ready": 0, "in_flight": 0, "delayed": 0, "dead": 0, "oldest": null}\n'
        assert run(["depth", url, "ordrs", "--json"]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert "there is no queue 'ordrs'" in said.err
