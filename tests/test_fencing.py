"""Fences that need no database: what is decided, a folder's, and those in front of an HTTP application."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref import simple_server, util, validate

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

import fenced
import narrowboat
from narrowboat import ConfigurationError, Conflict, InvalidArgument, LockTimeout, StaleWrite, Unavailable, fencing
from narrowboat.aio import fencing as aio_fencing
from narrowboat.fencing import decision
from narrowboat.fencing.asgi import ASGIFence, Message
from narrowboat.fencing.file import network_file_system

TOKENS = st.integers(0, 2**63 - 1)


# -- what is decided --------------------------------------------------------------------------------------------------


@given(st.lists(TOKENS | st.integers(0, 9)))
def test_a_write_passes_unless_a_greater_token_did(tokens: list[int]) -> None:
    """So what has passed never goes back, and the greatest of all has passed."""
    newest, passed = 0, []
    for token in tokens:
        try:
            decision.admit("a", token, newest)
        except StaleWrite:
            assert token < newest
        else:
            newest = token
            passed.append(token)

    assert passed == sorted(passed)
    assert not tokens or newest == max(tokens)


@given(TOKENS)
def test_a_token_is_written_in_one_way(token: int) -> None:
    """What is written is read again."""
    assert decision.parse(str(token)) == token


@given(st.text(max_size=25) | st.from_regex(r"[+-]?[0-9_ ٠-٩]{1,21}\n?", fullmatch=True))
def test_what_is_read_as_a_token_is_one(text: str) -> None:
    """No sign, space, underscore, other digits or leading zero, and nothing beyond 63 bits."""
    token = decision.parse(text)
    assert token is None or (str(token) == text and token < 2**63)


@pytest.mark.parametrize("token", [True, None, 1.0, "1", -1, 2**63, 2**20000], ids=lambda token: type(token).__name__)
def test_what_is_no_token_is_refused(token: object, tmp_path: Path) -> None:
    """By each fence and by the client's side, before anything is touched."""
    with pytest.raises(InvalidArgument), fencing.FileFence(tmp_path).guarding("a", token):  # type: ignore[arg-type]
        pytest.fail("it was let in")
    with pytest.raises(InvalidArgument):
        fencing.headers(token)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "a\0", "\ud800", "x" * 1001, None])
def test_what_is_no_name_is_refused(name: object, tmp_path: Path) -> None:
    """As a lock's name is."""
    with pytest.raises(InvalidArgument), fencing.FileFence(tmp_path).guarding(name, 1):  # type: ignore[arg-type]
        pytest.fail("it was let in")


# -- a holder that is too late ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", ["in_file", "in_file_aio"])
def test_a_stopped_holder_that_wakes_up_is_refused(writer: str, tmp_path: Path) -> None:
    """And nothing of what it would write is there."""
    assert fenced.wakes_up_late(f"sqlite:///{tmp_path}/locks.db", writer, str(tmp_path)) == "StaleWrite"
    assert (tmp_path / "report").read_text() == "new"


def test_without_a_fence_it_overwrites(tmp_path: Path) -> None:
    """So the scenario can fail."""
    assert fenced.wakes_up_late(f"sqlite:///{tmp_path}/locks.db", "unfenced", str(tmp_path)) == "wrote"
    assert (tmp_path / "report").read_text() == "old"


# -- a folder ---------------------------------------------------------------------------------------------------------


@contextmanager
def on_a_loop(fence: Any, name: str, token: int, timeout: float = 10.0) -> Iterator[None]:
    """A guard of the asyncio face as one of the sync face."""
    with asyncio.Runner() as runner:
        guard = fence.guarding(name, token, timeout=timeout)
        runner.run(guard.__aenter__())
        try:
            yield
        finally:
            runner.run(guard.__aexit__(None, None, None))


def sync(folder: Path, name: str, token: int, timeout: float = 10.0) -> Any:
    return fencing.FileFence(folder).guarding(name, token, timeout=timeout)


def asynchronous(folder: Path, name: str, token: int, timeout: float = 10.0) -> Any:
    return on_a_loop(aio_fencing.FileFence(folder), name, token, timeout)


Guard = Callable[..., Any]
both = pytest.mark.parametrize("guard", [sync, asynchronous])


