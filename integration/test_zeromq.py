"""`narrowboat serve` itself, a real process: restarts, kills, drains, hostile and foreign peers, keys, what callers hear."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import narrowboat
from integration.servers import ZeroMQServer
from integration.servers.ports import LOOPBACK, free_port
from narrowboat.errors import AccessDenied, ConfigurationError, NarrowboatError, PublishFailed, Unavailable

zmq = pytest.importorskip("zmq")


@pytest.fixture
def server() -> Iterator[ZeroMQServer]:
    with ZeroMQServer() as made:
        yield made


def until(found: Callable[[], bool], bound: float = 30.0) -> None:
    """Wait until it is so."""
    ends = time.monotonic() + bound
    while not found():
        assert time.monotonic() < ends, "it did not become so in time"
        time.sleep(0.02)  # the pause between two looks at another process


class Peer:
    """A client that is not ours: raw frames."""

    def __init__(self, server: ZeroMQServer) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.rcvtimeo = 20_000
        self.socket.connect(f"tcp://{LOOPBACK}:{server.port}")

    def say(self, *frames: bytes) -> Any:
        """What is answered."""
        self.socket.send_multipart(frames)
        return json.loads(self.socket.recv_multipart()[0])

    def greet(self, version: int = 1, **more: object) -> Any:
        said = {
            "session": "0" * 32,
            "connection": 1,
            "half": "messages",
            "namespace": "raw",
            "options": {},
            "survives": "power",
        }
        return self.say(json.dumps([0, "hello", version, said | more]).encode())

    def close(self) -> None:
        self.socket.close()
        self.context.term()


@pytest.fixture
def peer(server: ZeroMQServer) -> Iterator[Peer]:
    made = Peer(server)
    yield made
    made.close()


# -- its life ------------------------------------------------------------------------------------------------------


def test_a_restart_goes_on_where_it_was(server: ZeroMQServer) -> None:
    """A lock stays held and is renewed; a delivery that was out before is settled after; a consumer goes on."""
    with narrowboat.locks(server.url) as locks, narrowboat.broker(server.url) as broker:
        queue = broker.queue("orders")
        queue.declare()
        queue.publish_many([b"one", b"two"])
        held = locks.lock("invoice", ttl=30).acquire()
        with queue.consume(prefetch=1) as consumer:
            first = consumer.receive(timeout=20)
            assert first is not None and first.body == b"one"
            server.restart()
            first.ack()
            second = consumer.receive(timeout=30)
            assert second is not None and second.body == b"two" and second.attempt == 1
            second.ack()
        until(lambda: queue.depth().ready == 0 and queue.depth().in_flight == 0)
        assert [each.token for each in locks.holders()] == [held.token]
        assert not held.lost
        held.release()
        assert locks.holders() == []


def test_sigterm_drains_and_says_so(server: ZeroMQServer) -> None:
    with narrowboat.broker(server.url) as broker:
        broker.queue("orders").publish(b"kept")
        server.stop()
        assert server.log().endswith("ended in order\n")
        server.start()
        assert broker.queue("orders").depth().ready == 1


STORM = """
import sys, narrowboat
from narrowboat import Receipt
with narrowboat.broker(sys.argv[1]) as broker:
    queue = broker.queue("storm")
    for number in range(10**9):
        ids = [f"{sys.argv[2]}-{number}-{each}" for each in range(10)]
        outcomes = queue.publish_many([id.encode() for id in ids])
        confirmed = [id for id, outcome in zip(ids, outcomes) if isinstance(outcome, Receipt)]
        if confirmed:
            print(*confirmed, flush=True)
