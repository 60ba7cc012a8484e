"""Probes of a worker over HTTP: what they answer, and that no client can keep them, or the worker, from it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

import narrowboat
from narrowboat.errors import ConfigurationError, Unavailable
from narrowboat.health import Connection
from narrowboat.layers.faults import Faults
from narrowboat.working import Health, SourceHealth
from narrowboat.working import probes as probes_module
from narrowboat.working.probes import MOST, PATIENCE, REQUEST, Probes

RUNNING = Health(
    (SourceHealth("orders", "ship", "running", handled=3, failed=1),), Connection("memory://x", "memory", "connected")
)
AWAY = Health((SourceHealth("orders", "ship", "running"),), Connection("memory://x", "memory", "lost"))
FAILED = Health((SourceHealth("orders", "ship", "failed", error="Conflict: two"),))


def ask(probes: Probes, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(probes.address, timeout=60)
    connection.request(method, path)
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    return reply.status, body


def dial(probes: Probes) -> socket.socket:
    host, _, port = probes.address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=60)


@pytest.fixture
def running() -> Iterator[Probes]:
    with Probes("127.0.0.1:0", lambda: RUNNING) as probes:
        yield probes


@pytest.mark.parametrize(
    ("health", "live", "ready"), [(RUNNING, 200, 200), (AWAY, 200, 503), (FAILED, 503, 503), (Health(()), 200, 503)]
)
def test_live_and_ready_are_the_workers_health(health: Health, live: int, ready: int) -> None:
    """200 or 503, and the health as JSON; an outage of the broker is no reason to restart."""
    with Probes("0", lambda: health) as probes:
        assert ask(probes, "/live")[0] == live
        status, body = ask(probes, "/ready?verbose")
        assert status == ready
        told = json.loads(body)
        assert (told["live"], told["ready"], len(told["sources"])) == (live == 200, ready == 200, len(health.sources))


def test_metrics_are_the_health_as_numbers_and_what_is_added(running: Probes) -> None:
    """In Prometheus' text format; labels are escaped."""
    odd = Health((SourceHealth('a"b\n', "ship", "running", handled=3),))
    with Probes("0", lambda: odd, lambda: b"shop_orders 5\n") as probes:
        status, body = ask(probes, "/metrics")

    assert status == 200 and body.endswith(b"shop_orders 5\n")
    assert b'narrowboat_worker_calls_returned_total{source="a\\"b\\n",handler="ship"} 3\n' in body
    status, body = ask(running, "/metrics")
    assert b"narrowboat_worker_ready{} 1\n" in body and b'narrowboat_worker_broker_reached{backend="memory"} 1\n' in body


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET /nowhere HTTP/1.1\r\n\r\n", 404),
        (b"POST /live HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\n\n", 400),
        (b"GET /live HTTP/1.1\nHost: x\n\n", 200),
        (b"GET /live HTTP/1.1\r\n" + b"x: y\r\n" * 10_000 + b"\r\n", 431),
        (b"x" * REQUEST, 431),
    ],
)
def test_what_is_no_probe_is_refused(running: Probes, request_text: bytes, status: int) -> None:
    """With a status of HTTP, and the connection is closed; the next probe is answered."""
    with dial(running) as client:
        with contextlib.suppress(OSError):  # it may have been closed before all of it was sent
            client.sendall(request_text)
        with contextlib.suppress(ConnectionResetError):  # what is not read is why
            got = client.recv(100)
            assert got.startswith(f"HTTP/1.1 {status} ".encode())
    assert ask(running, "/live")[0] == 200


def test_a_head_has_no_body(running: Probes) -> None:
    """And the status of a GET."""
    assert ask(running, "/ready", "HEAD") == (200, b"")


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_goes_wrong_within_is_an_answer(kind: type[BaseException]) -> None:
    """A collector of the program's own that raises costs one scrape."""

    def broken() -> bytes:
        raise kind("secret")

    with Probes("0", lambda: RUNNING, broken) as probes:
        assert ask(probes, "/metrics") == (500, f"{kind.__name__}\n".encode())
        assert ask(probes, "/ready")[0] == 200


def test_idle_clients_keep_no_probe_away(running: Probes) -> None:
    """Hundreds of connections that send half a request or nothing: the oldest make room, one thread serves, files stay few."""
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    clients = []
    for number in range(300):
        client = dial(running)
        clients.append(client)
        with contextlib.suppress(OSError):
            client.sendall(b"GET /live HT" if number % 2 else b"")
        if number % 50 == 49:
            assert ask(running, "/live")[0] == 200

    assert threading.active_count() == threads
    if files:
        assert len(os.listdir("/proc/self/fd")) <= files + len(clients) + MOST
    for client in clients:
        client.close()
    assert ask(running, "/live")[0] == 200


def test_a_slow_client_is_closed(running: Probes, monkeypatch: pytest.MonkeyPatch) -> None:
    """After PATIENCE seconds, whatever has come until then."""
    monkeypatch.setattr(probes_module, "PATIENCE", 0.2)
    with dial(running) as client:
        client.sendall(b"GET /live HTTP/1.1\r\n")
        assert client.recv(100) == b""
    assert PATIENCE > 0.2