@both
def test_a_folder_remembers_the_greatest_token_of_each_name(guard: Guard, tmp_path: Path) -> None:
    """Equal ones pass; a smaller one is refused before the body runs; a body that raises leaves its token there."""
    for token in (7, 7, 2**63 - 1):
        with guard(tmp_path, "a", token):
            pass
    with pytest.raises(ZeroDivisionError), guard(tmp_path, "b", 9):
        raise ZeroDivisionError

    for name, found in (("a", 2**63 - 1), ("b", 9)):
        with pytest.raises(StaleWrite, match="Acquire the lock again") as caught, guard(tmp_path, name, 8):
            pytest.fail("it was let in")
        assert (caught.value.tried, caught.value.found) == (8, found)


@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=1000), unique=True, max_size=4))
def test_no_two_names_share_a_fence(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    """Whatever is in them, and however long they are; nothing is written outside the folder."""
    folder = tmp_path_factory.mktemp("fences")
    for number, name in enumerate({*names, "a/b", "a%2Fb", "..", ".", "A" * 300, "a" * 300, "A" * 299 + "a"}):
        with sync(folder, name, 100 - number):
            pass
    assert {path.parent for path in folder.rglob("*")} == {folder}


@both
def test_one_is_inside_at_a_time(guard: Guard, tmp_path: Path) -> None:
    """Of one name, whichever face and object; a wait that is over is typed, and leaves nothing behind."""
    with sync(tmp_path, "a", 1):
        with pytest.raises(LockTimeout, match="fuser"), guard(tmp_path, "a", 2, 0.05):
            pytest.fail("it was let in")
        with guard(tmp_path, "b", 1):
            pass
    with guard(tmp_path, "a", 1, 0):
        pass


def inside(folder: Path, entered: Any) -> None:
    with sync(folder, "a", 1):
        entered.set()
        signal.pause()


def test_a_process_that_is_stopped_inside_keeps_others_out_until_it_dies(tmp_path: Path) -> None:
    """So a newer holder never writes beside it."""
    context = multiprocessing.get_context("spawn")
    entered = context.Event()
    process = context.Process(target=inside, args=(tmp_path, entered))
    process.start()
    try:
        assert entered.wait(60)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(LockTimeout), sync(tmp_path, "a", 2, 0.1):
            pytest.fail("it was let in")
    finally:
        process.kill()
        process.join()
    with sync(tmp_path, "a", 2):
        pass


def test_a_child_that_was_forked_inside_keeps_nobody_out(tmp_path: Path) -> None:
    """What is left of the parent's lock in it is closed, and the parent is still alone until it leaves."""
    fence = fencing.FileFence(tmp_path)
    (told, tell), (heard, ready) = os.pipe(), os.pipe()
    with fence.guarding("report", 1):
        child = os.fork()
        if child == 0:
            os.close(tell)
            os.write(ready, b"1")
            os.read(told, 1)
            os._exit(0)
        os.read(heard, 1)
        with pytest.raises(LockTimeout), fence.guarding("report", 2, timeout=0):
            pass
    try:
        with fence.guarding("report", 2, timeout=0):
            pass
    finally:
        os.close(tell)
        os.waitpid(child, 0)
        for each in (told, heard, ready):
            os.close(each)


def test_a_task_that_is_cancelled_while_it_waits_leaves_nothing(tmp_path: Path) -> None:
    """The next is let in at once."""

    async def wait() -> None:
        async with aio_fencing.FileFence(tmp_path).guarding("a", 2):
            pytest.fail("it was let in")

    async def main() -> None:
        async with aio_fencing.FileFence(tmp_path).guarding("a", 1):
            waiter = asyncio.create_task(wait())
            await asyncio.sleep(0)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
        async with aio_fencing.FileFence(tmp_path).guarding("a", 1, timeout=0):
            pass

    asyncio.run(main())


def test_a_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    """When the fence is made, with what makes it; and in the middle, when it was taken away."""
    with pytest.raises(ConfigurationError, match="mkdir -p"):
        fencing.FileFence(tmp_path / "none")
    fence = fencing.FileFence(tmp_path)
    tmp_path.rmdir()
    with pytest.raises(Unavailable, match="No such file"), fence.guarding("a", 1):
        pytest.fail("it was let in")


@both
def test_what_the_system_refuses_is_typed(guard: Guard, tmp_path: Path) -> None:
    """A folder or a link where the token would be: nothing is written through it, and the body does not run."""
    with sync(tmp_path, "a", 1):
        pass
    (path,) = tmp_path.glob("*.token")
    path.unlink()
    (tmp_path / "elsewhere").write_text("7")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable) as caught, guard(tmp_path, "a", 2):
        pytest.fail("it was let in")
    assert not caught.value.sent and (tmp_path / "elsewhere").read_text() == "7"
    path.unlink()
    path.mkdir()
    with pytest.raises(Unavailable), guard(tmp_path, "a", 2):
        pytest.fail("it was let in")