"""


def test_nothing_that_was_confirmed_is_lost_by_three_kills(server: ZeroMQServer, tmp_path: Path) -> None:
    """Four publishers print what was confirmed; the server is killed under them and begun again, three times."""
    script = tmp_path / "storm.py"
    script.write_text(STORM)
    outputs = [tmp_path / f"confirmed{number}" for number in range(4)]

    def confirmed() -> list[str]:
        return [line for path in outputs for line in path.read_text().splitlines(keepends=True)]

    programs = []
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path)}
    try:
        for number, path in enumerate(outputs):
            with path.open("w") as file:
                program = [sys.executable, str(script), server.url, str(number)]
                programs.append(subprocess.Popen(program, stdout=file, env=env))  # ours
        for _ in range(3):
            before = len(confirmed())
            until(lambda before=before: len(confirmed()) > before + 20, 60)  # type: ignore[misc]  # a default
            server.kill()
            server.start()
        before = len(confirmed())
        until(lambda: len(confirmed()) > before + 20, 60)
    finally:
        for process in programs:
            process.kill()
            process.wait()
    owed = {id for line in confirmed() if line.endswith("\n") for id in line.split()}
    assert len(owed) > 600
    with narrowboat.broker(server.url) as broker:
        depth = broker.queue("storm").depth()
    server.stop()
    with contextlib.closing(sqlite3.connect(server.file)) as database:
        stored = [body.decode() for (body,) in database.execute("SELECT body FROM message")]
    assert not owed - set(stored), f"{len(owed - set(stored))} of {len(owed)} confirmed messages are lost"
    assert depth.ready == len(stored) == len(set(stored)), "each is there to be delivered, and none is there twice"


def test_a_client_that_goes_away_is_missed_and_its_feed_closed(server: ZeroMQServer, peer: Peer) -> None:
    """What it had comes to another consumer long before its lease of ten minutes ends."""
    assert peer.greet()[1] == "welcome"
    source = [["queue", "orders", ""], 600.0, 5, False, 0]
    assert peer.say(json.dumps([1, "open", 1, source, False]).encode()) == [1, "ok", True]
    assert peer.say(json.dumps([2, "send", [_message("m1")]]).encode(), b"body") == [2, "ok", [True]]
    heard = peer.say(b'[3,"receive",1,10]')
    while heard[0] != 3:  # a wake may come before
        heard = json.loads(peer.socket.recv_multipart()[0])
    assert [row[0] for row in heard[2][0]] == ["m1"]
    broker = narrowboat.broker(server.url_for("client", "raw"))
    with broker, broker.queue("orders", lease=600.0).consume() as consumer:
        message = consumer.receive(timeout=60)
        assert message is not None and message.id == "m1" and message.attempt == 2
        message.ack()
    assert "narrowboat_serve_clients_missed_total 1" in server.health("/metrics")


def _message(id: str) -> list[object]:
    return [["queue", "orders", ""], id, 4, {}, None, 0.0, 0.0, 0, None, None, None, None, False, None]


def test_systemd_hears_that_it_is_ready_and_that_it_ends(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(60)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        process = run("sqlite:///" + str(tmp_path / "x.db"), "--bind", f"tcp://{LOOPBACK}:{free_port()}", env=env)
        try:
            assert ear.recv(1000).startswith(b"READY=1\nSTATUS=serving sqlite:")
            process.terminate()
            assert ear.recv(1000) == b"STOPPING=1"
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.communicate()


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path if path)
    return subprocess.Popen(  # ours
        [sys.executable, "-m", "narrowboat", "serve", *arguments],
        env={**os.environ, "PYTHONPATH": paths, **(env or {})},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# -- what it refuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["memory://", "--bind", "tcp://127.0.0.1:1"], "proven with sqlite:// alone"),
        (["sqlite:///x.db", "--bind", "tcp://0.0.0.0:5555"], "without keys whoever reaches it may do anything"),
        (["sqlite:///x.db", "--bind", "udp://127.0.0.1:5555"], "udp"),
        (["sqlite:///x.db", "--bind", "tcp://127.0.0.1"], "write tcp://ADDRESS:PORT"),
        (["sqlite:///x.db?prefix=a"], "option prefix of the URL that is served"),
        (["sqlite:///x.db", "--key", "k"], "belong together"),
        (["sqlite:///x.db", "--key", "none.secret", "--clients", "none"], "No such file"),
        (["sqlite:///x.db", "--bind", "tcp://192.0.2.1:5555", "--insecure"], "no address of this machine"),
        (["sqlite:///no/such/folder/x.db"], "folder"),
        ([], "which backend is to be served"),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    bind = [] if "--bind" in arguments else ["--bind", f"tcp://{LOOPBACK}:{free_port()}"]
    process = run(*arguments, *bind)
    _, error = process.communicate(timeout=120)
    assert process.returncode not in (0, 70) and said in error and error.count("\n") == 1, error


def test_a_file_that_is_a_stranger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"this is no database" * 100)
    process = run(f"sqlite:///{tmp_path / 'x.db'}", "--bind", f"tcp://{LOOPBACK}:{free_port()}")
    _, error = process.communicate(timeout=120)
    assert process.returncode not in (0, 70) and "x.db" in error and "Traceback" not in error


HOSTILE: list[tuple[list[bytes], str]] = [
    ([b""], "no JSON"),
    ([b"\xff" * 100], "no JSON"),
    ([b"[" * 100_000], "no JSON"),
    ([b'[1,"send",[]]'], "has not greeted"),
    ([b'["x"]'], "neither a greeting"),
    ([b'[0,"hello",1]'], "a version and an object"),
    ([b'[0,"hello",1,{"session":"x","connection":1}]'], "32 hexadecimal digits"),
    ([b"[1]"] * 1100, "frames"),
]


@pytest.mark.parametrize(("frames", "said"), HOSTILE, ids=[said for _, said in HOSTILE])
def test_a_hostile_frame_is_refused_and_told_why(peer: Peer, frames: list[bytes], said: str) -> None:
    id, what, error = peer.say(*frames)
    assert (id, what) == (0, "refused") and said in error[2]


def test_hostile_requests_are_refused_and_others_are_served(server: ZeroMQServer, peer: Peer) -> None:
    """Each is answered with its own id; nothing of it is done; and the server serves whoever else is there."""
    assert peer.greet()[1] == "welcome"
    wild: list[Any] = [None, True, -1, 2**70, 1e400, "", "x" * 2000, "a\0b", [], {}, [[]] * 5, _message("m")]
    with narrowboat.broker(server.url_for("client", "raw")) as broker:
        for number, op in enumerate(("send", "receive", "settle", "extend", "open", "close", "depth", "purge", "nonsense"), 1):
            for each in wild:
                for args in ([], [each], [each, each], [each, each, each], [1, [each], each]):
                    raw = json.dumps([number, op, *args]).replace("Infinity", "1e999").encode()
                    heard = peer.say(raw)
                    assert heard[0] in (0, number) and heard[1] in ("error", "refused", "ok", "forgotten"), (raw, heard)
        broker.queue("fine").publish(b"x")
        assert broker.queue("fine").depth().ready == 1
    assert "refused" in server.log() or "raised" in server.log() or server.alive


def test_another_version_is_told_which_one_is_spoken(peer: Peer) -> None:
    id, what, error = peer.greet(version=2)
    assert (id, what, error[1]) == (0, "refused", "ConfigurationError")
    assert "speaks version 1" in error[2] and "version 2" in error[2]


def test_a_client_that_stands_on_more_than_is_kept_is_refused() -> None:
    with ZeroMQServer(query="durability=normal") as server:
        with narrowboat.locks(server.url) as locks, pytest.raises(ConfigurationError, match="durability=normal"):
            locks.ping()
        with narrowboat.locks(server.url + "?durability=normal") as locks:
            locks.ping()


# -- what a client is told -----------------------------------------------------------------------------------------


def test_nobody_there_is_told_at_once() -> None:
    port = free_port()
    with narrowboat.broker(f"zmq://{LOOPBACK}:{port}/shop", timeout=5.0) as broker:
        begun = time.monotonic()
        with pytest.raises(Unavailable, match="no narrowboat serve was reached .*refused.*nothing was sent"):
            broker.ping()
        assert time.monotonic() - begun < 4.0
        with pytest.raises(PublishFailed, match="not sent"):
            broker.queue("orders").publish(b"x")


def test_a_port_of_another_program_is_told() -> None:
    """One that says nothing, and one that speaks HTTP."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        locks = narrowboat.locks(f"zmq://{LOOPBACK}:{listener.getsockname()[1]}", timeout=1.0)
        with locks, pytest.raises(Unavailable, match="nothing was sent"):
            locks.ping()
    with socket.create_server((LOOPBACK, 0)) as listener:

        def speak() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 100)
                connection.recv(1000)

        talker = threading.Thread(target=speak)
        talker.start()
        locks = narrowboat.locks(f"zmq://{LOOPBACK}:{listener.getsockname()[1]}", timeout=3.0)
        with locks, pytest.raises(NarrowboatError, match="narrowboat serve"):
            locks.ping()
        talker.join()


