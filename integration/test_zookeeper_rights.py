"""ZooKeeper: exactly the rights that the page names are enough, one fewer is refused, and so is another tenant."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

import narrowboat
from integration.servers import ZooKeeperServer
from integration.zookeeper_harness import kazoo
from narrowboat.errors import AccessDenied, ConfigurationError

_numbers = itertools.count()
QUERY = "session_ttl=3&tick=0.5"
#: What the page says for the nodes above the locks.
NEEDED = {"read": True, "create": True}


def url_of(server: ZooKeeperServer, user: str | None, path: str, more: str = "") -> str:
    """The URL of a user, who has that name as password; of nobody."""
    who = server.url_for(user, user, path) if user is not None else server.url_for(path=path)
    return f"{who}?{QUERY}{more}"


def refused(call: Callable[[], object]) -> AccessDenied:
    """The error of a call; trying it again is of no use."""
    with pytest.raises(AccessDenied) as caught:
        call()
    assert not caught.value.retryable
    return caught.value


def made(admin: KazooClient, path: str, **other: dict[str, bool]) -> None:
    """The path, the node of all prefixes and the namespace, with what `shop` needs, or other rights where they are given."""
    for name, node in (("base", f"/{path}"), ("root", f"/{path}/narrowboat"), ("space", f"/{path}/narrowboat/_")):
        rights = other.get(name, NEEDED)
        acl = [make_digest_acl("admin", "admin", all=True), *([make_digest_acl("shop", "shop", **rights)] if rights else [])]
        admin.create(node, acl=acl)


@pytest.fixture
def path() -> str:
    return f"rights{next(_numbers)}"


@pytest.fixture
def admin(zookeeper_server: ZooKeeperServer) -> Any:
    with kazoo(zookeeper_server.url, auth_data=[("digest", "admin:admin")]) as client:
        yield client


def test_users_keep_to_themselves_under_one_path(zookeeper_server: ZooKeeperServer, path: str) -> None:
    """Whoever comes first makes the node of all prefixes; others, and whoever has no name, have their own in it."""
    alice = narrowboat.locks(url_of(zookeeper_server, "alice", path, "&create=true"))
    bob = narrowboat.locks(url_of(zookeeper_server, "bob", path, "&prefix=bob"))
    anybody = narrowboat.locks(url_of(zookeeper_server, None, path, "&prefix=any"))
    with alice, bob, anybody, alice.lock("o", timeout=5) as held:
        for locks in (bob, anybody):
            with locks.lock("o", timeout=5):
                pass
        for user in ("bob", None):
            with narrowboat.locks(url_of(zookeeper_server, user, path)) as thief:  # in alice's own prefix
                for call in (thief.lock("o").acquire, thief.lock("new").try_acquire, partial(thief.holders, "o")):
                    assert f"/{path}" in str(refused(call))
                refused(partial(thief.evict, "o", held.token))
                refused(thief.ping)
        held.check()


def test_a_prefix_stays_its_users_while_nobody_uses_it(zookeeper_server: ZooKeeperServer, path: str) -> None:
    """Otherwise the next one who comes would own it, and its user would be refused."""
    with narrowboat.locks(url_of(zookeeper_server, "alice", path, "&create=true")) as alice, alice.lock("n"):
        pass
    with narrowboat.locks(url_of(zookeeper_server, "bob", path)) as bob:
        refused(bob.lock("n").try_acquire)
    with narrowboat.locks(url_of(zookeeper_server, "alice", path)) as alice, alice.lock("n"):
        pass


def test_a_node_of_all_prefixes_that_is_not_shared_is_refused_to_others(zookeeper_server: ZooKeeperServer, path: str) -> None:
    """As it was told by share=false: a missing right, and no node that is deleted again and again."""
    with narrowboat.locks(url_of(zookeeper_server, "alice", path, "&create=true&share=false")) as alice:
        alice.lock("o").acquire(timeout=5).release()
        for user in ("bob", None):
            with narrowboat.locks(url_of(zookeeper_server, user, path, "&prefix=x")) as locks:
                refused(locks.lock("o").acquire)
                refused(locks.lock("o").try_acquire)


def test_the_rights_that_the_page_names_are_enough(zookeeper_server: ZooKeeperServer, path: str, admin: KazooClient) -> None:
    """Above the locks to read and to create, and no more; another tenant with none is refused whatever it calls."""
    made(admin, path)
    with (
        narrowboat.locks(url_of(zookeeper_server, "shop", path)) as locks,
        narrowboat.locks(url_of(zookeeper_server, "other", path)) as tenant,
    ):
        locks.ping()
        for terms in ({}, {"mode": "shared"}, {"limit": 2}):
            with locks.lock("a", timeout=5, **terms) as held:
                held.renew()
                assert [holder.token for holder in locks.holders()] == [held.token]
                refused(tenant.lock("a", **terms).acquire)
                refused(tenant.lock("b", **terms).try_acquire)
                refused(partial(tenant.evict, "a", held.token))
        held = locks.lock("a").acquire(timeout=5)
        assert locks.evict("a", held.token)
        refused(tenant.holders)
        refused(lambda: tenant.holders("a"))
        refused(tenant.ping)


def test_one_right_fewer_is_refused_and_named(zookeeper_server: ZooKeeperServer, path: str, admin: KazooClient) -> None:
    """No creating in the namespace; no reading of it."""
    made(admin, path, space={"read": True})
    made(admin, f"{path}b", space={"create": True})
    with narrowboat.locks(url_of(zookeeper_server, "shop", path)) as locks:
        assert "'shop'" in str(refused(locks.lock("a").acquire))
        assert locks.holders() == []
    with narrowboat.locks(url_of(zookeeper_server, "shop", f"{path}b")) as locks:
        refused(locks.holders)
        refused(locks.ping)


def test_a_ping_asks_for_what_a_call_needs(zookeeper_server: ZooKeeperServer, path: str) -> None:
    """A path that is not there is refused to a ping as to a lock; with create=true neither is."""
    with narrowboat.locks(url_of(zookeeper_server, None, path)) as locks:
        for call in (locks.ping, lambda: locks.lock("a").acquire(timeout=1)):
            with pytest.raises(ConfigurationError, match="create=true"):
                call()
    with narrowboat.locks(url_of(zookeeper_server, None, path, "&create=true")) as locks:
        locks.ping()
        locks.lock("a").acquire(timeout=5).release()
        locks.ping()
