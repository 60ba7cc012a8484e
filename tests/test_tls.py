"""The options for TLS mean the same in all backends that have them; handshakes, their failures, and forks beside them.

What real servers with real certificates make of them is in integration/test_tls.py.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import narrowboat
from narrowboat.driver import handshake, tls
from narrowboat.driver.tls import TlsOptions, Verify
from narrowboat.dsn import Secret, Url
from narrowboat.errors import ConfigurationError

with warnings.catch_warnings():
    # kafka-python reads its schemas in a way that Python 3.11 calls deprecated; not ours to mend, and an error here.
    warnings.simplefilter("ignore", DeprecationWarning)
    import narrowboat_kafka.connections  # noqa: F401  # here, and not later by a test without this filter

FILES = Path(__file__).parent / "tls"
CA, NAMED, UNNAMED, ENCRYPTED = (str(FILES / name) for name in ("ca.pem", "named.pem", "unnamed.pem", "encrypted.key"))
#: Each plain scheme that has a twin with TLS, and the face that takes it.
BACKENDS: list[tuple[str, Callable[..., Any]]] = [
    ("redis", narrowboat.locks),
    ("redis", narrowboat.broker),
    ("zookeeper", narrowboat.locks),
    ("consul", narrowboat.locks),
    ("amqp", narrowboat.broker),
    ("kafka", narrowboat.broker),
]
each_backend = pytest.mark.parametrize(("scheme", "face"), BACKENDS, ids=[f"{s}-{f.__name__}" for s, f in BACKENDS])


def refused(face: Callable[..., Any], url: str, **options: object) -> str:
    """What is told where nothing has been sent."""
    with pytest.raises(ConfigurationError) as caught:
        face(url, **options).close()
    return str(caught.value)


# -- options ------------------------------------------------------------------------------------------------------------


@each_backend
@pytest.mark.parametrize(
    ("name", "value"),
    [("ca", CA), ("cert", NAMED), ("key", NAMED), ("key_password", "geheim")] + [("verify", each.value) for each in Verify],
)
def test_an_option_for_tls_on_a_plain_scheme_is_refused(scheme: str, face: Callable[..., Any], name: str, value: str) -> None:
    """It would look protected and be sent in clear. The scheme to write is named; from a URL and as an argument."""
    for said in (refused(face, f"{scheme}://h?{name}={value}"), refused(face, f"{scheme}://h", **{name: value})):
        assert f"{scheme}s://" in said and f"option {name} " in said
        assert "geheim" not in said


@each_backend
def test_the_options_are_taken_with_tls(scheme: str, face: Callable[..., Any]) -> None:
    """All of them, by the same names, and nothing is sent for it."""
    key = f"ca={CA}&cert={NAMED}&key={ENCRYPTED}&key_password=geheim"
    for verify in ("full", "ca", "none"):
        face(f"{scheme}s://h?{key}&verify={verify}").close()


@each_backend
def test_what_cannot_be_meant_is_refused_with_the_reason(scheme: str, face: Callable[..., Any]) -> None:
    """A key of nothing, a file that is not there, a word that is none: also those that were taken before."""
    secure = f"{scheme}s://h"
    assert "key without cert" in refused(face, f"{secure}?key={NAMED}")
    assert "key_password without cert" in refused(face, f"{secure}?key_password=geheim")
    for name in ("ca", "cert", "key"):
        more = f"&cert={NAMED}" if name == "key" else ""
        assert f"option {name}=/no/such.pem: no such file" in refused(face, f"{secure}?{name}=/no/such.pem{more}")
        assert f"option {name} is empty" in refused(face, f"{secure}?{name}={more}"), "no path is not the current folder"
        assert f"option {name} has a zero byte" in refused(face, f"{secure}?{name}=a%00b{more}")
    for verify in ("true", "false", "half", ""):
        assert "full, ca, none" in refused(face, f"{secure}?verify={verify}")
    for flag in (True, False):
        assert "full, ca, none" in refused(face, secure, verify=flag)


@each_backend
@pytest.mark.parametrize(
    ("query", "told"),
    [
        (f"cert={NAMED}&key={ENCRYPTED}", "the key is encrypted, and no key_password was given"),
        (f"cert={NAMED}&key={ENCRYPTED}&key_password=falsch", "key_password is not the key's password"),
        (f"cert={NAMED}&key={ENCRYPTED}&key_password={'x' * 2000}", "up to 1024 bytes"),
        (f"cert={NAMED}&key={UNNAMED}", "no certificate in PEM with the key that belongs to it"),
        (f"cert={CA}", "no certificate in PEM with the key that belongs to it"),
        (f"ca={ENCRYPTED}", "no certificates in PEM"),
    ],
)
def test_files_that_are_none_are_told_and_nobody_is_asked(scheme: str, face: Callable[..., Any], query: str, told: str) -> None:
    """At the first call, before anything is sent; nothing ever asks for a password on the terminal."""
    secure = face(f"{scheme}s://127.0.0.1:1?{query}", timeout=1.0)
    try:
        with pytest.raises(ConfigurationError, match=told) as caught:
            secure.ping()
        assert "falsch" not in repr(caught.value) + repr(caught.value.__cause__)
        assert caught.value.retryable is False
    finally:
        secure.close()


@each_backend
def test_a_relative_path_is_that_of_the_folder_where_it_was_written(
    scheme: str, face: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that changes its folder later, as daemons do, means the same file."""
    monkeypatch.chdir(FILES)
    secure = face(f"{scheme}s://127.0.0.1:1?ca=ca.pem&cert=named.pem&key=encrypted.key", timeout=1.0)
    monkeypatch.chdir(tmp_path)
    try:
        with pytest.raises(ConfigurationError, match="the key is encrypted"):  # it was found, and read
            secure.ping()
    finally:
        secure.close()


