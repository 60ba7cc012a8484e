"""PostgreSQL beyond the kit: publishing in a transaction of one's own, what its errors say, and what stands in the way."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import psycopg
import pytest

import narrowboat
import narrowboat.aio
from integration.fixtures import Servers, missing
from integration.servers import PostgreSQLServer
from integration.servers.certificates import Certificates
from integration.servers.pgbouncer import PgBouncer
from integration.servers.ports import LOOPBACK, free_port
from integration.servers.programs import NotInstalled
from narrowboat import codecs
from narrowboat.errors import AccessDenied, ConfigurationError, InvalidArgument, NarrowboatError, Unavailable

BODY = b"order 7 is paid"


@pytest.fixture
def owner(postgresql_server: PostgreSQLServer) -> Iterator[Any]:
    """A connection of the program's own, whose transactions are its own."""
    with psycopg.connect(postgresql_server.url.partition("?")[0]) as connection:
        yield connection


def url_of(server: PostgreSQLServer, prefix: str, more: str = "") -> str:
    return f"{server.url}?prefix={prefix}{more}"


# -- what a call costs ----------------------------------------------------------------------------------------------


def test_a_claim_does_not_look_at_what_others_have(postgresql_server: PostgreSQLServer, owner: Any) -> None:
    """A thousand messages are in flight and two thousand delayed: a claim of two reads as many rows as with none of them."""
    with narrowboat.broker(url_of(postgresql_server, "looks")) as broker:
        queue = broker.queue("busy")
        for _ in range(2):
            queue.publish_many([narrowboat.Outbound(b"delayed", delay=600)] * 1000)
        queue.publish_many([b"x"] * 1010)
        found = owner.execute(
            "SELECT s.space, s.id FROM narrowboat.source s JOIN narrowboat.space p ON p.id = s.space "
            "WHERE p.prefix = 'looks' AND s.path = 'busy'"
        ).fetchone()
        claim = "SELECT count(*) FROM narrowboat.receive(%s::int, %s, 600::float8, 0::float8, {})"
        assert owner.execute(claim.format(1000), found).fetchone() == (1000,)
        owner.commit()
        count = "SELECT idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'message'"
        (before,) = owner.execute(count).fetchone()  # what the server has not reported yet of the transaction before
        assert owner.execute(claim.format(2), found).fetchone() == (2,)
        (after,) = owner.execute(count).fetchone()
        owner.rollback()
        assert after - before < 100, f"{after - before} rows were read for a claim of two"


# -- publishing in the caller's transaction -----------------------------------------------------------------------


def test_a_message_is_there_when_its_transaction_commits_and_a_waiting_consumer_is_woken(
    postgresql_server: PostgreSQLServer, owner: Any
) -> None:
    url = url_of(postgresql_server, "commits")
    with narrowboat.broker(url) as broker:
        queue = broker.queue("paid", codec=codecs.JSON)
        with queue.consume() as consumer:
            assert consumer.receive(timeout=0.1) is None  # it listens from now on
            queue.send_in(owner, {"order": 7}, headers={"a": "b"}, id="seven", correlation_id="c")
            assert consumer.receive(timeout=0.5) is None
            begun = time.monotonic()
            threading.Timer(0.2, owner.commit).start()
            message = consumer.receive(timeout=20)

            assert message is not None
            assert (message.id, message.data, message.headers, message.attempt) == ("seven", {"order": 7}, {"a": "b"}, 1)
            assert (message.correlation_id, message.content_type) == ("c", codecs.JSON.content_type)
            assert time.monotonic() - begun < 20
            message.ack()
        assert not any(astuple(queue.depth()))


def test_a_rollback_takes_the_message_back(postgresql_server: PostgreSQLServer, owner: Any) -> None:
    with narrowboat.broker(url_of(postgresql_server, "rolls")) as broker:
        queue = broker.queue("paid")
        queue.declare()
        queue.send_in(owner, BODY)
        owner.rollback()
        assert not any(astuple(queue.depth()))


def test_a_transaction_that_lasts_holds_up_nobody(postgresql_server: PostgreSQLServer, owner: Any) -> None:
    """Not even in an ordered queue, where its message stands behind those that were committed before it."""
    with narrowboat.broker(url_of(postgresql_server, "lasts"), timeout=5) as broker:
        queue = broker.queue("paid", ordered=True)
        queue.declare()
        queue.send_in(owner, b"late", key="k")
        queue.publish(b"early", key="k")
        with queue.consume() as consumer:
            early = consumer.receive(timeout=20)
            assert early is not None and early.data == b"early"
            early.ack()
            owner.commit()
            late = consumer.receive(timeout=20)
            assert late is not None and late.data == b"late"
            late.ack()


