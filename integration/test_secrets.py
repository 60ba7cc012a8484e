"""No secret shows: in no record of any logger at any level, in no error, in no variable of any frame, on any backend.

Each backend does what it can do and meets what can go wrong, with a password, plain and over TLS. Everything that a reporter of
errors or a logger could keep of it is looked through, for the secret as it is, quoted, in base64 and in hex.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

import narrowboat
import narrowboat.aio
from integration.fixtures import Servers
from integration.servers import (
    ConsulServer,
    KafkaServer,
    PostgreSQLServer,
    RabbitMQServer,
    RedisServer,
    Server,
    ZooKeeperServer,
)
from narrowboat.conformance.checks.leaks import Ear, raised, shown, texts
from narrowboat.conformance.faults.network import with_hosts
from narrowboat.conformance.faults.proxy import Proxy
from narrowboat.conformance.harness import with_query

SECRET = "Zq9Xk-S3cr3t@pw/w:rd"
TOKEN = "7d1c2a2e-0000-4000-8000-0000000c0ffe"  # what Consul takes for a token
WRONG, WRONG_TOKEN = "wR0ng-oNe@of/us:all", "7d1c2a2e-0000-4000-8000-00000000dead"
TIMEOUT = 2.0
_numbers = itertools.count()


@dataclass(frozen=True)
class Kind:
    """A server that wants a secret, and what is done there."""

    server: type[Server]
    faces: tuple[Callable[..., Any], ...]
    options: dict[str, Any]  #: of the server
    secret: str = SECRET
    wrong: str = WRONG
    query: str = ""  #: of the URL
    driver: str = ""  #: that the URL names
    prepare: Callable[[Any], None] = lambda server: None  #: once it runs
    name: str = ""  #: where the server's own does not say which this is

    def url(self, server: Any, secret: str) -> str:
        """The URL with that secret."""
        if self.server is ZooKeeperServer:
            url = str(server.url_for("shop", secret))
            return with_query(url, "session_ttl=4&tick=0.5")
        named = {RabbitMQServer: ("shop",), KafkaServer: ("shop",), PostgreSQLServer: ("shop",), RedisServer: ("",)}
        user = named.get(self.server, ())
        url = str(server.url_for(*user, secret))
        if self.driver:
            url = url.replace("://", f"+{self.driver}://", 1)
        return with_query(url, self.query) if self.query else url


def know_by_scram(server: KafkaServer) -> None:
    """Let the server know the password by its hash."""
    admin = KafkaAdminClient(bootstrap_servers="{}:{}".format(*server.internal))
    try:
        wanted = UserScramCredentialUpsertion("shop", ScramMechanism.SCRAM_SHA_512, SECRET)
        assert admin.alter_user_scram_credentials([wanted]) == {"shop": None}
    finally:
        admin.close()


#: What the server needs to be asked by SCRAM: its listeners have to take it.
SCRAM = {"sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512"} | {
    f"listener.name.{name}.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    for name in ("client", "proxied")
}

KINDS = [
    Kind(RedisServer, (narrowboat.locks, narrowboat.broker), {"password": SECRET}),
    Kind(ZooKeeperServer, (narrowboat.locks,), {}),
    Kind(ConsulServer, (narrowboat.locks,), {"token": TOKEN}, TOKEN, WRONG_TOKEN),
    Kind(RabbitMQServer, (narrowboat.broker,), {"user": "shop", "password": SECRET}),
    Kind(PostgreSQLServer, (narrowboat.locks, narrowboat.broker), {"user": "shop", "password": SECRET}),
    Kind(KafkaServer, (narrowboat.broker,), {"users": {"shop": SECRET}}),
    Kind(
        KafkaServer,
        (narrowboat.broker,),
        {"users": {"shop": "by PLAIN it is another"}, "config": SCRAM},
        query="sasl=scram-sha-512",
        prepare=know_by_scram,
        name="kafka-scram",
    ),
    Kind(KafkaServer, (narrowboat.broker,), {"users": {"shop": SECRET}}, driver="confluent", name="kafka-confluent"),
]


@dataclass(frozen=True)
class Guarded:
    """A running server of that kind, a proxy in front of it, and what was heard."""

    kind: Kind
    server: Any
    proxy: Proxy

    def open(
        self, face: Callable[..., Any], secret: str | None = None, *, proxied: bool = False, timeout: float = TIMEOUT
    ) -> Any:
        """The face, opened with the server's secret or another."""
        url = self.kind.url(self.server, self.kind.secret if secret is None else secret)
        return face(with_hosts(url, ["{}:{}".format(*self.proxy.address)]) if proxied else url, timeout=timeout)