@pytest.mark.parametrize("damage", [b"", b"x", b"-1\n", b"007\n", b"\xff" * 9, b"1" * 1000, b"9223372036854775808\n"])
@both
def test_a_damaged_file_is_refused(guard: Guard, damage: bytes, tmp_path: Path) -> None:
    """It is neither believed nor overwritten."""
    with sync(tmp_path, "a", 1):
        pass
    (path,) = tmp_path.glob("*.token")
    path.write_bytes(damage)

    with pytest.raises(Conflict, match="no token"), guard(tmp_path, "a", 2):
        pytest.fail("it was let in")
    assert path.read_bytes() == damage


def test_a_network_file_system_is_told_by_linux() -> None:
    """By the device's number; what is not listed is none."""
    mounts = (
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
        "36 22 0:50 / /mnt/share rw - nfs4 server:/share rw,vers=4.2\n"
        "37 22 0:51 / /mnt/far rw shared:2 master:1 - fuse.sshfs far: rw\n"
        "half a line\n\n"
    )
    found = [network_file_system(mounts, os.makedev(*numbers)) for numbers in ((254, 0), (0, 50), (0, 51), (0, 5))]
    assert found == [None, "nfs4", "fuse.sshfs", None]


def test_a_folder_on_a_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the fence is made, by what the system says about that folder's device."""
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 22 {os.major(device)}:{os.minor(device)} / / rw - nfs4 server:/ rw\n")
    monkeypatch.setattr("narrowboat.fencing.file._MOUNTS", mounts)
    with pytest.raises(ConfigurationError, match="nfs4"):
        fencing.FileFence(tmp_path)


# -- HTTP -------------------------------------------------------------------------------------------------------------

Answer = tuple[int, str]


def wsgi(fence: Callable[..., Any], method: str, path: str, *tokens: str) -> Answer:
    """What a WSGI server makes of it, with the standard library's validator on both sides."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path.encode().decode("latin-1"),
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
    }
    if tokens:
        environ["HTTP_FENCING_TOKEN"] = ",".join(tokens)
    util.setup_testing_defaults(environ)
    answered: list[str] = []

    def start(status: str, headers: list[tuple[str, str]], failed: Any = None) -> Callable[[bytes], object]:
        answered.append(status)
        return lambda data: None

    body = validate.validator(fence)(environ, start)
    try:
        text = b"".join(body).decode()
    finally:
        body.close()  # type: ignore[attr-defined]  # the validator's has one
    return int(answered[-1].partition(" ")[0]), text


def asgi(fence: ASGIFence, method: str, path: str, *tokens: str) -> Answer:
    """What an ASGI server makes of it."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [(b"fencing-token", t.encode()) for t in tokens]}
    asyncio.run(fence(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()


class Site:
    """An application on each interface that says the token it was given, or raises what it is told to."""

    def __init__(self, folder: Path, face: str, error: Exception | None = None, **options: Any) -> None:
        self._error = error
        self._folder = folder
        if face == "wsgi":
            guard: Any = fencing.FileFence(folder).guarding
            self._fence: Any = fencing.WSGIFence(validate.validator(self._wsgi), **{"guard": guard, **options})
        else:
            guard = aio_fencing.FileFence(folder).guarding
            self._fence = fencing.ASGIFence(self._asgi, **{"guard": guard, **options})
        self._ask: Callable[..., Answer] = wsgi if face == "wsgi" else asgi

    def __call__(self, method: str, path: str, *tokens: object) -> Answer:
        return self._ask(self._fence, method, path, *map(str, tokens))

    def _wsgi(self, environ: dict[str, Any], start: Any) -> Iterator[bytes]:
        if self._error is not None:
            raise self._error
        start("200 OK", [("Content-Type", "text/plain")])
        return iter([str(environ.get("narrowboat.token")).encode()])

    async def _asgi(self, scope: Message, receive: Any, send: Any) -> None:
        if self._error is not None:
            raise self._error
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(scope.get("narrowboat.token")).encode()})


