"""`narrowboat web` over HTTP: what it answers, to whom, and that no body, client or backend can make it do more."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_program import HANGS, command, finish, until

from narrowboat.cli import run
from narrowboat.cli.access import Access, Need, Refused
from narrowboat.cli.looks import Looks
from narrowboat.dsn import Secret
from narrowboat.errors import Unavailable
from narrowboat.locking import Locks
from narrowboat.messaging import Messaging

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

TOKEN = "correct-horse-battery-staple"
HOSTILE = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"


class Page:
    """A running `narrowboat web`, and requests to it."""

    def __init__(self, *arguments: Path | str) -> None:
        self.process = command("web", *arguments, "--bind", "127.0.0.1:0")
        assert self.process.stderr is not None
        self.said = ""
        for line in self.process.stderr:
            self.said += line
            if found := re.search(r"the page is at http://(\S+)/", line):
                self.address = found[1]
                return
        raise AssertionError(f"it has not started: {self.said}")

    def ask(
        self, path: str, body: object = None, *, token: str | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        """The status, and the JSON or text of the answer."""
        given = {"Content-Type": "application/json"} if body is not None else {}
        given |= {} if token is None else {"Authorization": f"Bearer {token}"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.address, timeout=HANGS)
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method or ("GET" if data is None else "POST"), path, data, given)
            reply = connection.getresponse()
            self.headers = reply.headers
            text = reply.read().decode()
        finally:
            connection.close()
        return reply.status, json.loads(text) if reply.headers.get_content_type() == "application/json" else text

    def end(self, signum: int = signal.SIGTERM) -> int:
        self.process.send_signal(signum)
        code, _, said = finish(self.process)
        self.said += said
        return code


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.fixture
def page(url: str, token_file: Path) -> Iterator[Page]:
    """With a token, and an interval that no test waits for."""
    page = Page(url, "--interval", "0.1", "--token-file", token_file)
    yield page
    page.process.kill()
    finish(page.process)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One page, of a backend without a queue, for all requests that are refused."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "token").write_text(TOKEN)
    page = Page(f"sqlite:///{folder}/shop.db", "--token-file", folder / "token")
    yield page
    page.process.kill()
    finish(page.process)


def die(broker: Messaging, queue: str, *bodies: bytes, reason: str = "no stock", **options: Any) -> list[str]:
    """Dead letters of a queue; their ids."""
    source = broker.queue(queue)
    ids = [source.publish(body, **options).id for body in bodies]
    with source.consume(idle=1.0) as messages:
        for message in messages:
            message.reject(reason)
    return ids


# -- looking


def test_a_look_is_what_top_shows(page: Page, broker: Messaging, locks: Locks) -> None:
    """And of each lock its holders, with the tokens that an eviction needs."""
    broker.queue("a").publish(b"x")
    broker.topic("prices").subscription("g").declare()
    with locks.lock("invoice", label="box") as held:
        found = until(lambda: (look := page.ask("/look")[1])["locks"] and look)

    assert [(line["name"], line["ready"], line["dead"]) for line in found["queues"]] == [("a", 1, 0), ("prices.g", 0, 0)]
    (lock,) = found["locks"]
    assert (lock["name"], lock["holders"], lock["waiters"]) == ("invoice", 1, 0)
    assert [(each["label"], each["token"]) for each in lock["held_by"]] == [("box", str(held.token))]
    assert (found["error"], found["failing_for"], found["acts"]) == (None, None, True)


def test_the_page_is_one_file_that_may_load_nothing_else(page: Page) -> None:
    """Its policy allows its own script and style by their hashes, and requests to its own server. No answer is stored."""
    status, html = page.ask("/")
    policy = page.headers["Content-Security-Policy"]

    assert status == 200 and page.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}';" in policy
    assert not re.search(r"https?://|@import|url\(|innerHTML|outerHTML|insertAdjacent|document\.write|\son\w+=", html)


def test_dead_letters_are_shown_and_stay(page: Page, broker: Messaging) -> None:
    """As they are, whatever is in them: what becomes of it is the page's to decide, and it makes no HTML."""
    die(broker, "orders", HOSTILE.encode(), b"\xff\x00", reason=HOSTILE, key=HOSTILE, headers={HOSTILE: HOSTILE})
    page.ask("/look")

    status, found = page.ask("/dead", {"queue": "orders"})
    assert (status, page.headers.get_content_type()) == (200, "application/json")
    first, second = found["letters"]
    assert (first["body"], first["reason"], first["key"], first["headers"]) == (HOSTILE, HOSTILE, HOSTILE, {HOSTILE: HOSTILE})
    assert (second["body_base64"], second["bytes"]) == (base64.b64encode(b"\xff\x00").decode(), 2)
    assert broker.queue("orders").depth().dead == 2