# -- the context --------------------------------------------------------------------------------------------------------


def made(**options: Any) -> ssl.SSLContext:
    return TlsOptions(**options).context(backend="test")


def test_how_far_a_certificate_is_checked() -> None:
    """With full its host by the subjectAltName, with ca who signed it, with none nothing; never below TLS 1.2."""
    full, ca, none = (made(ca=CA, verify=verify) for verify in (Verify.FULL, Verify.CA, Verify.NONE))
    assert made(ca=CA) is full
    assert [each.check_hostname for each in (full, ca, none)] == [True, False, False]
    assert [each.verify_mode for each in (full, ca, none)] == [ssl.CERT_REQUIRED, ssl.CERT_REQUIRED, ssl.CERT_NONE]
    for each in (full, ca, none):
        assert not each.hostname_checks_common_name
        assert each.minimum_version >= ssl.TLSVersion.TLSv1_2
    standard = ssl.create_default_context()
    assert (full.options, full.verify_flags) == (standard.options, standard.verify_flags)


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    """A certificate that was renewed is shown at the next connection; until then there is one context."""
    path = tmp_path / "ca.pem"
    path.write_text(Path(CA).read_text())
    options = TlsOptions(ca=str(path))
    first = options.context(backend="test")
    assert options.context(backend="test") is first
    path.write_text(Path(UNNAMED).read_text())
    os.utime(path, ns=(1, 1))
    assert options.context(backend="test") is not first
    path.unlink()
    with pytest.raises(ConfigurationError, match=r"ca\.pem"):
        options.context(backend="test")


@contextmanager
def answering(cert: str | None, *, answers: bytes = b"") -> Iterator[int]:
    """The port of a server that makes one TLS handshake with `cert`, or answers in plain and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            try:
                if cert is None:
                    sock.recv(65536)
                    sock.sendall(answers)
                    return
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(cert)
                with context.wrap_socket(sock, server_side=True) as secured:
                    secured.sendall(b"hello")
            except OSError:
                pass  # refused by the other side: what the tests are about

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.join(10)
        listener.close()


def greeted(port: int, context: ssl.SSLContext, name: str) -> bytes:
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname=name) as secured:
        assert secured.gettimeout() == 10
        return secured.recv(5)


@pytest.mark.parametrize(
    ("cert", "name", "options", "advice"),
    [
        (NAMED, "localhost", {"ca": CA}, None),
        (NAMED, "127.0.0.1", {"ca": CA}, None),
        (NAMED, "other.example", {"ca": CA}, "subjectAltName"),
        (NAMED, "other.example", {"ca": CA, "verify": Verify.CA}, None),
        (UNNAMED, "localhost", {"ca": CA}, "subjectAltName"),
        (UNNAMED, "localhost", {"ca": CA, "verify": Verify.CA}, None),
        (NAMED, "localhost", {}, "?ca="),
        (NAMED, "localhost", {"verify": Verify.CA}, "?ca="),
        (NAMED, "localhost", {"verify": Verify.NONE}, None),
    ],
)
def test_whom_it_accepts(cert: str, name: str, options: dict[str, Any], advice: str | None) -> None:
    """A common name counts for nothing. A refusal says what to do, and that trying again is no use."""
    with answering(cert) as port:
        if advice is None:
            assert greeted(port, made(**options), name) == b"hello"
            return
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            greeted(port, made(**options), name)
    found = tls.failure(caught.value, "the server", plain="plain", backend="plains")
    assert found is not None and advice in str(found) and not found.retryable
    assert found.__cause__ is caught.value and found.backend == "plains"


def test_a_port_without_tls_is_told_from_one_that_is_gone() -> None:
    """Where it answers, it is a wrong URL; where it hangs up, nobody can know, but the likeliest reason is named."""
    with answering(None, answers=b"-ERR what was that?\r\n") as port, pytest.raises(ssl.SSLError) as answered:
        greeted(port, made(ca=CA), "localhost")
    found = tls.failure(answered.value, "the server", plain="plain", backend="plains")
    assert found is not None and "plain port takes plain://" in str(found)

    with answering(None) as port, pytest.raises(ConnectionResetError, match="during the TLS handshake") as silent:
        greeted(port, made(ca=CA), "localhost")
    assert tls.failure(silent.value, "the server", plain="plain", backend="plains") is None
    assert "write plain://" in tls.hint(silent.value, plain="plain")
    assert tls.hint(ConnectionRefusedError("no"), plain="plain") == "" == tls.hint(None, plain="plain")


def test_a_failure_is_found_wherever_a_client_library_has_put_it() -> None:
    """As the cause, as an argument, in a list of what was tried; and what only broke off is none."""
    inner = ssl.SSLCertVerificationError(1, "self-signed")
    caused, listed = RuntimeError("x"), RuntimeError("x")
    caused.__cause__ = ValueError(inner)
    listed.exceptions = (ConnectionError("a"), inner)  # type: ignore[attr-defined]  # as pika does
    for error in (inner, RuntimeError(inner), caused, listed):
        assert isinstance(tls.failure(error, "there", plain="p", backend="ps"), ConfigurationError)
    passing = ssl.SSLError(1, "x")
    passing.reason = "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
    waiting = TimeoutError("x")
    waiting.__context__ = ssl.SSLWantReadError(2, "The operation did not complete")  # as a library's own loop leaves it
    broken: list[OSError] = [ssl.SSLEOFError(8, "x"), ssl.SSLZeroReturnError(6, "x"), passing, waiting, OSError("x")]
    for each in broken:
        assert tls.failure(each, "there", plain="p", backend="ps") is None


def test_no_option_shows_the_password_of_a_key() -> None:
    options = TlsOptions(cert=NAMED, key_password=Secret("geheim"))
    assert "geheim" not in repr(options)
    with pytest.raises(ConfigurationError):
        options.check(Url.parse("plain://h"), secure="plains")


# -- handshakes beside forks --------------------------------------------------------------------------------------------

FORK = """
import os, threading, time
from narrowboat.driver import handshake