def test_a_client_that_reads_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer larger than all buffers waits for nobody for longer than that, and others are answered meanwhile."""
    monkeypatch.setattr(probes_module, "PATIENCE", 1.0)
    with Probes("0", lambda: RUNNING, lambda: b"x" * 50_000_000) as probes, dial(probes) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        ends = time.monotonic() + 60
        while not probes._clients and time.monotonic() < ends:
            time.sleep(0.001)  # there is nothing to be waited for: the client gets no event before it reads
        monkeypatch.undo()  # the next client may be slower than that on a busy machine
        assert ask(probes, "/ready")[0] == 200
        while probes._clients and time.monotonic() < ends:
            time.sleep(0.01)
        assert not probes._clients


def test_a_taken_port_is_one_error_at_once() -> None:
    """Before anything is consumed: the probes are bound when they are made."""
    said = r"cannot answer probes at .*: .*in use\. Nothing was consumed"
    with Probes("127.0.0.1:0", lambda: RUNNING) as probes, pytest.raises(ConfigurationError, match=said):
        Probes(probes.address, lambda: RUNNING)


@pytest.mark.parametrize(
    "address",
    ["", "shop", "host:", "host:x", "::1:8080", "h:70000", "127.0.0.1:-1", ":8080", "h:" + "9" * 5000, 8080, None, b"h:80"],
    ids=lambda address: repr(address)[:20],
)
def test_what_is_no_address_is_refused(address: Any) -> None:
    """With what one looks like."""
    with pytest.raises(ConfigurationError, match="expected HOST:PORT such as"):
        Probes(address, lambda: RUNNING)


@pytest.mark.parametrize("host", ["a..b", "a" * 70, "\udcff", "a\0b"], ids=ascii)
def test_a_name_that_cannot_be_asked_for_is_refused(host: str) -> None:
    """Its error is none of the system's."""
    with pytest.raises(ConfigurationError, match="cannot answer probes at"):
        Probes(f"{host}:0", lambda: RUNNING)


def test_all_addresses_of_a_name_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first may be one of IPv6, which this machine does not have. A port that is taken is taken."""
    there = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0))
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("2001:db8::1", 0, 0, 0)), there]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)
    with Probes("both:0", lambda: RUNNING) as probes:
        assert probes.address.startswith("127.0.0.1:")
        taken = (*there[:-1], ("127.0.0.1", int(probes.address.rpartition(":")[2])))
        found[:] = [taken, there]
        with pytest.raises(ConfigurationError, match="in use"):
            Probes("both:0", lambda: RUNNING)
    found[:] = [(socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("2001:db8::1", 0, 0, 0))]
    with pytest.raises(ConfigurationError, match="cannot answer probes at 'both:0'"):
        Probes("both:0", lambda: RUNNING)


def test_a_port_alone_is_loopback() -> None:
    """Nobody else's machine reaches it unless that is said."""
    with Probes("0", lambda: RUNNING) as probes:
        assert probes.address.startswith("127.0.0.1:")


def test_after_its_end_the_port_is_free_and_no_thread_is_left() -> None:
    """And all connections are closed."""
    before = threading.active_count()
    with Probes("0", lambda: RUNNING) as probes:
        client, address = dial(probes), probes.address
        ask(probes, "/live")
    assert client.recv(1) == b"" and threading.active_count() == before
    client.close()
    with Probes(address, lambda: RUNNING) as again:
        assert ask(again, "/live")[0] == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_lets_go_of_the_port() -> None:
    """A child that outlives its parent must not keep the next worker from the port."""
    with Probes("0", lambda: RUNNING) as probes:
        listener = probes._listener
        child = os.fork()
        if child == 0:
            try:
                probes.__exit__(None, None, None)
                os._exit(0 if listener.fileno() == -1 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert ask(probes, "/live")[0] == 200


def test_one_that_was_never_entered_can_be_left() -> None:
    """And left again: its port is free."""
    probes = Probes("0", lambda: RUNNING)
    address = probes.address
    for _ in range(2):
        probes.__exit__(None, None, None)
    with Probes(address, lambda: RUNNING) as again:
        assert ask(again, "/live")[0] == 200


def test_a_worker_whose_broker_is_away_is_live_and_not_ready() -> None:
    """Its consumers wait, so their state alone would not show it."""
    faults, url = Faults(), f"memory://{uuid.uuid4().hex}"
    back = threading.Event()
    with narrowboat.broker(url, wrap=faults.wrap, listeners=[]) as broker:
        worker = narrowboat.Worker(broker)
        handled = threading.Event()
        worker.queue("orders")(lambda message: handled.set())
        with worker, Probes("0", worker.health) as probes:
            broker.queue("orders").publish(b"kettle")
            assert handled.wait(60)
            faults.fail("ping", Unavailable("no route to it", backend="memory"), times=2)
            for _ in range(2):
                with pytest.raises(Unavailable):
                    broker.ping()
            # a message that comes now would end the outage, so there is none
            assert worker.health().broker is not None
            status = ask(probes, "/live")[0], ask(probes, "/ready")[0]
            assert status == (200, 503)
            broker.ping()
            assert ask(probes, "/ready")[0] == 200
            back.set()