def test_what_is_shown_of_dead_letters_is_bounded(page: Page, broker: Messaging) -> None:
    """In number, and each in length."""
    big = b"x" * 20_000
    die(broker, "orders", *[big] * 60, reason="y" * 20_000, headers={f"h{n}": "v" * 1100 for n in range(55)})
    page.ask("/look")

    letters = page.ask("/dead", {"queue": "orders"})[1]["letters"]
    assert len(letters) == 50
    assert {(len(each["body"]), each["bytes"], len(each["headers"]), len(each["headers"]["h0"])) for each in letters} == {
        (10_001, 20_000, 50, 1001)
    }
    assert all(len(each["reason"]) <= 10_001 for each in letters)


# -- acting


def test_redrive_one_and_all(page: Page, broker: Messaging) -> None:
    """With the token. The next look sees it at once; who did it is told, and the token is not."""
    first, *_ = die(broker, "orders", b"1", b"2", b"3")
    page.ask("/look")

    assert page.ask("/redrive", {"queue": "orders", "id": first}, token=TOKEN) == (200, {"redriven": 1, "most": 1000})
    assert [line["dead"] for line in page.ask("/look")[1]["queues"]] == [2]
    assert page.ask("/redrive", {"queue": "orders", "id": first}, token=TOKEN)[1]["redriven"] == 0
    assert page.ask("/redrive", {"queue": "orders", "all": True}, token=TOKEN)[1]["redriven"] == 2
    assert broker.queue("orders").depth().ready == 3
    assert page.end() == 0
    assert "redriven: 2 of 'orders', asked from 127.0.0.1" in page.said and TOKEN not in page.said


def test_what_was_done_is_answered_where_nobody_reads_the_log(page: Page, broker: Messaging) -> None:
    """Or who pressed the button would believe that it had failed."""
    die(broker, "orders", b"x")
    assert page.process.stderr is not None
    page.process.stderr.close()
    page.process.stderr = None

    assert page.ask("/look")[0] == 200
    assert page.ask("/redrive", {"queue": "orders", "all": True}, token=TOKEN) == (200, {"redriven": 1, "most": 1000})
    assert page.ask("/evict", {"name": "a", "token": "1"}, token=TOKEN) == (200, {"evicted": False})


def test_evict_exactly_that_holder(page: Page, locks: Locks) -> None:
    """The token is the fencing token of the look; another one evicts nobody."""
    held = locks.lock(HOSTILE, ttl=600).acquire()

    assert page.ask("/evict", {"name": HOSTILE, "token": str(held.token + 1)}, token=TOKEN) == (200, {"evicted": False})
    assert page.ask("/evict", {"name": HOSTILE, "token": str(held.token)}, token=TOKEN) == (200, {"evicted": True})
    assert locks.holders() == []
    assert page.ask("/evict", {"name": HOSTILE, "token": "x"}, token=TOKEN)[0] == 400


@pytest.mark.parametrize("path", ["/redrive", "/evict"])
def test_without_the_token_nothing_is_changed(page: Page, broker: Messaging, path: str) -> None:
    """Missing, wrong, or in the wrong place."""
    die(broker, "orders", b"1")
    page.ask("/look")
    body = {"queue": "orders", "all": True, "name": "x", "token": TOKEN}

    assert page.ask(path, body)[0] == 401
    assert page.ask(path, body, token=TOKEN[:-1])[0] == 401
    assert page.ask(f"{path}?token={TOKEN}", body)[0] == 401
    assert page.ask(path, body, Authorization=f"Basic {TOKEN}")[0] == 401
    assert broker.queue("orders").depth().dead == 1


def test_without_a_token_file_nobody_acts(url: str, broker: Messaging) -> None:
    """Whatever is sent; the answer says what to do, and looking goes on."""
    die(broker, "orders", b"1")
    page = Page(url)
    try:
        look = page.ask("/look")[1]
        assert (look["acts"], look["queues"][0]["dead"]) == (False, 1)
        for token in (None, "", "None"):
            status, found = page.ask("/redrive", {"queue": "orders", "all": True}, token=token)
            assert (status, found["error"]) == (
                403,
                "redrive and evict need a token: start narrowboat web with --token-file FILE",
            )
        assert broker.queue("orders").depth().dead == 1
    finally:
        page.end()


