"""Locks on a real Cassandra: what is refused and why, what others can do to a row, and what a killed node keeps."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import pytest

import narrowboat
from integration.cassandra_harness import cql, make_table
from integration.fixtures import Servers
from integration.foreign import DAMAGED, costs_its_own_name_alone
from integration.servers import CassandraServer
from narrowboat.conformance.harness import with_query
from narrowboat.contract.backend import Context
from narrowboat.contract.locks import Busy, Grant, Mode, Request
from narrowboat.dsn import Url
from narrowboat.errors import AccessDenied, ConfigurationError, LeaseLost, NarrowboatError, Unavailable
from narrowboat_cassandra import schema
from narrowboat_cassandra.locks import CassandraLocks
from narrowboat_cassandra.options import Options
from narrowboat_cassandra.rows import AHEAD, State, microseconds
from narrowboat_cassandra.steps import Do

ROW = "narrowboat.narrowboat_locks WHERE prefix='' AND name=%s"


@pytest.fixture(scope="module")
def url(cassandra_server: CassandraServer) -> str:
    with cql(cassandra_server.url) as session:
        make_table(session)
    return cassandra_server.url


@pytest.fixture
def session(url: str) -> Iterator[Any]:
    with cql(url) as found:
        yield found


@pytest.fixture
def driver(url: str) -> Iterator[CassandraLocks]:
    parsed = Url.parse(url)
    from narrowboat_cassandra import locks

    made = locks.open(parsed, Options(), Context(clock=time.monotonic, timeout=30.0))
    assert isinstance(made, CassandraLocks)
    yield made
    made.close()


def request(name: str, owner: str) -> Request:
    return Request(name, owner, 30.0, Mode.EXCLUSIVE, None, True, lambda: None, "test")


# -- an attempt that is late ----------------------------------------------------------------------------------------


def test_an_attempt_that_arrives_after_its_withdrawal_is_refused(driver: CassandraLocks) -> None:
    """The very statement that was on its way when the caller left: the version that it was decided on is over."""
    asked = request("late", "owner-late")
    driver._owners.ask(asked.owner)
    late = driver._steps.take(asked, State(driver._owners.version("late")))
    assert isinstance(late, Do)
    assert driver.withdraw([asked]) == [None]

    (answer,) = driver._session.run([late], driver._session.ends(), doing="arriving late")

    assert not isinstance(answer, NarrowboatError) and answer[0]["[applied]"] is False
    assert driver.holders("late") == []


def test_an_attempt_whose_reply_was_lost_is_found_again_and_can_be_withdrawn(driver: CassandraLocks) -> None:
    """The owner is the key: the second attempt has the first one's grant, and the withdrawal frees it."""
    asked = request("lost", "owner-lost")
    step = driver._steps.take(asked, State(driver._owners.version("lost")))
    assert isinstance(step, Do) and step.held is not None
    driver._owners.ask(asked.owner)
    driver._session.run([step], driver._session.ends(), doing="losing the reply")

    (granted,) = driver.attempt([asked])
    assert isinstance(granted, Grant) and granted.token == step.held.token
    (other,) = driver.attempt([request("lost", "owner-other")])
    assert isinstance(other, Busy)
    assert driver.withdraw([asked]) == [None]
    (next_one,) = driver.attempt([request("lost", "owner-other")])
    assert isinstance(next_one, Grant) and next_one.token > granted.token
    driver.release([next_one])


# -- what others leave in a row --------------------------------------------------------------------------------------


def test_what_is_not_ours_costs_its_own_name_alone(url: str, session: Any) -> None:
    """Any text in the first slot, and a version that no honest clock has led to."""
    with narrowboat.locks(url) as locks:
        for number, text in enumerate(each.decode("utf-8", "replace") for each in DAMAGED):
            name = f"foreign-{number}"
            session.execute(f"UPDATE {ROW.replace(' WHERE', ' SET h[0]=%s WHERE')} IF v=null", (text, name))
            (shown,) = locks.holders(name)
            assert costs_its_own_name_alone(locks, name, {shown.token}, {})
        session.execute(f"UPDATE {ROW.replace(' WHERE', ' SET v=%s WHERE')} IF v=null", (microseconds() + 3 * AHEAD, "future"))
        (shown,) = locks.holders("future")
        assert costs_its_own_name_alone(locks, "future", {shown.token}, {})


def test_a_delete_with_a_time_in_the_future_ends_the_lease_and_the_holder_is_told(url: str, session: Any) -> None:
    """Such a DELETE beats every agreement of the replicas. The page says so; what is kept is that the holder hears of it."""
    with narrowboat.locks(url) as locks:
        held = locks.lock("beaten", ttl=3, timeout=5).acquire()
        token = held.token
        ahead = microseconds() + 2_000_000
        session.execute(f"DELETE FROM narrowboat.narrowboat_locks USING TIMESTAMP {ahead} WHERE prefix='' AND name='beaten'")
        assert _lost_within(held, 10)
        with pytest.raises(LeaseLost):
            held.check()
        while microseconds() < ahead + 1_000_000:
            time.sleep(0.1)  # until then nothing that is written shows: the row looks free to everybody
        with locks.lock("beaten", ttl=3, timeout=10) as later:
            assert later.token > token


