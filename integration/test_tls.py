"""What the five clients make of certificates, good and bad ones, in front of real servers; and of TLS on one side only."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import narrowboat
from integration.fixtures import Servers
from integration.servers import ConsulServer, KafkaServer, RabbitMQServer, RedisServer, Server, ZooKeeperServer
from integration.servers.certificates import Certificates
from integration.servers.server import Address
from integration.servers.terminator import Terminator
from narrowboat.errors import ConfigurationError, NarrowboatError, Unavailable

TIMEOUT = 3.0
#: With the words that tell what is wrong, and what to do about it.
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no-name": ({"names": (), "addresses": ()}, "localhost", "subjectAltName"),
    "another-host": ({"names": ("other.example",), "addresses": ()}, "localhost", "subjectAltName"),
    "another-address": ({"addresses": ("127.0.0.9",)}, "127.0.0.1", "subjectAltName"),
    "expired": ({"age": datetime.timedelta(days=3)}, "localhost", "expired"),
    "not-yet": ({"age": datetime.timedelta(days=-1)}, "localhost", "not yet valid"),
    "self-signed": ({"own": True}, "localhost", "?ca="),
}


@dataclass(frozen=True)
class Kind:
    """A server, its scheme without TLS, and a face that it has."""

    server: type[Server]
    plain: str
    face: Callable[..., Any]
    rest: str = ""  #: what its URLs need beside TLS


KINDS = [
    Kind(RedisServer, "redis", narrowboat.locks),
    Kind(ZooKeeperServer, "zookeeper", narrowboat.locks, "&session_ttl=4&tick=0.5"),
    Kind(ConsulServer, "consul", narrowboat.locks),
    Kind(RabbitMQServer, "amqp", narrowboat.broker),
    Kind(KafkaServer, "kafka", narrowboat.broker),
]


@dataclass(frozen=True)
class Site:
    """A running server, without TLS."""

    kind: Kind
    server: Any

    def behind(self, certificates: Certificates, clients: Path | None = None) -> Terminator:
        """TLS in front of it."""
        if isinstance(self.server, KafkaServer):  # it sends its clients where it says that it is
            behind, front = self.server.proxied
            return Terminator(certificates, behind, port=front.port, clients=clients)
        return Terminator(certificates, self.server.address, clients=clients)

    def open(self, address: Address, query: str, host: str = "127.0.0.1", *, secure: bool = True) -> Any:
        """The face, over TLS unless told."""
        scheme = f"{self.kind.plain}s" if secure else self.kind.plain
        return self.kind.face(f"{scheme}://{host}:{address.port}/?{query}{self.kind.rest}", timeout=TIMEOUT)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.server.name)
def site(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Site]:
    yield Site(request.param, servers(request.param.server, request.param.server))
    servers.close()


def refused(face: Any) -> ConfigurationError:
    """Why it cannot connect: a wrong set-up, which nobody need try again."""
    with face, pytest.raises(ConfigurationError) as caught:
        face.ping()
    assert not caught.value.retryable
    return caught.value


def trusting(certificates: Certificates) -> str:
    return f"ca={quote(str(certificates.ca))}"


@pytest.mark.parametrize("wrong", BAD)
def test_a_certificate_that_is_not_good_is_refused_and_why_is_said(site: Site, tmp_path: Path, wrong: str) -> None:
    """With the reason and what to do; and verify= takes what it says that it takes."""
    options, host, said = BAD[wrong]
    certificates = Certificates(tmp_path, **options)
    with site.behind(certificates) as address:
        text = str(refused(site.open(address, trusting(certificates), host)))
        assert "certificate was not accepted" in text and said in text
        for verify in ("ca", "none"):
            face = site.open(address, f"{trusting(certificates)}&verify={verify}", host)
            if verify == "ca" and said != "subjectAltName":
                refused(face)
                continue
            with face:
                face.ping()


def test_the_authority_has_to_be_named(site: Site, tmp_path: Path) -> None:
    """A good certificate of an authority that the system does not know, and of another one than ca= names."""
    certificates, others = Certificates(tmp_path / "a"), Certificates(tmp_path / "b")
    with site.behind(certificates) as address:
        with site.open(address, trusting(certificates)) as face:
            face.ping()
        for query in ("", trusting(others)):
            assert "?ca=" in str(refused(site.open(address, query)))


def test_our_own_certificate_is_shown_where_it_is_asked_for(site: Site, tmp_path: Path) -> None:
    """With a key that is encrypted; without one, and with one that nobody asked for, it is told."""
    certificates, ours = Certificates(tmp_path / "a"), Certificates(tmp_path / "b", password="geheim")
    shown = f"{trusting(certificates)}&cert={quote(str(ours.certificate))}&key={quote(str(ours.key))}"
    with site.behind(certificates, clients=ours.ca) as address:
        with site.open(address, f"{shown}&key_password=geheim") as face:
            face.ping()
        assert "no key_password was given" in str(refused(site.open(address, shown)))
        assert "key_password is not" in str(refused(site.open(address, f"{shown}&key_password=falsch")))
        with site.open(address, trusting(certificates)) as face, pytest.raises(NarrowboatError) as caught:
            face.ping()  # in TLS 1.3 the refusal comes after the handshake, and may be cut off by the end of the connection
        assert isinstance(caught.value, (ConfigurationError, Unavailable))


def test_tls_on_one_side_only_is_told_with_the_other_scheme(site: Site, servers: Servers) -> None:
    """A port without TLS where the URL says so, and the other way round."""
    with site.open(site.server.address, "verify=none") as face, pytest.raises(NarrowboatError) as caught:
        face.ping()
    assert f"{site.kind.plain}://" in str(caught.value)

    secured: Any = servers(site.kind.server, site.kind.server, tls=True)
    try:
        with site.open(secured.address, "", secure=False) as face, pytest.raises(NarrowboatError) as caught:
            face.ping()
        assert f"{site.kind.plain}s://" in str(caught.value)
        with site.open(secured.address, trusting(secured.certificates)) as face:
            face.ping()
    finally:
        secured.close()
