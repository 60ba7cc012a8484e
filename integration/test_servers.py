"""The servers keep what they promise to the tests that use them: they come back, they end, they stay on the loopback."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bounds import upper
from integration.fixtures import Servers, obtain
from integration.looks import Look
from integration.servers import (
    KafkaServer,
    RabbitMQServer,
    RedisCluster,
    RedisSentinel,
    RedisServer,
    Server,
    ServerFailed,
    ZooKeeperEnsemble,
    ZooKeeperServer,
)
from integration.servers.kafka import announced
from integration.servers.ports import listening
from integration.servers.process import Process
from narrowboat.dsn import Url

each = pytest.mark.parametrize("look", [pytest.param(look, id=look.kind.name) for look in Look.all])


@pytest.fixture
def own(servers: Servers) -> Iterator[Callable[..., Server]]:
    """A server for one test; it ends with it."""
    yield servers
    servers.close()


@each
def test_it_comes_back_with_its_data_on_its_port(look: Look, own: Callable[..., Server]) -> None:
    server = own(look.kind)
    assert [(host.name, host.port) for host in Url.parse(server.url).hosts] == [server.address]
    look.put(server)
    if isinstance(server.runner, Process):
        assert server.runner.pid is not None
        found = _listening(server.runner.pid)
        assert server.address in found
        assert {host for host, _ in found} == {"127.0.0.1"}, "it listens on the loopback address alone"
    server.restart()
    assert look.there(server)
    server.kill()
    assert not server.alive
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address, timeout=1)
    server.start()
    server.start()  # twice is once
    assert look.there(server)
    server.pause()
    with socket.create_connection(server.address, timeout=2) as line:  # the kernel accepts
        line.sendall(b"\r\n" * 4)
        assert not select.select([line], [], [], 0.3)[0], "a paused server has answered"
        server.resume()
    assert look.there(server)
    server.pause()
    server.stop()  # a paused one can be ended too
    assert not server.alive


@each
def test_with_a_password_and_tls_it_takes_only_those_who_check_it(look: Look, own: Callable[..., Server]) -> None:
    server = own(look.kind, **look.secured)
    look.put(server)
    assert look.there(server)
    url = Url.parse(server.url)
    assert url.scheme.endswith("s")
    for word in [value for name, value in look.secured.items() if name in {"password", "token"}]:
        assert url.password is not None
        assert url.password.reveal() == word, "the URL has the password, percent-encoded once"
    context = ssl.create_default_context()  # the machine's own authorities
    with (
        socket.create_connection(server.address, timeout=5) as line,
        context.wrap_socket(line, server_hostname="127.0.0.1", do_handshake_on_connect=False) as it,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        it.do_handshake()
    known = ssl.create_default_context(cafile=url.query["ca"])
    for name in ("127.0.0.1", "localhost"):
        with socket.create_connection(server.address, timeout=5) as line, known.wrap_socket(line, server_hostname=name) as it:
            assert it.getpeercert()


@each
def test_it_is_dead_when_the_process_that_started_it_is_killed(look: Look, tmp_path: Path) -> None:
    probe = obtain(look.kind)  # skips or fails where there is none
    probe.close()
    if not isinstance(probe, Server) or probe.image is not None:
        pytest.skip("a given server is somebody else's, and a container is the daemon's child")
    # Started by a thread that ends: the server must follow the process, not the thread.
    text = f"""