def _lost_within(held: narrowboat.Held, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            held.check()
        except LeaseLost:
            return True
        time.sleep(0.05)
    return False


# -- wrong places ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("/narrowboat?create=true", "/nowhere?create=false"), "no keyspace 'nowhere'"),
        (("create=true", "create=false&table=nothing"), "no table narrowboat.nothing"),
        (("create=true", "create=false&table=theirs"), "is not one of Narrowboat's"),
    ],
)
def test_a_wrong_keyspace_or_table_is_told_at_the_first_call(
    url: str, session: Any, change: tuple[str, str], words: str
) -> None:
    session.execute("CREATE TABLE IF NOT EXISTS narrowboat.theirs (id int PRIMARY KEY, what text)")
    with narrowboat.locks(url.replace(*change)) as locks, pytest.raises(ConfigurationError, match=words):
        locks.lock("a").try_acquire()


def test_a_table_that_is_listed_before_the_node_knows_it_is_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many begin at once: who does not make the table itself is not told that there is none."""
    from narrowboat_cassandra import session as sessions

    calls: list[str] = []

    def make(session: Any, ring: Any) -> None:
        calls.append(ring.table)  # the first time another one is just making it
        if len(calls) > 1:
            schema.make(session, ring)

    monkeypatch.setattr(sessions, "make", make)
    with narrowboat.locks(with_query(url, "table=listed_early"), timeout=30) as locks:
        locks.ping()
    assert len(calls) == 2


def test_a_port_that_is_no_cassandra_and_one_where_nobody_is(servers: Servers) -> None:
    """A typed error, in time."""
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def nonsense() -> None:
            while True:
                try:
                    line, _ = listener.accept()
                except OSError:
                    return
                with line:
                    line.recv(100)
                    line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20)

        thread = threading.Thread(target=nonsense, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        with narrowboat.locks(f"cassandra://127.0.0.1:{port}/shop?timeout=5") as locks:
            begun = time.monotonic()
            with pytest.raises(Unavailable, match="what Cassandra does not"):
                locks.ping()
            assert time.monotonic() - begun < 20
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    nobody = f"cassandra://127.0.0.1:{port}/shop?timeout=5"
    with narrowboat.locks(nobody) as locks, pytest.raises(Unavailable, match="could not be reached"):
        locks.ping()


# -- rights, secrets, TLS ----------------------------------------------------------------------------------------------


def test_rights_secrets_and_tls(servers: Servers) -> None:
    """One node with users and TLS: who may what, what an error says, and which scheme its port takes."""
    server: CassandraServer = servers(CassandraServer, auth=True, tls=True)
    secret = "s3cret-0f-the-shop"
    with narrowboat.locks(server.url) as locks, locks.lock("first", timeout=30):
        pass  # made the keyspace and the table, as the first user may
    with _admin(server) as session:
        session.execute(f"CREATE ROLE IF NOT EXISTS shop WITH PASSWORD='{secret}' AND LOGIN=true")
        none = server.url_for("shop", secret).replace("create=true&", "")
        _denied(none, "SELECT and MODIFY", secret)
        session.execute("GRANT SELECT ON narrowboat.narrowboat_locks TO shop")
        _denied(none, "SELECT and MODIFY", secret)
        session.execute("GRANT MODIFY ON narrowboat.narrowboat_locks TO shop")
        with narrowboat.locks(none) as locks, locks.lock("a", timeout=30):
            assert [holder.name for holder in locks.holders()] == ["a"]
        session.execute("REVOKE MODIFY ON narrowboat.narrowboat_locks FROM shop")
        _denied(none, "SELECT and MODIFY", secret)
    _denied(server.url_for("shop", "wr0ng-password"), "refused the user", "wr0ng-password")
    _denied(server.url.replace("cassandra:cassandra@", ""), "refused a client without a user", "no secret")
    plain = server.url.replace("cassandras://", "cassandra://").partition("&ca=")[0] + "&timeout=10"
    with narrowboat.locks(plain) as locks, pytest.raises(Unavailable, match="cassandras://"):
        locks.ping()
    strangers = server.url.partition("&ca=")[0] + "&timeout=10"
    with narrowboat.locks(strangers) as locks, pytest.raises(ConfigurationError, match="certificate was not accepted"):
        locks.ping()


def test_a_plain_port_that_is_asked_for_tls(cassandra_server: CassandraServer) -> None:
    url = f"cassandras://127.0.0.1:{cassandra_server.port}/narrowboat?timeout=10"
    with narrowboat.locks(url) as locks, pytest.raises((ConfigurationError, Unavailable), match="cassandra://"):
        locks.ping()


def _admin(server: CassandraServer) -> Any:
    import contextlib
    import ssl

    from cassandra.auth import PlainTextAuthProvider
    from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile

    @contextlib.contextmanager
    def opened() -> Iterator[Any]:
        assert server.certificates is not None
        cluster = Cluster(
            ["127.0.0.1"],
            port=server.port,
            protocol_version=4,
            auth_provider=PlainTextAuthProvider("cassandra", "cassandra"),
            ssl_context=ssl.create_default_context(cafile=str(server.certificates.ca)),
            connect_timeout=30,
            control_connection_timeout=30,
            execution_profiles={EXEC_PROFILE_DEFAULT: ExecutionProfile(request_timeout=60)},
        )
        try:
            yield cluster.connect()
        finally:
            cluster.shutdown()

    return opened()


def _denied(url: str, words: str, secret: str) -> None:
    with narrowboat.locks(url) as locks:
        with pytest.raises(AccessDenied, match=words) as caught:
            locks.lock("a").try_acquire()
        assert secret not in repr(locks)
    error: BaseException | None = caught.value
    while error is not None:
        assert secret not in str(error) and secret not in repr(error)
        error = error.__cause__


# -- a node that is killed ------------------------------------------------------------------------------------------


def test_a_node_that_syncs_now_and_then_is_refused_where_durability_was_asked_for(servers: Servers) -> None:
    """The claim is made by the URL, and checked at the first call: what periodic keeps is nobody's promise."""
    server: CassandraServer = servers(CassandraServer, sync="periodic")
    url = server.url
    with narrowboat.locks(f"{url}&durability=disk") as locks:
        assert locks.capabilities.survives.value == "power"
        with pytest.raises(ConfigurationError, match="commitlog_sync: periodic"):
            locks.lock("a").try_acquire()
    with narrowboat.locks(url) as locks, locks.lock("a", timeout=30):
        assert locks.capabilities.survives.value == "nothing"