def test_another_name_makes_looking_need_the_token(url: str, token_file: Path) -> None:
    """A proxy brings others than those of this machine. The page itself says nothing, and is open."""
    page = Page(url, "--token-file", token_file, "--host", "Shop.Example")
    try:
        assert page.ask("/", Host="shop.example")[0] == 200
        assert page.ask("/look", Host="shop.example")[0] == 401
        assert page.ask("/dead", {"queue": "orders"})[0] == 401
        assert page.ask("/look", token=TOKEN, Host="shop.example:443")[0] == 200
    finally:
        page.end()


# -- what is refused


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", "", "[evil]"])
def test_a_foreign_host_is_refused(empty: Page, host: str) -> None:
    """A name of somebody else's that leads here would let their page read ours."""
    for path in ("/", "/look"):
        status, found = empty.ask(path, Host=host)
        assert (status, "--host" in str(found)) == (403, True)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.:1", "[::1]:80", "::1", "10.0.0.1", "shop.example:8090"])
def test_an_address_is_nobodys_name(host: str) -> None:
    """So are the names that were given."""
    Access(None, frozenset({"shop.example"}), anyone_looks=True).check("GET", {"host": host}, Need.LOOK)


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer x", f"Bearer {TOKEN} x", f"{TOKEN}", "Bearer \xff"])
def test_a_token_is_the_token_or_none(given: str) -> None:
    """Nothing else, and no odd text is an error."""
    access = Access(Secret(TOKEN), frozenset(), anyone_looks=False)
    access.check("GET", {"host": "localhost", "authorization": f"bearer {TOKEN}"}, Need.ACT)
    with pytest.raises(Refused) as refused:
        access.check("GET", {"host": "localhost", "authorization": given}, Need.LOOK)
    assert refused.value.status == 401 and TOKEN not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/redrive", b"queue=orders&all=true", {"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ("/redrive", b"{}", {"Content_Type": "text/plain"}, 415),
        ("/redrive", b"[1]", {}, 400),
        ("/redrive", b"[" * 60_000, {}, 400),
        ("/redrive", b"\xff", {}, 400),
        ("/redrive", {"queue": 1}, {}, 400),
        ("/redrive", {"queue_base64": "?", "all": True}, {}, 400),
        ("/redrive", {"queue": "orders"}, {}, 400),
        ("/redrive", {"queue": "nowhere", "all": True}, {}, 404),
        ("/redrive", b" " * 70_000, {}, 413),
        ("/evict", {"name": "x", "token": "9" * 1000}, {}, 400),
        ("/dead", {"queue": "nowhere"}, {}, 404),
        ("/dead", None, {}, 405),
        ("/nowhere", None, {}, 404),
    ],
)
def test_what_is_no_request_of_the_page_is_refused(
    empty: Page, path: str, body: object, headers: dict[str, str], status: int
) -> None:
    """With a status of HTTP. No queue is made by asking for one, and the next request is answered."""
    assert empty.ask(path, body, token=TOKEN, **headers)[0] == status
    status, look = empty.ask("/look")
    assert (status, look["error"], look["queues"]) == (200, None, [])