import threading, time
from integration import servers
server = servers.{look.kind.__name__}({str(tmp_path)!r})
thread = threading.Thread(target=server.start)
thread.start(); thread.join()
time.sleep(0.3)
assert server.alive
print(server.runner.pid, server.port, flush=True)
time.sleep(600)
"""
    root = Path(__file__).parent.parent
    owner = subprocess.Popen([sys.executable, "-c", text], cwd=root, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        pid, port = map(int, owner.stdout.readline().split())
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with os.fdopen(os.pidfd_open(pid)) as server:
            owner.send_signal(signal.SIGKILL)
            assert select.select([server], [], [], 10)[0], "the server has outlived its owner"
    finally:
        owner.kill()
        owner.communicate()
    leftover = [line for line in _processes() if str(tmp_path) in line]
    assert not leftover


def test_a_redis_that_does_not_start_says_what_its_log_says(own: Callable[..., Server]) -> None:
    with pytest.raises(ServerFailed, match=r"(?s)ended while it was starting.*nonsense.*Bad directive"):
        own(RedisServer, config={"nonsense": "1"})


def test_a_redis_that_does_not_answer_in_time_says_so(own: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    server = own(RedisServer)
    server.stop()
    monkeypatch.setattr(RedisServer, "start_bound", 0.5)
    server.launch()
    server.pause()
    begun = time.monotonic()
    with pytest.raises(ServerFailed, match=r"(?s)did not answer within 0.5 s.*The end of its log:"):
        server.wait_ready()
    assert time.monotonic() - begun < upper(5)


def test_a_redis_replica_has_the_data_and_takes_none(own: Callable[..., Server]) -> None:
    import redis

    primary = own(RedisServer, password="one for both", tls=True)
    assert isinstance(primary, RedisServer)
    with primary.client() as client:
        client.set("name", "value")
    replica = own(RedisServer, password="one for both", tls=primary.certificates, replica_of=primary)
    assert isinstance(replica, RedisServer)
    with replica.client() as client:
        assert client.get("name") == "value"
        with pytest.raises(redis.exceptions.ReadOnlyError):
            client.set("name", "other")


def test_a_redis_with_acl_users_and_a_memory_limit(own: Callable[..., Server]) -> None:
    import redis

    users = ["reader on >pw ~shop:* +@read +ping"]
    server = own(RedisServer, config={"user": users, "maxmemory": "2mb", "maxmemory-policy": "noeviction", "appendonly": "no"})
    assert isinstance(server, RedisServer)
    with server.client(username="reader", password="pw") as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.set("shop:1", "x")
    with server.client() as client, pytest.raises(redis.exceptions.OutOfMemoryError):
        for number in range(100):
            client.set(f"k{number}", "x" * 100_000)
    server.restart()
    with server.client() as client:
        assert client.dbsize() == 0, "it was told to forget"


@pytest.mark.parametrize("secured", [{}, {"password": "p@ss/", "tls": True}], ids=["plain", "secured"])
def test_a_redis_cluster_loses_a_third_and_gets_it_back(own: Callable[..., RedisCluster], secured: dict[str, Any]) -> None:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    cluster = own(RedisServer, RedisCluster, **secured)
    url = Url.parse(cluster.url)
    assert url.driver == "cluster"
    assert [host.port for host in url.hosts] == [member.port for member in cluster.members]
    more: dict[str, Any] = {"ssl": True, "ssl_ca_certs": url.query["ca"], "password": "p@ss/"} if secured else {}
    with redis.RedisCluster(host="127.0.0.1", port=cluster.members[0].port, retry=Retry(NoBackoff(), 0), **more) as client:
        owners = cluster.slots()
        assert sorted(owners) == list(range(16_384))
        for name in ("a", "b", "c", "d", "e", "f"):
            client.set(name, "kept")
    cluster.members[1].kill()
    cluster.start()
    cluster.restart()
    with redis.RedisCluster(host="127.0.0.1", port=cluster.members[0].port, retry=Retry(NoBackoff(), 0), **more) as client:
        assert {client.get(name) for name in ("a", "b", "c", "d", "e", "f")} == {b"kept"}
        slot = client.keyslot("moved")
    present = cluster.slots()[slot]
    other = next(member for member in cluster.servers if member is not present)
    cluster.move(slot, other)
    with other.client() as client:
        assert client.set("moved", "here")


@pytest.mark.parametrize("secured", [{}, {"password": "p@ss/", "tls": True}], ids=["plain", "secured"])
def test_redis_sentinels_promote_the_replica(own: Callable[..., RedisSentinel], secured: dict[str, Any]) -> None:
    group = own(RedisServer, RedisSentinel, **secured)
    before = group.primary()
    with before.client() as client:
        client.set("kept", "yes")
        assert client.wait(1, 5_000) == 1
    before.kill()
    after = group.wait_failover()
    assert after is not before
    assert group.primary() is after
    with after.client() as client:
        assert client.get("kept") == "yes"
        assert client.set("more", "1")
    assert Url.parse(group.url).path == "narrowboat/0"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_zookeeper_ensemble_goes_on_with_two_and_not_with_one(own: Callable[..., ZooKeeperEnsemble], tls: bool) -> None:
    ensemble = own(ZooKeeperServer, ZooKeeperEnsemble, tls=tls)
    assert len(ensemble.followers()) == 2
    first = ensemble.leader()
    first.kill()
    survivors = [server for server in ensemble.servers if server is not first]
    _until(lambda: sorted(str(server.mode()) for server in survivors) == ["follower", "leader"])
    left = ensemble.followers()[0]
    ensemble.leader().pause()
    _until(lambda: left.mode() is None)
    ensemble.resume()
    ensemble.start()
    _until(lambda: sorted(str(server.mode()) for server in ensemble.servers) == ["follower", "follower", "leader"])


def test_rabbitmq_has_users_and_no_system_wide_port_mapper(own: Callable[..., Server]) -> None:
    server = own(RabbitMQServer)
    assert isinstance(server, RabbitMQServer)
    server.ctl("add_vhost", "shop")
    server.ctl("add_user", "reader", "pw")
    assert "reader" in server.ctl("list_users")
    assert server.url_for("reader", "pw", "shop").endswith("/shop")
    with pytest.raises(ServerFailed, match="add_user"):
        server.ctl("add_user", "reader", "pw")
    server.close()
    assert not [line for line in _processes() if "epmd" in line and str(server.directory) in line]


def test_kafka_announces_a_place_for_a_proxy(own: Callable[..., Server]) -> None:
    server = own(KafkaServer)
    assert isinstance(server, KafkaServer)
    assert Url.parse(server.proxied_url).hosts[0].port == server.proxied.front.port
    assert announced(server.proxied.behind) == [server.proxied.front]
    assert announced(server.internal) == [server.internal]
    assert announced(server.address) == [server.address]
    assert not listening(server.proxied.front.port), "it is the proxy's place"


def _until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except (OSError, StopIteration):
            pass  # a member that is just going or coming
        assert time.monotonic() < deadline, "it has not come to it in time"
        time.sleep(0.05)


def _processes() -> list[str]:
    """The command lines and working directories of all living processes that this user may look at."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            found.append(f"{words} in {(folder / 'cwd').readlink()}")
        except OSError:
            continue  # it has ended
    return found


def _listening(pid: int) -> set[tuple[str, int]]:
    """Addresses and ports on which the process group of `pid` accepts connections."""
    inodes = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # a process that has ended meanwhile, or is somebody else's
            if os.getpgid(int(folder.name)) != pid:
                continue
            for link in (folder / "fd").iterdir():
                with contextlib.suppress(OSError):  # a busy server opens and closes all the time
                    inodes.add(str(link.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                host, port = words[1].split(":")
                found.add((_host(host), int(port, 16)))
    return found


def _host(text: str) -> str:
    """An address of the kernel's table, whose words are in the machine's byte order."""
    words = b"".join(bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8))
    found = socket.inet_ntop(socket.AF_INET if len(words) == 4 else socket.AF_INET6, words)
    return found.removeprefix("::ffff:")
