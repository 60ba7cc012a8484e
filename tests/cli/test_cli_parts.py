"""The command line's decisions: deadlines, records, lines, exit codes, and what may reach a terminal."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrowboat.cli import run
from narrowboat.cli.deadline import Order, decide, longest_grace, moment
from narrowboat.cli.exits import Exit, code_of, code_of_status
from narrowboat.cli.lines import LineTooLong, batches
from narrowboat.cli.output import printable, redact
from narrowboat.cli.records import BadLine, Record, parse_ndjson
from narrowboat.errors import (
    AccessDenied,
    ConfigurationError,
    Conflict,
    LeaseLost,
    LockTimeout,
    NarrowboatError,
    PublishUnknown,
    Reason,
    Unavailable,
    Unsupported,
)


class TestDeadline:
    """When the command is told to end, and when it is killed."""

    @given(st.floats(0.05, 1e5), st.floats(0, 1), st.floats(0, 1))
    def test_a_renewed_lease_is_left_alone(self, ttl: float, part: float, spent: float) -> None:
        """Whatever grace is allowed, a lease of which no more than its renewal's third is spent gives no order."""
        grace = longest_grace(ttl) * part

        step = decide(expires_in=ttl * (0.98 - spent / 3), revoked=False, told_since=None, grace=grace, ttl=ttl)

        assert step.order is Order.WAIT

    @given(st.floats(0.05, 1e5), st.floats(0, 1), st.floats(-0.5, 1))
    def test_the_command_has_its_grace_before_the_lease_ends(self, ttl: float, part: float, left: float) -> None:
        """Asked again whenever it says, it gives SIGTERM with the grace time left, and SIGKILL before the end."""
        grace, expires_in = longest_grace(ttl) * part, ttl * left

        step = decide(expires_in=expires_in, revoked=False, told_since=None, grace=grace, ttl=ttl)

        if step.order is Order.WAIT:
            assert expires_in - step.seconds >= (grace + moment(ttl)) * (1 - 1e-9)
        else:
            assert (step.order is Order.KILL) == (expires_in <= moment(ttl))

    @given(st.floats(0.05, 100), st.floats(0, 1), st.floats(0, 200), st.floats(0, 100))
    def test_a_command_that_was_told_is_killed_in_time(
        self, ttl: float, part: float, told_since: float, expires_in: float
    ) -> None:
        """When its grace is over or the lease is about to be, whichever comes first; a late renewal spares nobody."""
        grace = longest_grace(ttl) * part

        step = decide(expires_in=expires_in, revoked=False, told_since=told_since, grace=grace, ttl=ttl)

        due = told_since >= grace or expires_in <= moment(ttl)
        assert step.order is (Order.KILL if due else Order.WAIT)
        assert step.seconds <= max(0.0, min(grace - told_since, expires_in - moment(ttl)))

    def test_a_lock_that_was_taken_away_leaves_the_grace_time(self) -> None:
        """There is no deadline left to keep: SIGTERM at once, SIGKILL after the grace time."""
        tell = decide(expires_in=0, revoked=True, told_since=None, grace=5, ttl=30)
        wait = decide(expires_in=0, revoked=True, told_since=2, grace=5, ttl=30)
        kill = decide(expires_in=0, revoked=True, told_since=5, grace=5, ttl=30)

        assert (tell.order, wait.order, wait.seconds, kill.order) == (Order.TERMINATE, Order.WAIT, 3, Order.KILL)


