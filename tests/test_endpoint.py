"""What a URL says of servers: read the same way for every scheme, and refused in the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import narrowboat
import narrowboat.aio
from narrowboat.driver.endpoint import Endpoint, HostPort
from narrowboat.driver.tls import TlsOptions
from narrowboat.dsn import Secret, Url
from narrowboat.errors import ConfigurationError


def read(text: str, options: TlsOptions | None = None, **rules: Any) -> Endpoint:
    return Endpoint.read(Url.parse(text), options or TlsOptions(), plain="shop", port=1, secure_port=2, **rules)


def test_every_host_has_a_port_and_there_is_one_at_least() -> None:
    """The scheme says which port is the usual one."""
    assert read("shop://").hosts == (HostPort("localhost", 1),)
    assert read("shops://a,b:7").hosts == (HostPort("a", 2), HostPort("b", 7))
    assert read("shop://", host="127.0.0.1").hosts == (HostPort("127.0.0.1", 1),)


def test_it_knows_who_we_are_and_shows_no_secret() -> None:
    """Not in its text, which stands in errors."""
    endpoint = read("shops://me:geheim@a/some/where")
    assert (endpoint.user, endpoint.secret, endpoint.database, endpoint.tls) == ("me", Secret("geheim"), "some/where", True)
    assert str(endpoint) == repr(endpoint) == "shops://a:2/some/where"
    assert str(read("shop://[::1]")) == "shop://[::1]:1"


@pytest.mark.parametrize(
    ("url", "rules", "text"),
    [
        ("shop+fast://a", {}, "only one driver; write shop://"),
        ("shop+fats://a", {"drivers": ["fast"]}, r"'shop\+fats'. Did you mean 'shop\+fast'"),
        ("shop://a,b,c", {"one_host": "Ask the nearest."}, "takes one host, and this URL gives 3. Ask the nearest."),
        ("shop://", {"host": None}, "names no host: write shop://localhost:1"),
        ("shop://me@a", {"pair": True}, "a user needs a password"),
        ("shop://:geheim@a", {"pair": True}, "a password a user"),
        ("shop://a/b", {"path": False}, "has no path, and 'b' was given"),
        ("shop+fast://", {"host": None, "drivers": ["fast"]}, r"shop\+fast:// names no host: write shop\+fast://localhost:1"),
        ("shop+fast://me@a", {"pair": True, "drivers": ["fast"]}, r"shop\+fast://user:password@host"),
        ("shop+fast://a/b", {"path": False, "drivers": ["fast"]}, r"shop\+fast:// has no path"),
    ],
)
def test_what_a_scheme_does_not_take_is_refused_before_anything_is_sent(url: str, rules: dict[str, Any], text: str) -> None:
    """With the scheme of the URL as `backend`, and never with the secret."""
    with pytest.raises(ConfigurationError, match=text) as refused:
        read(url, **rules)
    assert refused.value.backend == "shop" and "geheim" not in str(refused.value)


#: A host that no resolver can be asked for, and what is told of it.
NO_HOSTS = [
    ("a%0Ab", r"the character '\n'"),
    ("a%20b", "the character ' '"),
    ("%1B[2J", r"the character '\x1b'"),
    ("a%00b", r"the character '\x00'"),
    ("ok,a%C2%9Bb", r"host 2 of the URL has the character '\x9b'"),
    ("geheim%40pw", "the character '@'"),
    ("a%2Fgeheim", "the character '/'"),
    ("geheim%3Apw", "no IPv6 address"),
    ("[::geheim]", "no IPv6 address"),
    ("a..geheim", "parts of 1 to 63 characters"),
    ("geheim" * 11, "parts of 1 to 63 characters"),
    (".".join(["geheim"] * 40), "253 characters"),
    ("a%E2%80%AEgeheim", r"the character '\u202e'"),
    (":7", "host 1 of the URL is empty"),
    ("[::1%25a%0Ab]", r"the character '\n'"),
    ("[fe80::1%25%1B[2J]", r"the character '\x1b'"),
    ("[fe80::1%25geheim%40]", "the character '@'"),
    ("[fe80::1%25geheimgeheimgeheim]", "more than 15 characters"),
    ("a%C2%ADgeheim", r"the character '\xad'"),
    ("a%EF%BC%A0geheim", "the character '@'"),  # a resolver is asked for a@geheim
    ("a%E2%84%80geheim", "the character '/'"),
]
SERVERS = {
    "redis": (narrowboat.locks, narrowboat.broker, narrowboat.aio.locks, narrowboat.aio.broker),
    "rediss": (narrowboat.locks, narrowboat.broker),
    "redis+cluster": (narrowboat.locks, narrowboat.broker),
    "zookeeper": (narrowboat.locks, narrowboat.aio.locks),
    "consul": (narrowboat.locks, narrowboat.aio.locks),
    "amqp": (narrowboat.broker, narrowboat.aio.broker),
    "kafka": (narrowboat.broker, narrowboat.aio.broker),
}


@pytest.mark.parametrize(("host", "says"), NO_HOSTS, ids=range(len(NO_HOSTS)))
def test_what_is_no_host_is_refused_and_shows_no_more_than_the_character(host: str, says: str) -> None:
    """It can never be reached, so nobody tries again; and it may be a password that stands in the wrong place."""
    with pytest.raises(ConfigurationError) as refused:
        read(f"shop://{host}/")
    text = str(refused.value)
    assert says in text and text.isprintable() and "geheim" not in text and refused.value.backend == "shop"
    assert refused.value.__context__ is None and refused.value.__cause__ is None


@pytest.mark.parametrize(("scheme", "make"), [(scheme, make) for scheme, makes in SERVERS.items() for make in makes])
def test_what_is_no_host_is_refused_when_the_face_is_made(scheme: str, make: Any) -> None:
    """In every backend of a server, before anything is sent."""
    with pytest.raises(ConfigurationError, match="has the character") as refused:
        make(f"{scheme}://a%0Ab")
    assert not refused.value.retryable


@pytest.mark.parametrize("host", ["a", "a_b-c.d.", "127.0.0.1", "[::1]", "[fe80::1%25eth0]", "b%C3%BCcher.example", "1" * 63])
def test_what_a_resolver_may_know_is_a_host(host: str) -> None:
    """Whether there is one of that name the network says."""
    assert read(f"shop://{host}").hosts[0].port == 1


@pytest.mark.parametrize("written", ["shop+fast", "shops+fast"])
def test_advice_about_the_scheme_names_the_driver_of_the_url(written: str) -> None:
    """Who follows it gets the same driver."""
    found = read(f"{written}://a", drivers=["fast"])
    assert (found.plain, found.secure, found.scheme) == ("shop+fast", "shops+fast", written.partition("+")[0])
    assert str(found).startswith(f"{written}://a:")
    assert (read("shops://a").plain, read("shops://a").secure) == ("shop", "shops")


def test_options_for_tls_are_refused_without_it(tmp_path: Path) -> None:
    """As everywhere."""
    (tmp_path / "ca.pem").touch()
    options = TlsOptions(ca=str(tmp_path / "ca.pem"))
    assert read("shops://a", options).tls
    with pytest.raises(ConfigurationError, match="write shops:// instead"):
        read("shop://a", options)
    with pytest.raises(ConfigurationError, match=r"shop\+fast:// does not use it: write shops\+fast:// instead"):
        read("shop+fast://a", options, drivers=["fast"])


@pytest.mark.parametrize("path", ["a//b", "../a", "a/.", "a%00b"])
def test_a_folder_has_plain_parts_only(path: str) -> None:
    """Whatever a server would make of others."""
    assert read("shop://a//b/c/").folder() == "b/c" and read("shop://a").folder() == ""
    with pytest.raises(ConfigurationError, match="name a plain folder"):
        read(f"shop://a/{path}").folder()


def test_a_backend_may_know_more() -> None:
    """A class of its own, with fields of its own."""
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True, repr=False)
    class Shop(Endpoint):
        shelves: int

    shop = Shop.read(Url.parse("shop://a"), TlsOptions(), plain="shop", port=1, shelves=7)
    assert shop.shelves == 7 and str(shop) == "shop://a:1"