interfaces = pytest.mark.parametrize("face", ["wsgi", "asgi"])


@interfaces
def test_a_request_with_a_smaller_token_is_412(face: str, tmp_path: Path) -> None:
    """Of the same path; equal ones pass, and the application is handed the number. The text says what to do."""
    site = Site(tmp_path, face)

    assert site("PUT", "/é", 7) == (200, "7")
    assert site("POST", "/é", 7) == (200, "7")
    assert site("PUT", "/other", 6) == (200, "6")
    status, text = site("PUT", "/é", 6)
    problem = json.loads(text)
    assert (status, problem["status"], problem["title"]) == (412, 412, "Precondition Failed")
    assert "refused token 6: it has seen 7" in problem["detail"]
    assert site("GET", "/é") == (200, "None")


@interfaces
@pytest.mark.parametrize(
    "tokens", [["x"], ["-1"], ["07"], [""], [" 7"], ["9223372036854775808"], ["9" * 10_000], ["7", "8"], ["7", "7"], ["٧"]]
)
def test_a_header_that_is_no_token_is_400(face: str, tokens: list[str], tmp_path: Path) -> None:
    """Nothing of it is kept, and its text is not repeated."""
    status, text = Site(tmp_path, face)("PUT", "/a", *tokens)
    assert status == 400 and len(text) < 300
    assert not list(tmp_path.iterdir())


@interfaces
@pytest.mark.parametrize("path", ["/" + "x" * 2000, "/\x00", "/\n"])
def test_a_path_that_is_no_name_is_400(face: str, path: str, tmp_path: Path) -> None:
    """As a name that a program gives is an error."""
    assert Site(tmp_path, face)("PUT", path, 7)[0] == 400


def test_a_path_that_is_no_text_is_400(tmp_path: Path) -> None:
    """WSGI hands out bytes: two that are no UTF-8 are not one name."""
    environ = {"REQUEST_METHOD": "PUT", "PATH_INFO": "/\xff", "HTTP_FENCING_TOKEN": "7"}
    answered: list[str] = []
    site = fencing.WSGIFence(simple_server.demo_app, guard=fencing.FileFence(tmp_path).guarding)
    list(site(environ, lambda status, *rest: answered.append(status)))  # type: ignore[arg-type]
    assert answered == ["400 Bad Request"]


@interfaces
def test_a_request_without_a_token_is_428_unless_it_may_be(face: str, tmp_path: Path) -> None:
    """`required=False` lets it pass by the fence; a name of None means that there is none."""
    assert Site(tmp_path, face)("PUT", "/a")[0] == 428
    assert Site(tmp_path, face, required=False)("PUT", "/a") == (200, "None")
    assert Site(tmp_path, face, name=lambda request: None)("PUT", "/a", 7) == (200, "None")


@interfaces
def test_a_request_waits_for_the_one_inside_or_is_503(face: str, tmp_path: Path) -> None:
    """Also when it is a stranger to this process."""
    fence: Any = (fencing if face == "wsgi" else aio_fencing).FileFence(tmp_path)
    site = Site(tmp_path, face, guard=lambda name, token: fence.guarding(name, token, timeout=0.05))
    with sync(tmp_path, "/a", 1):
        assert site("PUT", "/a", 7)[0] == 503
    assert site("PUT", "/a", 7) == (200, "7")