inside = False
entered, forking = threading.Event(), threading.Event()

def work():
    global inside
    inside = True
    entered.set()
    forking.wait(10)
    time.sleep(0.05)  # a fork that does not wait happens within this
    inside = False

thread = threading.Thread(target=handshake.step, args=(work,))
thread.start()
entered.wait(10)
os.register_at_fork(before=forking.set)  # hooks that were registered later come first
pid = os.fork()
if pid == 0:
    os._exit(0 if not inside and handshake.step(lambda: True) else 1)
thread.join()
assert handshake.step(lambda: True)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="platform: no fork")
def test_a_fork_waits_for_a_step_of_a_handshake() -> None:
    """Whatever lock OpenSSL holds in that step, the child would inherit it taken and hang."""
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_step_of_a_handshake_is_one_that_forks_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a blocking socket, by one that never blocks, and by a library that carries the bytes itself."""
    steps: list[str] = []
    real = handshake.step

    def step(work: Callable[[], Any]) -> Any:
        steps.append(getattr(work, "__name__", ""))
        return real(work)

    monkeypatch.setattr(handshake, "step", step)
    context = made(ca=CA)
    with answering(NAMED) as port:
        assert greeted(port, context, "localhost") == b"hello"
    assert steps.count("do_handshake") >= 2

    steps.clear()
    with answering(NAMED) as port:
        sock = socket.create_connection(("127.0.0.1", port), 10)
        sock.setblocking(False)
        secured = context.wrap_socket(sock, server_hostname="localhost", do_handshake_on_connect=False)
        assert steps == ["<lambda>"]
        with secured, pytest.raises((ssl.SSLWantReadError, BlockingIOError)):
            secured.do_handshake()
    assert steps == ["<lambda>", "do_handshake"]

    steps.clear()
    carried = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        carried.do_handshake()
    assert steps == ["<lambda>", "do_handshake"]


@pytest.mark.parametrize("cert", [NAMED, None])
def test_a_handshake_that_fails_closes_its_socket_whoever_steps_through_it(cert: str | None) -> None:
    """Client libraries on an event loop do, and some forget the socket then."""
    with answering(cert) as port:
        sock = socket.create_connection(("127.0.0.1", port), 10)
        sock.setblocking(False)
        secured = made().wrap_socket(sock, server_hostname="localhost", do_handshake_on_connect=False)
        with pytest.raises((ssl.SSLCertVerificationError, ConnectionResetError)):
            while True:
                try:
                    secured.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    select.select([secured], [], [], 10)
    assert secured.fileno() == -1


def test_a_handshake_that_nobody_answers_ends_in_time_and_closes_its_socket() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.settimeout(0.05)
        with pytest.raises(TimeoutError, match="handshake") as silent:
            made(ca=CA).wrap_socket(ours, server_hostname="localhost")
        hello = theirs.recv(4096)
        assert hello.startswith(b"\x16\x03")
        assert theirs.recv(4096) == b""
    assert ours.fileno() == -1
    assert tls.failure(silent.value, "there", plain="p", backend="ps") is None  # it may answer later
    assert "write p://" in tls.hint(silent.value, plain="p")