def test_only_what_was_asked_for_is_reached(url: str, broker: Messaging, token_file: Path) -> None:
    """A page of one queue does not redrive another."""
    die(broker, "orders", b"1")
    broker.queue("b").declare()
    page = Page(url, "--token-file", token_file, "--queue", "b", "--half", "messages")
    try:
        look = page.ask("/look")[1]
        assert ([line["name"] for line in look["queues"]], look["locks"]) == (["b"], None)
        assert page.ask("/redrive", {"queue": "orders", "all": True}, token=TOKEN)[0] == 404
        assert page.ask("/evict", {"name": "x", "token": "1"}, token=TOKEN)[0] == 400
    finally:
        page.end()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--queue", "ordrs"], 1, "there is no queue 'ordrs'. Did you mean 'orders'?"),
        (["--subscription", "prices"], 2, "expected TOPIC.GROUP, such as prices.dashboard"),
        (["--bind", "0.0.0.0:0"], 2, "say --token-file FILE, or --insecure"),
        (["--host", "shop.example"], 2, "say --token-file FILE, or --insecure"),
        (["--bind", "nonsense"], 2, "expected HOST:PORT such as"),
        (["--token-file", "/nowhere/token"], 2, "--token-file '/nowhere/token': No such file"),
        (["--token-file", "/dev/null"], 2, "expected one token of at least 16"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_shown(
    url: str, broker: Messaging, arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By one line, with the exit codes of `top`."""
    broker.queue("orders").declare()
    bind = [] if "--bind" in arguments else ["--bind", "127.0.0.1:0"]
    assert run(["web", url, *bind, *arguments]) == code
    assert said in capsys.readouterr().err


def test_what_cannot_be_listed_wants_names(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a connection: the claim says it."""
    assert run(["web", "kafka://localhost:1", "--bind", "127.0.0.1:0"]) == 2
    assert "does not claim listing" in capsys.readouterr().err


def test_a_taken_port(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Is one error at once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert run(["web", url, "--bind", address]) == 2
    assert f"cannot serve the page at '{address}': Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_a_missing_extra(url: str, missing: str) -> None:
    """Is one line that says how to get it; no other command needs it."""
    script = f"import sys; sys.modules[{missing!r}] = None; from narrowboat.cli import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", script, "web", url], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"narrowboat web needs {missing}, which is not installed: pip install --upgrade '.[web]'" in done.stderr


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit")
def test_idle_clients_keep_nobody_from_the_page(page: Page) -> None:
    """More of them than the process has files, which send nothing or half a request: the oldest make room."""
    host, _, port = page.address.rpartition(":")
    resource.prlimit(page.process.pid, resource.RLIMIT_NOFILE, (256, 256))
    with contextlib.ExitStack() as clients:
        for number in range(500):
            client = clients.enter_context(socket.create_connection((host, int(port)), timeout=HANGS))
            with contextlib.suppress(OSError):
                client.sendall(b"GET /look HT" if number % 2 else b"")
            if number % 100 == 99:
                assert page.ask("/look")[0] == 200
    assert page.end() == 0
    assert "Traceback" not in page.said


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_end_it(page: Page, signum: int, code: int) -> None:
    """As they end `run`, also while a browser keeps its connection."""
    host, _, port = page.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=HANGS):
        page.ask("/look")
        assert page.end(signum) == code
    assert page.said.count("\n") == 1


# -- a backend that is slow or away


def test_one_look_for_any_number_of_readers() -> None:
    """While it hangs, each of them is answered with what was seen before. After that it is kept for the interval."""
    now, begun, go = [0.0], [], threading.Event()

    def look() -> int:
        begun.append(now[0])
        if len(begun) == 2:
            assert go.wait(HANGS)
            raise Unavailable("no answer", backend="shop")
        return len(begun)

    async def readers(looks: Looks[int]) -> None:
        await asyncio.gather(*(looks.refresh() for _ in range(100)))

    async def scenario(threads: concurrent.futures.Executor) -> None:
        looks = Looks(look, threads, 0.05, lambda: now[0])
        await readers(looks)
        await readers(looks)
        assert (begun, looks.seen) == ([0.0], 1)  # the second time it was recent
        now[0] = 10.0
        await readers(looks)
        assert (begun, looks.seen, looks.age, looks.error) == ([0.0, 10.0], 1, 10.0, None)
        now[0] = 20.0
        go.set()
        await readers(looks)  # the one that hangs counts as theirs
        assert (begun, looks.seen, looks.failing_for, str(looks.error)) == ([0.0, 10.0], 1, 10.0, "no answer")
        await readers(looks)
        assert (begun[2:], looks.seen, looks.before, looks.failing_for, looks.error) == ([20.0], 3, 1, None, None)
        looks.forget()
        await readers(looks)
        assert (begun[3:], looks.seen) == ([20.0], 4)

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        asyncio.run(scenario(threads))


def test_a_backend_that_goes_away_and_comes_back(tmp_path: Path, url: str, broker: Messaging, token_file: Path) -> None:
    """The page says since when, shows what it last saw, and goes on; also where the backend is away when it starts."""
    pytest.importorskip("zmq")
    broker.queue("orders").publish(b"x")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"

    def serve() -> subprocess.Popen[str]:
        return command("serve", url, "--bind", f"tcp://{address}", stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    page = Page(f"zmq://{address}?timeout=0.5", "--interval", "0.1", "--token-file", token_file)
    server = None
    try:
        away = until(lambda: (look := page.ask("/look")[1])["error"] and look)
        assert (away["queues"], away["age"]) == (None, None) and away["failing_for"] > 0
        assert page.ask("/evict", {"name": "x", "token": "1"}, token=TOKEN)[0] == 503
        server = serve()
        until(lambda: page.ask("/look")[1]["queues"])
        server.send_signal(signal.SIGSTOP)  # connections stay, and nothing answers
        away = until(lambda: (look := page.ask("/look")[1])["error"] and look)
        assert away["queues"][0]["name"] == "orders" and away["age"] > 0
        assert page.ask("/look")[1]["failing_for"] > away["failing_for"]
        server.send_signal(signal.SIGCONT)
        until(lambda: page.ask("/look")[1]["error"] is None)
        server.kill()
        until(lambda: page.ask("/look")[1]["error"])
        assert page.end() == 0
    finally:
        page.process.kill()
        if server is not None:
            server.kill()
            server.wait()