@pytest.mark.parametrize("sync", ["batch", "group"])
def test_a_killed_node_that_syncs_keeps_the_lock_and_its_token(servers: Servers, sync: str) -> None:
    """SIGKILL right after the grant: the lock still excludes, and tokens still grow."""
    server: CassandraServer = servers(CassandraServer, sync=sync)
    url = f"{server.url}&durability=disk&timeout=30"
    with narrowboat.locks(url) as locks:
        locks.ping()
        held = locks.lock("kept", ttl=600, renew=False, timeout=30).acquire()
        server.kill()
        server.start()
        with narrowboat.locks(url) as others:
            assert others.lock("kept").try_acquire() is None
            held.check()
            token = held.token
            held.release()
            with others.lock("kept", timeout=60) as later:
                assert later.token > token
    server.close()


# -- many who wait -------------------------------------------------------------------------------------------------

WAITERS = textwrap.dedent("""
    import sys, threading, time
    import narrowboat
    from narrowboat_cassandra.session import Session

    counted, mutex, run = [0], threading.Lock(), Session.run

    def count(self, steps, ends, *, doing):
        with mutex:
            counted[0] += len(steps)
        return run(self, steps, ends, doing=doing)

    Session.run = count
    with narrowboat.locks(sys.argv[1]) as locks:
        locks.ping()
        print("ready", flush=True)
        sys.stdin.readline()
        tokens = []

        def wait():
            with locks.lock("crowd", ttl=60, timeout=500) as held:
                tokens.append(held.token)
                time.sleep(0.05)

        threads = [threading.Thread(target=wait) for _ in range(int(sys.argv[2]))]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
    print(counted[0], *tokens)
""")
#: Statements for each grant: one process' turn costs a take, a release and the refusals of those that saw it free with it. Each
#: of the ten that wait looks every half a second at most.
PER_GRANT = 12.0


def test_a_hundred_waiters_of_ten_processes_cost_few_statements(url: str, record_property: Any) -> None:
    """One contender a process, pauses that grow: bounded, whatever the number of waiters."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WAITERS, f"{url}&timeout=60", "10"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(10)
    ]
    try:
        for child in children:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
        begun = time.monotonic()
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        told = [[int(word) for word in child.communicate(timeout=600)[0].split()] for child in children]
        took = time.monotonic() - begun
    finally:
        for child in children:
            child.kill()
            child.wait()
    tokens = [token for each in told for token in each[1:]]
    assert len(set(tokens)) == 100
    looks = sum(each[0] for each in told) / 100
    record_property("statements per grant", looks)
    print(f"{looks:.1f} statements a grant, 100 grants in {took:.1f} s")
    most_looks = took * 10 / 0.25 / 100  # ten that look, no two looks of one closer than half of the longest pause
    assert looks < PER_GRANT + most_looks