@pytest.fixture(
    scope="module",
    params=[(kind, tls) for kind in KINDS for tls in (False, True)],
    ids=lambda case: f"{case[0].name or case[0].server.name}-{'tls' if case[1] else 'plain'}",
)
def guarded(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Guarded]:
    kind, tls = request.param
    server = servers(kind.server, kind.server, tls=tls, **kind.options)
    kind.prepare(server)
    address = server.proxied.behind if isinstance(server, KafkaServer) else server.address
    with Proxy(*address) as proxy:
        if isinstance(server, KafkaServer):
            proxy.refuse()
            proxy._port = server.proxied.front.port  # where the server says that it is: clients go nowhere else
            proxy.heal()
        yield Guarded(kind, server, proxy)
    servers.close()


def use(face: Any) -> None:
    """All that it takes to have the secret sent, and some calls after that."""
    face.ping()
    if isinstance(face, narrowboat.Locks):
        with face.lock(f"a{next(_numbers)}"):
            face.holders()
        return
    queue = face.queue(f"q{next(_numbers)}")
    queue.publish(b"x")
    with queue.consume() as messages:
        message = messages.receive(20)
        assert message is not None
        message.ack()


def silent(secret: str, errors: list[BaseException], ear: Ear) -> None:
    """None of it shows the secret. The ear is told something, so that it is known to have heard."""
    logging.getLogger("narrowboat.heard").debug("said")
    assert any(place.startswith("record of narrowboat.heard ") for place, _ in ear.texts)
    said = [each for error in errors for each in texts(error, here=__file__)]
    assert shown(secret, said) == []
    assert shown(secret, ear.texts) == []


def test_what_goes_well_is_told_without_the_secret(guarded: Guarded) -> None:
    """Neither the client library nor we log it, at the lowest level of every logger, and no object shows it."""
    with Ear() as ear:
        for face in guarded.kind.faces:
            with guarded.open(face, timeout=20.0) as opened:  # a server that has just started makes its first topics slowly
                use(opened)
                assert shown(guarded.kind.secret, [("repr", repr(opened)), ("url", repr(opened._core.url))]) == []
        silent(guarded.kind.secret, [], ear)


def test_what_goes_wrong_is_told_without_the_secret(guarded: Guarded) -> None:
    """A secret that is not accepted; a login, and a call, that a reset cuts in two; a server that is gone."""
    with Ear() as ear:
        refused: list[BaseException] = []
        broken: list[BaseException] = []
        for face in guarded.kind.faces:
            if guarded.kind.server is not ZooKeeperServer:  # which takes any user
                with guarded.open(face, guarded.kind.wrong) as opened:
                    refused.append(raised(lambda: use(opened)))  # called at once
            broken += during(guarded, face)
        assert all(isinstance(error, narrowboat.NarrowboatError) for error in (*refused, *broken))
        silent(guarded.kind.secret, broken, ear)
        silent(guarded.kind.wrong, refused, ear)


def during(guarded: Guarded, face: Callable[..., Any]) -> list[BaseException]:
    """What is raised where the connection goes, on the way in or later."""
    found: list[BaseException] = []
    for before in range(5):  # so many pieces pass from the server before it hangs up
        with guarded.open(face, proxied=True) as opened:
            guarded.proxy.drop_reply(keep=before)
            try:
                use(opened)
                guarded.proxy.refuse()
                guarded.proxy.reset()
                found.append(raised(lambda: use(opened)))  # called at once
            except narrowboat.NarrowboatError as error:
                found.append(error)
        guarded.proxy.heal()
    with guarded.open(face, proxied=True) as opened:
        guarded.proxy.refuse()  # nobody is there at all
        found.append(raised(lambda: use(opened)))
    found.append(raised(lambda: asyncio.run(asked(guarded, face))))
    guarded.proxy.heal()
    return found


async def asked(guarded: Guarded, face: Callable[..., Any]) -> None:
    """Ping by the asyncio twin of `face`."""
    async with guarded.open(getattr(narrowboat.aio, face.__name__), proxied=True) as opened:
        await opened.ping()