def test_a_topic_gives_it_to_the_groups_that_exist_then(postgresql_server: PostgreSQLServer, owner: Any) -> None:
    with narrowboat.broker(url_of(postgresql_server, "topics")) as broker:
        topic = broker.topic("prices")
        for group in ("g", "h"):
            topic.subscription(group).declare()
        topic.send_in(owner, BODY)
        owner.commit()
        for group in ("g", "h"):
            with topic.subscription(group).consume() as consumer:
                message = consumer.receive(timeout=20)
                assert message is not None and message.data == BODY
                message.ack()


def test_the_first_use_of_a_schema_is_not_made_in_the_callers_transaction(
    postgresql_server: PostgreSQLServer, owner: Any
) -> None:
    """Otherwise a rollback would take it back, and everybody would wait for that transaction."""
    with narrowboat.broker(f"{postgresql_server.url}?schema=first") as broker:
        broker.queue("paid").send_in(owner, BODY)
        owner.rollback()
        assert not any(astuple(broker.queue("paid").depth()))


def test_what_cannot_be_sent_fails_the_transaction_or_is_refused_before(
    postgresql_server: PostgreSQLServer, owner: Any
) -> None:
    with narrowboat.broker(url_of(postgresql_server, "taken")) as broker:
        broker.topic("prices").declare()
        with pytest.raises(psycopg.errors.RaiseException, match="prices is a topic and no queue"):
            broker.queue("prices").send_in(owner, BODY)
        owner.rollback()
        with pytest.raises(InvalidArgument, match="psycopg 3 or of SQLAlchemy 2, got object"):
            broker.queue("paid").send_in(object(), BODY)
        with pytest.raises(InvalidArgument, match="a body is bytes"):
            broker.queue("paid").send_in(owner, "text")  # type: ignore[arg-type]  # that is what is refused
    with narrowboat.broker(url_of(postgresql_server, "taken", "&declare=never")) as broker:
        with pytest.raises(psycopg.errors.RaiseException, match="paid is not there"):
            broker.queue("paid").send_in(owner, BODY)
        owner.rollback()


def test_an_asynchronous_connection_belongs_to_the_asynchronous_face(postgresql_server: PostgreSQLServer) -> None:
    url = url_of(postgresql_server, "tasks")

    async def main() -> None:
        connection = await psycopg.AsyncConnection.connect(postgresql_server.url.partition("?")[0])
        async with connection, narrowboat.aio.broker(url) as broker:
            queue = broker.queue("paid")
            await queue.declare()
            await queue.send_in(connection, b"back")
            await connection.rollback()
            await queue.send_in(connection, BODY)
            await connection.commit()
            async with queue.consume() as consumer:
                message = await consumer.receive(timeout=20)
                assert message is not None and message.data == BODY
                await message.ack()
            assert not any(astuple(await queue.depth()))
            with narrowboat.broker(url) as sync, pytest.raises(InvalidArgument, match="use narrowboat.aio"):
                sync.queue("paid").send_in(connection, BODY)

    asyncio.run(main())


# -- what errors say ----------------------------------------------------------------------------------------------


def refusal(url: str) -> NarrowboatError:
    """What a ping of each half meets, the same for both."""
    found: list[NarrowboatError] = []
    for make in (narrowboat.locks, narrowboat.broker):
        face = make(url, timeout=10)
        try:
            with pytest.raises(NarrowboatError) as caught:
                face.ping()
        finally:
            face.close()
        found.append(caught.value)
    assert type(found[0]) is type(found[1])
    return found[0]


def test_no_server() -> None:
    error = refusal(f"postgresql://shop:s3cret@{LOOPBACK}:{free_port()}/shop")
    assert isinstance(error, Unavailable) and not error.sent and error.retryable
    assert "s3cret" not in str(error) and "Nothing was sent" in str(error)


def test_a_wrong_password(postgresql_server: PostgreSQLServer) -> None:
    error = refusal(postgresql_server.url_for("narrowboat", "wr0ng"))
    assert isinstance(error, AccessDenied) and "wr0ng" not in str(error) and "password" in str(error)


