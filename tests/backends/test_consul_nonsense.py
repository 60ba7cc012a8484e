"""Consul: whatever answers at the address, a call ends with a typed error, in time, with little memory."""

from __future__ import annotations

import base64
import html
import json
import socket
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

import narrowboat
import nonsense
from bounds import upper
from narrowboat.locking import Locks

URL = f"consul://127.0.0.1:{{port}}?timeout={nonsense.TIMEOUT}"

OK = b"HTTP/1.1 200 OK\r\n"
DONE = b'{"Results":[{"KV":{"Key":"k","ModifyIndex":1}}],"Errors":null}'


def reply(body: bytes, status: bytes = b"200 OK") -> bytes:
    """One in HTTP."""
    return b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def says(body: bytes, status: bytes = b"200 OK") -> nonsense.Case:
    """A case that answers every request on its connection alike."""

    def case(connection: socket.socket) -> None:
        connection.sendall(reply(body, status))
        while connection.recv(65536):
            connection.sendall(reply(body, status))

    return case


def session_then(body: bytes, status: bytes = b"200 OK") -> nonsense.Case:
    """A case that gives a session, and then answers every request alike."""

    def case(connection: socket.socket) -> None:
        connection.sendall(reply(b'{"ID": "0f0f0f0f-0000-0000-0000-000000000000"}'))
        while connection.recv(65536):
            connection.sendall(reply(body, status))

    return case


def results(*found: dict[str, Any] | int | str | None) -> bytes:
    """The body of a transaction."""
    return json.dumps({"Results": found, "Errors": None}).encode()


CASES = {
    "closes": lambda connection: None,
    "says nothing": nonsense.silence,
    "garbage": nonsense.then(nonsense.NOISE[:4096]),
    "garbage without end": nonsense.endless(b"", nonsense.NOISE),
    "a head without end": nonsense.endless(OK + b"X: ", b"x" * 65536),
    "a head in drips": nonsense.drip(OK + b"X: "),
    "a body of 99 GB": nonsense.endless(OK + b"Content-Length: 99999999999\r\n\r\n", b"x" * 65536),
    "a body of 1 GB": nonsense.endless(OK + b"Content-Length: 1073741824\r\n\r\n", b"x" * 65536),
    "a body without end": nonsense.endless(OK + b"Connection: close\r\n\r\n", b"x" * 65536),
    "a body in drips": nonsense.drip(OK + b"Content-Length: 100000\r\n\r\n"),
    "chunks without end": nonsense.endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 8192),
    "a negative chunk": nonsense.then(OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nx\r\n"),
    "a length that is no number": nonsense.then(OK + "Content-Length: ²\r\n\r\n".encode("latin-1")),
    "a status that is no number": nonsense.then(b"HTTP/1.1 " + b"9" * 5000 + b" Hm\r\n\r\n"),
    "deep JSON": says(b"[" * 200_000),
    "broken JSON": says(b"{nope"),
    "no text": says(b"\xff\xfe\0"),
    "a list": says(b"[1, 2]"),
    "null": says(b"null"),
    "a session that is an object": says(b'{"ID": {"a": 1}}'),
    "a session with a line end": says(b'{"ID": "a\\r\\nX: y"}'),
    "an error of 1 MB": says(b"\x1b[31mEVIL" * 100_000, b"500 Internal"),
    "then null": session_then(b"null"),
    "then a list": session_then(b"[[]]"),
    "then deep JSON": session_then(b'{"Results":' * 100_000),
    "then a million lists": session_then(b'{"Results":[' + b"[]," * 2_000_000 + b"[]]}"),
    "then results of no object": session_then(results(1, None, "x")),
    "then results without a key": session_then(results({"KV": {"ModifyIndex": 1}})),
    "then an index that is text": session_then(results({"KV": {"Key": "k", "ModifyIndex": "1"}})),
    "then results of another": session_then(DONE),
    "then an error at no place": session_then(b'{"Results":null,"Errors":[{"OpIndex":99,"What":"x"}]}', b"409 Conflict"),
    "then an error without text": session_then(b'{"Errors":[{"OpIndex":0,"What":{"a":1}}]}', b"409 Conflict"),
    "then errors that are text": session_then(b'{"Errors":"no"}', b"409 Conflict"),
}


def call(locks: Locks) -> None:
    """A wait for a lock."""
    locks.lock("a").acquire(timeout=nonsense.WAIT)


@pytest.fixture(scope="module")
def found() -> nonsense.Found:
    return nonsense.outcomes(__file__)


@pytest.mark.parametrize("case", CASES)
def test_an_agent_that_talks_nonsense_costs_a_typed_error_in_time(found: nonsense.Found, case: str) -> None:
    """And says in a few words what was found."""
    outcome = found[0][case]
    assert outcome["typed"], outcome
    assert outcome["took"] < nonsense.LONGEST, outcome
    assert len(outcome["error"]) < 1000


@pytest.mark.parametrize(
    ("case", "what"),
    [
        ("deep JSON", "JSON of great depth"),
        ("a list", "JSON that is no object"),
        ("a session that is an object", "no id"),
        ("then deep JSON", "JSON of great depth"),
        ("then a million lists", "more than 1000000 values"),
        ("then results without a key", "result"),  # "without a key", or of an attempt that came late, "without its result"
    ],
)
def test_a_reply_that_is_none_of_consuls_is_told_as_what_it_is(found: nonsense.Found, case: str, what: str) -> None:
    """And not as a status that nobody has sent."""
    assert what in found[0][case]["error"]
    assert "HTTP 500" not in found[0][case]["error"]