class TestRecords:
    """One line of NDJSON."""

    def test_every_field(self) -> None:
        """What the line says is what is published."""
        fields = {
            "key": "k",
            "headers": {"v": "1"},
            "delay": 1.5,
            "priority": 3,
            "ttl": 60,
            "id": "x",
            "correlation_id": "c",
            "content_type": "t",
        }

        assert parse_ndjson(json.dumps({"body": "hé", **fields}).encode()) == Record("hé".encode(), fields)

    @given(st.binary())
    def test_any_body_travels(self, body: bytes) -> None:
        """As base64."""
        line = json.dumps({"body_base64": base64.b64encode(body).decode()}).encode()

        assert parse_ndjson(line) == Record(body, {})

    @pytest.mark.parametrize("line", [b"", b"\n", b"  \r\n"])
    def test_a_blank_line_is_no_message(self, line: bytes) -> None:
        """And no error."""
        assert parse_ndjson(line) is None

    def test_null_is_as_if_it_were_not_there(self) -> None:
        """Programs write it for what they do not have."""
        assert parse_ndjson(b'{"body": "a", "key": null}') == Record(b"a", {})

    @pytest.mark.parametrize(
        ("line", "why"),
        [
            (b"hello", "no JSON: Expecting value at column 1"),
            (b'{"body": "a"', "no JSON"),
            (b'["a"]', "expected an object such as {'body': 'text'}, got a list"),
            (b"{}", "needs one of 'body' and 'body_base64'"),
            (b'{"body": "a", "body_base64": "YQ=="}', "not both"),
            (b'{"body": 1}', "body: expected text, got a number"),
            (b'{"body": null}', "body: expected text, got null"),
            (b'{"body_base64": "*"}', "body_base64: "),
            (b'{"body": "\\ud800"}', "surrogate"),
            (b'{"body": "a", "kee": "k"}', "unknown field 'kee'. Did you mean 'key'?"),
            (b'{"body": "a", "key": 1}', "key: expected text, got a number"),
            (b'{"body": "a", "delay": "1"}', "delay: expected a number, got text"),
            (b'{"body": "a", "delay": true}', "delay: expected a number, got true or false"),
            (b'{"body": "a", "delay": NaN}', "NaN is no JSON"),
            (b'{"body": "a", "priority": 1.5}', "priority: expected a whole number"),
            (b'{"body": "a", "headers": []}', "headers: expected an object of texts, got a list"),
            (b'{"body": "a", "headers": {"v": 1}}', "headers: 'v': expected text, got a number"),
            (b"\xff\xfe", "UTF-8"),
            (b"[" * 100_000, "nested too deeply"),
            (b'{"body": "a", "delay": ' + b"1" * 5000 + b"}", "no JSON"),
        ],
    )
    def test_what_is_wrong_is_said(self, line: bytes, why: str) -> None:
        """In the words of the line, not of a parser."""
        with pytest.raises(BadLine) as error:
            parse_ndjson(line)

        assert why in str(error.value)


class TestLines:
    """Lines in batches."""

    @given(st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"x", b"\n").replace(b"y", b"\r\n"))), st.integers(1, 4))
    def test_nothing_is_lost_and_nothing_is_cut(self, chunks: list[bytes], size: int) -> None:
        """However the bytes come, the lines are the same."""
        parts = iter([*filter(None, chunks), b""])

        found = list(batches(lambda n: next(parts), size))

        data = b"".join(chunks)
        lines = [line for batch in found for line in batch]
        assert b"".join(lines) == data
        assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in lines[:-1])
        assert all(1 <= len(batch) <= size for batch in found)

    def test_a_line_goes_on_as_soon_as_it_is_there(self) -> None:
        """Whoever writes slowly is not kept waiting for a full batch."""
        parts = iter([b"a\n", b"b"])
        reader = batches(lambda n: next(parts), 100)

        assert next(reader) == [b"a\n"]

    def test_a_line_without_an_end_does_not_fill_the_memory(self) -> None:
        """It is refused."""
        with pytest.raises(LineTooLong):
            list(batches(lambda n: b"a" * n, 1, chunk=10, line_max=100))


class TestExits:
    """Which error gives which exit code."""

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (ConfigurationError(""), 2),
            (Conflict(""), 2),
            (Unsupported(""), 2),
            (Unavailable(""), 69),
            (LockTimeout("", name="a"), 75),
            (AccessDenied(""), 77),
            (LeaseLost("", name="a", reason=Reason.TAKEN), 79),
            (PublishUnknown(""), 1),
        ],
    )
    def test_errors_of_the_library(self, error: NarrowboatError, code: int) -> None:
        """What a script can act on is told apart."""
        assert code_of(error) == code

    @pytest.mark.parametrize("code", [0, 1, 2, 77, 255])
    def test_a_command_s_own_code(self, code: int) -> None:
        """Goes through."""
        assert code_of_status(code << 8) == code

    def test_a_command_that_a_signal_ended(self) -> None:
        """128 and its number, also with a core dump."""
        assert (code_of_status(9), code_of_status(6 | 0x80)) == (137, 134)

    def test_all_codes_are_in_the_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Nobody has to look for them in the source."""
        assert run(["--help"]) == 0

        text = " ".join(capsys.readouterr().out.split())
        missing = [code for code in Exit if code not in {126, 127, 128} and f"{code.value} " not in text]
        assert missing == []


class TestOutput:
    """What reaches a terminal."""

    @given(st.text())
    def test_nothing_moves_the_cursor(self, text: str) -> None:
        """Whatever a lock's name or a header holds."""
        assert printable(text).isprintable()

    @pytest.mark.parametrize(
        "text", ["redis://u:hunter2@h/0", "x 'amqp://hunter2@h' y", "a://h/?password=hunter2&b=1", "a://u:p@hunter2@h"]
    )
    def test_credentials_are_taken_out(self, text: str) -> None:
        """Of whatever a usage error repeats."""
        assert "hunter2" not in redact(text)