def test_no_such_database(postgresql_server: PostgreSQLServer) -> None:
    error = refusal(postgresql_server.url_for("narrowboat", "narrowboat", "no such"))
    assert isinstance(error, ConfigurationError) and "CREATE DATABASE" in str(error)


def test_a_database_that_cannot_hold_every_name(postgresql_server: PostgreSQLServer) -> None:
    with postgresql_server.client(database="postgres") as admin:
        admin.execute("CREATE DATABASE latin OWNER narrowboat ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    error = refusal(postgresql_server.url_for("narrowboat", "narrowboat", "latin"))
    assert isinstance(error, ConfigurationError) and "UTF8" in str(error)


def test_a_user_without_the_right_to_make_the_schema(postgresql_server: PostgreSQLServer) -> None:
    with postgresql_server.client() as admin:
        admin.execute("CREATE ROLE poor LOGIN PASSWORD 'poor'")
    error = refusal(f"{postgresql_server.url_for('poor', 'poor')}?schema=poors")
    assert isinstance(error, AccessDenied) and "GRANT" in str(error)


def test_the_rights_of_the_page_are_enough(postgresql_server: PostgreSQLServer) -> None:
    with narrowboat.broker(url_of(postgresql_server, "owner")) as broker:
        broker.ping()
    with postgresql_server.client() as admin:
        admin.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
        admin.execute("GRANT USAGE ON SCHEMA narrowboat TO guest")
        admin.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA narrowboat TO guest")
        admin.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA narrowboat TO guest")
    url = f"{postgresql_server.url_for('guest', 'guest')}?prefix=guest"
    with narrowboat.locks(url) as locks, locks.lock("a") as held:
        assert held.token > 0
    with narrowboat.broker(url) as broker:
        broker.queue("q").publish(BODY)
        with broker.queue("q").consume() as consumer:
            message = consumer.receive(timeout=20)
            assert message is not None
            message.reject("no")
        assert broker.queue("q").depth().dead == 1


def test_a_schema_of_a_later_version_is_refused(postgresql_server: PostgreSQLServer) -> None:
    url = f"{postgresql_server.url}?schema=later"
    with narrowboat.locks(url) as locks:
        locks.ping()
    with postgresql_server.client() as admin:
        admin.execute("INSERT INTO later.version (number) VALUES (99)")
    error = refusal(url)
    assert isinstance(error, ConfigurationError) and "version 99" in str(error)


def test_a_schema_that_holds_something_else_is_refused(postgresql_server: PostgreSQLServer) -> None:
    with postgresql_server.client(user="narrowboat", password="narrowboat") as theirs:
        theirs.execute("CREATE SCHEMA theirs")
        theirs.execute("CREATE TABLE theirs.lock (a int)")
    error = refusal(f"{postgresql_server.url}?schema=theirs")
    assert isinstance(error, ConfigurationError) and "theirs" in str(error)


def test_a_server_that_takes_no_writes(postgresql_server: PostgreSQLServer) -> None:
    with postgresql_server.client(database="postgres") as admin:
        admin.execute("CREATE DATABASE frozen OWNER narrowboat")
        admin.execute("ALTER DATABASE frozen SET default_transaction_read_only = on")
    error = refusal(postgresql_server.url_for("narrowboat", "narrowboat", "frozen"))
    assert isinstance(error, Unavailable) and not error.sent


@pytest.mark.parametrize("ignored", ["", "options,extra_float_digits"])
def test_a_pooler_in_front_is_refused_with_the_way_out(postgresql_server: PostgreSQLServer, ignored: str) -> None:
    """Whether it refuses our settings, or drops them and lets us in."""
    try:
        pooler = PgBouncer(postgresql_server, ignored=ignored)
    except NotInstalled as none:
        missing(str(none))
    with pooler:
        error = refusal(pooler.url)
    assert isinstance(error, ConfigurationError) and not error.retryable
    assert "pooler" in str(error) and "Name the server's own host and port" in str(error)


def test_something_else_than_postgresql() -> None:
    """It answers nonsense, or nothing at all: an error within the timeout."""
    with socket.create_server((LOOPBACK, 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    other, _ = listener.accept()
                except OSError:
                    return
                with other:
                    other.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        error = refusal(f"postgresql://a:b@{LOOPBACK}:{listener.getsockname()[1]}/x")
        assert isinstance(error, (ConfigurationError, Unavailable))
    with socket.create_server((LOOPBACK, 0)) as silent:
        begun = time.monotonic()
        with narrowboat.locks(f"postgresql://a:b@{LOOPBACK}:{silent.getsockname()[1]}/x", timeout=1) as locks:
            with pytest.raises(Unavailable):
                locks.ping()
            assert time.monotonic() - begun < 10


def test_another_program_cannot_write_a_holder_in_part(postgresql_server: PostgreSQLServer) -> None:
    with narrowboat.locks(url_of(postgresql_server, "parts")) as locks:
        locks.ping()
    with postgresql_server.client() as admin, pytest.raises(psycopg.errors.CheckViolation):
        admin.execute("SELECT ROW('me', NULL, now(), 1, '', now())::narrowboat.holder")


def test_a_transaction_in_the_way_is_an_error_that_says_so(postgresql_server: PostgreSQLServer, owner: Any) -> None:
    # The server gives up a tenth of the timeout before we do: of a short one a busy machine leaves nothing.
    with narrowboat.locks(url_of(postgresql_server, "ways"), timeout=6) as locks:
        with locks.lock("a"):
            pass
        owner.execute("SELECT FROM narrowboat.lock WHERE key = 'a' FOR UPDATE")
        with pytest.raises(NarrowboatError, match="long transaction"):
            locks.lock("a").acquire(timeout=0.2)
        owner.rollback()
        with locks.lock("a"):
            pass


# -- many at once -------------------------------------------------------------------------------------------------


def test_many_first_users_make_the_schema_once(postgresql_server: PostgreSQLServer) -> None:
    url = f"{postgresql_server.url}?schema=crowd"
    met: list[BaseException] = []

    def use(number: int) -> None:
        try:
            with narrowboat.locks(url, timeout=60) as locks, locks.lock(f"a{number}"):
                pass
        except BaseException as error:
            met.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met == []
    with postgresql_server.client() as admin:
        assert admin.execute("SELECT number FROM crowd.version").fetchall() == [(1,)]


# -- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secured(servers: Servers) -> PostgreSQLServer:
    server: PostgreSQLServer = servers(PostgreSQLServer, PostgreSQLServer, tls=True)
    return server


def show(server: PostgreSQLServer, certificates: Certificates) -> str:
    """Let the server show other certificates; the URL that trusts their authority."""
    assert server.certificates is not None
    shutil.copyfile(certificates.certificate, server.certificates.certificate)
    shutil.copyfile(certificates.key, server.directory / "server.key")
    server.restart()
    return f"{server.url.partition('?')[0]}?ca={certificates.ca}"


def refused_tls(url: str) -> str:
    with narrowboat.locks(url, timeout=10) as locks, pytest.raises(ConfigurationError) as caught:
        locks.ping()
    assert not caught.value.retryable
    return str(caught.value)


def test_through_tls(secured: PostgreSQLServer) -> None:
    with narrowboat.locks(secured.url) as locks, locks.lock("a") as held:
        assert held.token > 0


def test_an_authority_that_nobody_named_is_not_trusted(secured: PostgreSQLServer) -> None:
    assert "?ca=" in refused_tls(secured.url.partition("?")[0])


def test_tls_on_one_side_only(secured: PostgreSQLServer, postgresql_server: PostgreSQLServer) -> None:
    plain = secured.url.partition("?")[0].replace("postgresqls", "postgresql")
    assert "postgresqls://" in refused_tls(plain)
    assert "postgresql://" in refused_tls(postgresql_server.url.replace("postgresql:", "postgresqls:"))


def test_a_certificate_that_is_not_good(secured: PostgreSQLServer, tmp_path: Path) -> None:
    """Each is signed by an authority that the URL names; and one that is good is taken in the same way."""
    with narrowboat.locks(show(secured, Certificates(tmp_path / "good"))) as locks:
        locks.ping()
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "expired": ({"age": datetime.timedelta(days=3)}, "expired"),
        "not-yet": ({"age": datetime.timedelta(days=-1)}, "clock"),
        "another": ({"names": ("other.example",), "addresses": ()}, "subjectAltName"),
    }
    for name, (wrong, said) in cases.items():
        url = show(secured, Certificates(tmp_path / name, **wrong))
        assert said in refused_tls(url)
    for checks in ("ca", "none"):
        with narrowboat.locks(f"{url}&verify={checks}") as locks:
            locks.ping()
