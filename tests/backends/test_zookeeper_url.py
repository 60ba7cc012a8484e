"""ZooKeeper: its URL and options, what is refused before anything is sent, and its errors."""

from __future__ import annotations

import ssl
from typing import Any

import kazoo.exceptions
import pytest

import narrowboat
from narrowboat.dsn import Url, parse_options
from narrowboat.errors import AccessDenied, ConfigurationError, InvalidArgument, NarrowboatError, Unavailable, Unsupported
from narrowboat_zookeeper import errors
from narrowboat_zookeeper.options import Acl, Ensemble, Options


def ensemble(text: str, **given: Any) -> Ensemble:
    url = Url.parse(text)
    return Ensemble.of(url, parse_options(url, Options, given))


def test_hosts_have_their_port_and_the_path_is_the_root() -> None:
    found = ensemble("zookeeper://a,b:2182,[::1]:2183/shop/locks")
    assert tuple(map(str, found.hosts)) == ("a:2181", "b:2182", "[::1]:2183")
    assert (found.base, found.tls, found.acl) == ("/shop/locks", False, Acl.OPEN)
    assert repr(found) == "zookeeper://a:2181,b:2182,[::1]:2183/shop/locks"
    assert str(ensemble("zookeeper://").hosts[0]) == "127.0.0.1:2181"
    assert ensemble("zookeepers://a").tls


def test_a_user_means_that_only_that_user_may() -> None:
    found = ensemble("zookeeper://shop:p%40ss@a/x")
    assert (found.user, found.secret.reveal(), found.acl) == ("shop", "p@ss", Acl.CREATOR)
    assert "p@ss" not in repr(found)
    assert ensemble("zookeeper://shop:x@a?acl=open").acl is Acl.OPEN


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("zookeeper+foo://a", "zookeeper+foo"),
        ("zookeeper://:secret@a", "a password a user"),
        ("zookeeper://shop@a", "password"),
        ("zookeeper://a%3Ab:secret@a", "':'"),
        ("zookeeper://a/x/../y", "'..'"),
        ("zookeeper://a/x//y", "empty"),
        ("zookeeper://a?acl=creator", "without a user"),
        ("zookeeper://a?acl=nobody", "open, creator, read"),
        ("zookeeper://a?ca=/x.pem", "zookeepers://"),
        ("zookeepers://a?ca=/not/there.pem", "no such file"),
        ("zookeeper://a?session_ttl=3", "4 (two ticks"),
        ("zookeeper://a?session_ttl=5000", "3600"),
        ("zookeeper://a?tick=0", "tickTime"),
        ("zookeeper://a?session_tll=10", "session_ttl"),
        ("zookeeper://a?session_ttl=soon", "number of seconds"),
        ("zookeeper://a?create=maybe", "true or false"),
    ],
)
def test_what_makes_no_sense_is_one_clear_error_without_a_server(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        narrowboat.locks(text)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_bound_after_a_crash_is_claimed_and_a_shorter_ttl_refused_before_anything_is_sent() -> None:
    with narrowboat.locks("zookeeper://192.0.2.1:1?session_ttl=6&tick=1") as locks:
        assert locks.capabilities.ttl_min == 8.0
        with pytest.raises(Unsupported, match="session_ttl"):
            locks.lock("a", ttl=7)
        with pytest.raises(InvalidArgument):
            locks.lock("a", ttl=-1)
        locks.lock("a", ttl=8)
    with narrowboat.locks("zookeeper://192.0.2.1:1") as locks:
        locks.lock("a")  # the default accepts the default


def test_what_is_demanded_is_compared_with_what_is_claimed() -> None:
    narrowboat.locks("zookeeper://a", require="fencing,survives=node,order=fifo,expiry=session").close()
    with pytest.raises(Unsupported):
        narrowboat.locks("zookeeper://a", require="fencing_survives=data loss")


ENSEMBLE = ensemble("zookeeper://shop:hunter2@a,b/x")


@pytest.mark.parametrize("error", errors.BROKEN)
def test_a_broken_exchange_is_unknown_and_may_be_repeated(error: type[Exception]) -> None:
    found = errors.unknown(ENSEMBLE, error())
    assert isinstance(found, AccessDenied if error is kazoo.exceptions.AuthFailedError else Unavailable)
    assert found.retryable == isinstance(found, Unavailable)
    assert isinstance(found.__cause__, error)
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (kazoo.exceptions.NoAuthError(), AccessDenied),
        (kazoo.exceptions.InvalidACLError(), ConfigurationError),
        (kazoo.exceptions.ConnectionLoss(), Unavailable),
        (kazoo.exceptions.QuotaExceededError(), Unavailable),
        (kazoo.exceptions.MarshallingError(), Unavailable),
    ],
)
def test_a_refused_request_says_what_was_done_and_by_whom(error: Exception, kind: type[NarrowboatError]) -> None:
    found = errors.refused(ENSEMBLE, error, doing="taking the lock 'a'")
    assert type(found) is kind
    assert found.__cause__ is error
    assert kind is not AccessDenied or ("'shop'" in str(found) and "taking the lock 'a'" in str(found))


def test_a_server_out_of_reach_is_told_from_a_certificate_that_was_refused() -> None:
    found = errors.unreachable(ENSEMBLE, 5.0, ConnectionRefusedError(111, "Connection refused"))
    assert isinstance(found, Unavailable)
    assert "Connection refused" in str(found)
    refusal = ssl.SSLCertVerificationError(1, "x")
    refusal.verify_message = "self-signed certificate"
    found = errors.unreachable(ENSEMBLE, 5.0, refusal)
    assert isinstance(found, ConfigurationError)
    assert "self-signed" in str(found)
    assert not found.retryable