def test_others_are_kept_out_until_the_response_has_ended(tmp_path: Path) -> None:
    """The application writes while its response is read, or after it has begun; then the next is let in."""
    seen: list[str] = []

    def look() -> None:
        with pytest.raises(LockTimeout), sync(tmp_path, "/a", 8, 0):
            pytest.fail("it was let in")
        seen.append("kept out")

    def body() -> Iterator[bytes]:
        look()
        yield b"1"
        look()

    def of_wsgi(environ: dict[str, Any], start: Any) -> Iterator[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        return body()

    async def of_asgi(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        look()
        await send({"type": "http.response.body", "body": b"1"})
        look()

    for number, (face, fence) in enumerate(
        {
            wsgi: fencing.WSGIFence(of_wsgi, guard=fencing.FileFence(tmp_path).guarding),
            asgi: fencing.ASGIFence(of_asgi, guard=aio_fencing.FileFence(tmp_path).guarding),
        }.items()
    ):
        assert face(fence, "PUT", "/a", "7") == (200, "1")  # type: ignore[operator]
        assert len(seen) == 2 * (number + 1)
        with sync(tmp_path, "/a", 7, 0):
            pass


@interfaces
def test_a_fence_of_the_applications_own_is_answered_for(face: str, tmp_path: Path) -> None:
    """Its `StaleWrite` is 412 here as well; any other error goes on to the server."""
    refused = StaleWrite("too late", name="a", tried=1, found=2)
    assert Site(tmp_path, face, refused, guard=None)("PUT", "/a", 1)[0] == 412
    with pytest.raises(ZeroDivisionError):
        Site(tmp_path, face, ZeroDivisionError())("PUT", "/a", 1)
    assert Site(tmp_path, face)("PUT", "/a", 1) == (200, "1")


def test_a_refusal_after_the_response_has_begun_goes_on_to_the_server(tmp_path: Path) -> None:
    """No second status is sent."""

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise StaleWrite("too late", name="a")

    with pytest.raises(StaleWrite):
        asgi(ASGIFence(app), "PUT", "/a", "1")


def test_what_is_no_request_passes_through() -> None:
    """The lifespan and web sockets."""
    seen: list[str] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(ASGIFence(app)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]


def test_a_client_sends_the_token_of_what_it_holds() -> None:
    """A lock's, or a number."""
    with narrowboat.locks("memory://fencing") as locks, locks.lock("a") as held:
        assert fencing.headers(held) == {"Fencing-Token": str(held.token)} == fencing.headers(held.token)


class Threaded(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    """A server of the standard library with a thread for each request."""

    daemon_threads = True


class Quiet(simple_server.WSGIRequestHandler):
    """No lines on stderr."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served_by_wsgiref(folder: Path, report: list[bytes]) -> Iterator[int]:
    """An application behind a fence, and its port."""

    def app(environ: dict[str, Any], start: Any) -> list[bytes]:
        report.append(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        start("200 OK", [])
        return [b""]

    fence = fencing.WSGIFence(app, guard=fencing.FileFence(folder).guarding)
    with simple_server.make_server("127.0.0.1", 0, fence, Threaded, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def served_by_uvicorn(folder: Path, report: list[bytes]) -> Iterator[int]:
    """The same for ASGI."""

    async def app(scope: Message, receive: Any, send: Any) -> None:
        report.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    fence: Any = ASGIFence(app, guard=aio_fencing.FileFence(folder).guarding)
    server = uvicorn.Server(uvicorn.Config(fence, log_level="critical", lifespan="off"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[1]  # it listens already: who connects waits until it serves
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.mark.parametrize("served", [served_by_wsgiref, served_by_uvicorn])
def test_a_stopped_holder_is_refused_over_http(served: Callable[..., Any], tmp_path: Path) -> None:
    """With a real client and server: 412, and the resource is the newer holder's."""
    report: list[bytes] = []
    with served(tmp_path, report) as port:
        assert fenced.wakes_up_late(f"sqlite:///{tmp_path}/locks.db", "by_http", str(port)) == "StaleWrite"
    assert report == [b"new", b"new"]


def test_fences_import_no_client_and_no_event_loop() -> None:
    """A fence takes what the program has."""
    script = "import sys, narrowboat.fencing; print(*{name.partition('.')[0] for name in sys.modules})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True).stdout
    assert not {"redis", "sqlite3", "psycopg", "sqlalchemy", "django", "asyncio", "wsgiref", "http"} & set(found.split())