def test_all_of_them_together_took_little_memory(found: nonsense.Found) -> None:
    """Lengths, depths and numbers are looked at before anything is made of them."""
    assert found[0][""]["memory"] < nonsense.MEMORY
    assert "Traceback" not in found[1], found[1]


def test_calls_that_belong_together_wait_for_one_silence_once() -> None:
    """The first has its whole time; what follows at once has little, and says so."""
    server = nonsense.Server(nonsense.silence)
    took = nonsense.silences(f"consul://127.0.0.1:{server.port}", 1.0)
    assert sum(took[1:]) < took[0] + upper(0.5), took


def test_a_farewell_that_nobody_answers_is_not_waited_for_long() -> None:
    """The session ends by itself, and the close may have waited for a renewal before."""
    first, then_silent = [reply(b'{"ID": "0f0f0f0f-0000-0000-0000-000000000000"}')], []

    def case(connection: socket.socket) -> None:
        if first:
            connection.sendall(first.pop())
        then_silent.append(connection.recv(65536))
        nonsense.silence(connection)

    server = nonsense.Server(case)
    with narrowboat.locks(f"consul://127.0.0.1:{server.port}?timeout=2") as locks:
        driver: Any = locks._core.driver.get()
        driver._session.fresh()
        begun = time.monotonic()
    assert time.monotonic() - begun < upper(1.5)
    assert b"/v1/session/destroy/" in then_silent[0]


if __name__ == "__main__":
    nonsense.main(CASES, URL, call, alone=["a body without end", "an error of 1 MB", "then a million lists"], again=0.0)


def test_the_token_is_in_no_error_however_often_the_other_side_repeats_the_request() -> None:
    """A proxy or an echo service that answers at the address shows the request in its error page, with the header in it."""
    token = "7c1e5a9e-0000-4000-8000-0badc0ffee01"
    codes = [b"400", b"403", b"404", b"409", b"429", b"500"]

    def echo(server: socket.socket) -> None:
        for code in codes:
            connection, _ = server.accept()
            with connection:
                asked = connection.recv(65536)
                connection.sendall(reply(asked, code + b" Hm"))

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=echo, args=(server,), daemon=True).start()
        for _ in codes:
            url = f"consul://:{token}@127.0.0.1:{server.getsockname()[1]}?timeout={nonsense.TIMEOUT}"
            with narrowboat.locks(url) as locks, pytest.raises(narrowboat.NarrowboatError) as found:
                locks.ping()
            assert token not in "".join(traceback.format_exception(found.value))


@pytest.mark.parametrize(
    "form",
    [
        str.upper,
        lambda token: "\u0130" * 40 + token.upper(),  # a letter that is two in lower case
        lambda token: token[:20],
        lambda token: quote(token, safe=""),
        html.escape,
    ],
)
@pytest.mark.parametrize("code", [b"400", b"403", b"404", b"500"])
def test_an_error_page_shows_no_part_of_the_token(code: bytes, form: Callable[[str], str]) -> None:
    """A page may cut it off, escape it, or write it in the other case."""
    token = "7c1e5a9e-0000-4000-8000-0badc0ffee01<&"
    server = nonsense.Server(says(f"Too large: {form(token)}".encode(), code + b" Hm"))
    url = f"consul://:{quote(token, safe='')}@127.0.0.1:{server.port}?timeout={nonsense.TIMEOUT}"
    with narrowboat.locks(url) as locks, pytest.raises(narrowboat.NarrowboatError, match="Too large") as found:
        locks.lock("a").acquire(timeout=0)
    assert token[:8] not in "".join(traceback.format_exception(found.value)).lower()


@pytest.mark.parametrize("before", [b"", b":", b"me"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_an_error_page_shows_no_part_of_the_token_in_base64(encode: Callable[[bytes], bytes], before: bytes) -> None:
    """As a login, or the request as a whole, is often shown; wherever the token stands in the groups of three bytes."""
    token = "7c1e5a9e>>>???~~~-4000-8000-0badc0ffee01"
    shown = encode(before + token.encode() + b", and more")
    server = nonsense.Server(says(b"Refused: " + shown, b"403 Hm"))
    url = f"consul://:{quote(token, safe='')}@127.0.0.1:{server.port}?timeout={nonsense.TIMEOUT}"
    with narrowboat.locks(url) as locks, pytest.raises(narrowboat.NarrowboatError, match="Refused") as found:
        locks.lock("a").acquire(timeout=0)
    told = "".join(traceback.format_exception(found.value))
    inner = shown[4 : (len(before) + len(token)) * 8 // 6].decode()  # of the token's bytes alone
    assert len(inner) > 40 and not [at for at in range(len(inner) - 7) if inner[at : at + 8] in told]


@pytest.mark.parametrize(
    "answer",
    [
        b"%b",
        b"HTTP/1.1 %b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\n",
        b"HTTP/1.1 200 OK\r\nX-Consul-Index: %b\r\nContent-Length: 2\r\n\r\nhm",
    ],
)
def test_the_token_is_in_no_error_wherever_a_reply_repeats_it(answer: bytes) -> None:
    """Also as a length, a status, or the size of a chunk, and not in part either."""
    token = "7c1e5a9e-0000-4000-8000-0badc0ffee01"

    def echo(server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(answer % token.encode())

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=echo, args=(server,), daemon=True).start()
        url = f"consul://:{token}@127.0.0.1:{server.getsockname()[1]}?timeout={nonsense.TIMEOUT}"
        with narrowboat.locks(url) as locks, pytest.raises(narrowboat.NarrowboatError) as found:
            locks.lock("a").acquire(timeout=1)
        assert token[:8] not in "".join(traceback.format_exception(found.value))
        server.shutdown(socket.SHUT_RDWR)
