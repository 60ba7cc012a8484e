"""The misbehaving proxy, in front of a real server on a real socket."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from narrowboat.conformance.faults.network import Network, reachable
from narrowboat.conformance.faults.proxy import Proxy


class Echo(socketserver.BaseRequestHandler):
    """Answers each line with the line, and remembers it."""

    server: Server

    def handle(self) -> None:
        with contextlib.suppress(OSError), self.request.makefile("rb") as lines:
            for line in lines:
                self.server.heard.append(line)
                self.request.sendall(b"re " + line)
        self.server.ended.set()


class Server(socketserver.ThreadingTCPServer):
    """On a free port."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.heard: list[bytes] = []
        self.ended = threading.Event()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", server.server_address[1]) as made:
        yield made


def connect(proxy: Proxy) -> socket.socket:
    client = socket.create_connection(proxy.address, timeout=5)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def ask(client: socket.socket, line: bytes = b"hello\n") -> bytes:
    client.sendall(line)
    got = b""
    while not got.endswith(b"\n"):
        part = client.recv(100)
        if not part:
            return got
        got += part
    return got


def test_it_passes_everything_on(proxy: Proxy) -> None:
    """Untouched, in both directions, with many connections, and a megabyte at once."""
    clients = [connect(proxy) for _ in range(20)]
    assert [ask(client, b"%d\n" % number) for number, client in enumerate(clients)] == [b"re %d\n" % n for n in range(20)]
    large = b"x" * 1_000_000 + b"\n"
    sender = threading.Thread(target=clients[0].sendall, args=(large,))
    sender.start()
    got = b""
    while not got.endswith(b"\n"):
        got += clients[0].recv(65536)
    sender.join()
    assert got == b"re " + large
    assert proxy.accepted == 20
    assert proxy.connections == 20
    for client in clients:
        client.close()


def test_a_polite_end_is_passed_on(server: Server, proxy: Proxy) -> None:
    """When the client has said all, the server sees its end, and the client the server's."""
    with connect(proxy) as client:
        assert ask(client) == b"re hello\n"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b""
    assert server.ended.wait(5)


def test_reset_breaks_what_is_open_and_nothing_else(proxy: Proxy) -> None:
    """The client gets a RST, not a polite end, and may connect again at once."""
    with connect(proxy) as client:
        ask(client)
        assert proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    with connect(proxy) as again:
        assert ask(again) == b"re hello\n"


def test_refuse_turns_new_ones_away(proxy: Proxy) -> None:
    """What is open stays open; after heal() new ones are taken on the same address."""
    address = proxy.address
    with connect(proxy) as client:
        ask(client)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        assert ask(client) == b"re hello\n"
    proxy.heal()
    assert proxy.address == address
    with connect(proxy) as again:
        assert ask(again) == b"re hello\n"


@pytest.mark.parametrize(("up", "down", "heard"), [(True, False, 0), (False, True, 1), (True, True, 0)])
def test_a_black_hole_keeps_back_until_it_is_healed(server: Server, proxy: Proxy, up: bool, down: bool, heard: int) -> None:
    """Nothing comes through in that direction, nobody is told, and nothing is lost."""
    with connect(proxy) as client:
        ask(client)
        server.heard.clear()
        proxy.black_hole(up=up, down=down)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            ask(client, b"late\n")
        assert len(server.heard) == heard
        client.settimeout(5)
        proxy.heal()
        assert client.recv(100) == b"re late\n"
        assert server.heard == [b"late\n"]


def test_a_dropped_request_never_arrives(server: Server, proxy: Proxy) -> None:
    """The server does not see it; the client gets a RST; the next connection works."""
    with connect(proxy) as client:
        ask(client)
        assert ask(client, b"kept\n") == b"re kept\n"
        proxy.drop_request()
        with pytest.raises(ConnectionResetError):
            ask(client, b"lost\n")
    assert b"lost\n" not in server.heard
    assert proxy.dropped == 1
    with connect(proxy) as again:
        assert ask(again, b"lost\n") == b"re lost\n"


def test_a_dropped_reply_means_it_was_done(server: Server, proxy: Proxy) -> None:
    """The server has done it, and the client does not know."""
    with connect(proxy) as client:
        ask(client)
        proxy.drop_reply()
        with pytest.raises(ConnectionResetError):
            ask(client, b"done\n")
    assert server.heard[-1] == b"done\n"


def test_a_reply_can_be_cut_in_the_middle(server: Server, proxy: Proxy) -> None:
    """The first bytes arrive, the rest never does."""
    with connect(proxy) as client:
        ask(client)
        proxy.drop_reply(keep=4)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            got = ask(client, b"done\n")
        assert got in (b"re d", b"")  # a RST may overtake what arrived before it
    assert server.heard[-1] == b"done\n"


def test_slowness_is_at_least_what_was_asked_for(proxy: Proxy) -> None:
    """Latency is counted each way; pieces arrive one by one and whole."""
    with connect(proxy) as client:
        proxy.slow(latency=0.05)
        begun = time.monotonic()
        assert ask(client) == b"re hello\n"
        assert time.monotonic() - begun >= 0.1
        proxy.slow(piece=1)
        assert ask(client) == b"re hello\n"
        proxy.slow(piece=1, rate=200)
        begun = time.monotonic()
        assert ask(client) == b"re hello\n"
        assert time.monotonic() - begun >= (5 + 8) / 200


def test_a_server_that_is_not_there_is_a_reset() -> None:
    """As with any proxy the connection is made first; it breaks at once, on a busy machine before `connect` returns."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Proxy("127.0.0.1", port) as proxy, contextlib.suppress(ConnectionResetError), connect(proxy) as client:
        assert client.recv(10) == b""


def test_closing_gives_everything_back(proxy: Proxy) -> None:
    """Its thread ends, its port is free, open connections break; closing again does nothing."""
    client = connect(proxy)
    ask(client)
    address = proxy.address
    proxy.close()
    proxy.close()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        client.recv(10)
    client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
    assert not [thread for thread in threading.enumerate() if thread.name == "conformance-proxy"]


def test_closing_ends_what_is_still_being_connected() -> None:
    """A server whose queue is full lets nobody in; who waits for it at the proxy is not left behind."""
    with socket.socket() as full, contextlib.ExitStack() as fillers:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        with Proxy(*full.getsockname()) as proxy:
            client = fillers.enter_context(connect(proxy))
            until = time.monotonic() + 5
            while proxy.accepted == 0 and time.monotonic() < until:
                threading.Event().wait(0.005)
            proxy.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_a_network_stands_before_each_host(server: Server) -> None:
    """A URL with hosts and ports leads through one proxy for each; one without cannot."""
    port = server.server_address[1]
    url = f"some://user:p%40ss@127.0.0.1:{port},localhost:{port}/path?x=1"
    network = Network(url)
    try:
        ports = [proxy.address[1] for proxy in network.proxies]
        assert network.url == f"some://user:p%40ss@127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}/path?x=1"
        clients = [connect(proxy) for proxy in network.proxies]
        assert [ask(client) for client in clients] == [b"re hello\n"] * 2
        assert network.connections == 2
        assert network.reset() == 2
        for client in clients:
            client.close()
    finally:
        network.close()
    assert reachable(url)
    assert not reachable("some://localhost/path")
    assert not reachable("some:///path")