def test_a_zeromq_peer_that_is_not_ours_is_told() -> None:
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.linger = 0
    port = router.bind_to_random_port(f"tcp://{LOOPBACK}")
    try:
        with (
            narrowboat.locks(f"zmq://{LOOPBACK}:{port}", timeout=1.0) as locks,
            pytest.raises(Unavailable, match="nobody answered"),
        ):
            locks.ping()

        def speak() -> None:
            router.send_multipart([router.recv_multipart()[0], b"hello yourself"])

        while router.poll(0):
            router.recv_multipart()
        talker = threading.Thread(target=speak)
        talker.start()
        locks = narrowboat.locks(f"zmq://{LOOPBACK}:{port}", timeout=5.0)
        with locks, pytest.raises(ConfigurationError, match="answered our greeting"):
            locks.ping()
        talker.join()
    finally:
        router.close()
        context.term()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("zmq://127.0.0.1/a b", "namespace"),
        ("zmq://127.0.0.1/a/b", "namespace"),
        ("zmq://user:secret@127.0.0.1/a", "no user and no password"),
        ("zmq://a,b/shop", "one host"),
        ("zmqs://127.0.0.1/shop", "needs \\?server_key="),
        ("zmq://127.0.0.1/shop?key=x", "write zmqs://"),
        ("zmqs://127.0.0.1/shop?key=/none&server_key=/none", "No such file"),
        ("zmq+tcp://127.0.0.1", "only one driver"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_when_the_face_is_made(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        narrowboat.locks(url)
    with pytest.raises(ConfigurationError, match=said):
        narrowboat.broker(url)


def test_without_pyzmq_it_is_said_what_to_install() -> None:
    script = "import sys; sys.modules['zmq'] = None; import narrowboat; narrowboat.locks('zmq://localhost')"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path)}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=False)
    assert "ConfigurationError: zmq:// needs zmq, which is not installed" in found.stderr and "[zeromq]" in found.stderr


# -- keys ----------------------------------------------------------------------------------------------------------


def test_only_known_keys_come_in_and_the_file_is_read_again(tmp_path: Path) -> None:
    with ZeroMQServer(secure=True) as server:
        with narrowboat.locks(server.url) as locks:
            locks.lock("a").acquire().release()
        with narrowboat.locks(server.url_for("stranger"), timeout=3.0) as locks:
            with pytest.raises(AccessDenied, match="knows no client with our public key"):
                locks.ping()
            server.let_in("stranger")
            server.signal(signal.SIGHUP)
            until(lambda: "2 clients are known" in server.log())
            locks.ping()
        plain = f"zmq://{LOOPBACK}:{server.port}/kit"
        with narrowboat.locks(plain, timeout=3.0) as locks, pytest.raises(NarrowboatError, match="zmqs://"):
            locks.ping()
        server.make_keys("other")
        wrong = server.url.replace("server.public", "other.public")
        with narrowboat.locks(wrong, timeout=3.0) as locks, pytest.raises(NarrowboatError, match="key of this server|reached"):
            locks.ping()
        secret = (server.directory / "client.secret").read_text().split()[-1]
        assert secret not in server.log() and secret not in repr(locks)


def test_keys_are_written_for_their_owner_alone_and_never_over_others(tmp_path: Path) -> None:
    process = run("--keygen", str(tmp_path / "box"))
    out, _ = process.communicate(timeout=120)
    assert out.split() == [str(tmp_path / "box.secret"), str(tmp_path / "box.public")]
    assert (tmp_path / "box.secret").stat().st_mode & 0o777 == 0o600
    before = (tmp_path / "box.secret").read_text()
    process = run("--keygen", str(tmp_path / "box"))
    _, error = process.communicate(timeout=120)
    assert process.returncode != 0 and "cannot be written" in error
    assert (tmp_path / "box.secret").read_text() == before


# -- while it runs -------------------------------------------------------------------------------------------------


def test_an_idle_consumer_is_woken_by_a_push(server: ZeroMQServer) -> None:
    """Also where its own next look is far away: the message comes long before it."""
    with narrowboat.broker(server.url) as broker, narrowboat.broker(server.url) as other:
        queue = broker.queue("orders")
        with queue.consume() as consumer:
            assert consumer.receive(timeout=0.2) is None
            waits: list[float] = []
            for number in range(20):
                found: list[Any] = []
                thread = threading.Thread(
                    target=lambda found=found: found.append((consumer.receive(timeout=20), time.monotonic()))
                )
                thread.start()
                until(lambda: True)
                sent = time.monotonic()
                other.queue("orders").publish(str(number).encode())
                thread.join()
                message, came = found[0]
                message.ack()
                waits.append(came - sent)
            assert sorted(waits)[len(waits) // 2] < 0.5, waits


def test_an_idle_consumer_does_not_ask(server: ZeroMQServer) -> None:
    """The server looks for it: in three seconds it asks when it begins, and once more where a wake was in vain."""
    with narrowboat.broker(server.url) as broker, broker.queue("orders").consume() as consumer:
        assert consumer.receive(timeout=3.0) is None
        (asked,) = re.findall(r'requests_total{op="receive"} (\d+)', server.health("/metrics"))
        assert int(asked) <= 3
        broker.queue("orders").publish(b"later", delay=1.0)
        message = consumer.receive(timeout=20)
        assert message is not None and message.attempt == 1
        message.ack()


def test_metrics_and_health_say_what_is_there(server: ZeroMQServer) -> None:
    assert server.health("/healthz") == "ok\n"
    with narrowboat.broker(server.url) as broker, broker.queue("orders").consume() as consumer:
        assert consumer.receive(timeout=0.1) is None
        text = server.health("/metrics")
        assert "narrowboat_serve_sessions 1" in text and "narrowboat_serve_feeds 1" in text
        assert 'narrowboat_serve_requests_total{op="receive"}' in text
    until(lambda: "narrowboat_serve_sessions 0" in server.health("/metrics"))
