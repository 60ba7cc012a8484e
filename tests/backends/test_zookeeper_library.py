"""ZooKeeper: every name of kazoo that it does not promise is still there, with the shape that is relied on."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.connection import ConnectionHandler

from narrowboat_zookeeper.library import UNPROMISED, Connection


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    """One of each class; neither has connected."""
    client = KazooClient(hosts="127.0.0.1:1")
    return {"KazooClient": client, "ConnectionHandler": client._connection}


@pytest.mark.parametrize("name", UNPROMISED)
def test_a_name_that_kazoo_does_not_promise_is_still_there(objects: dict[str, Any], name: str) -> None:
    """If not: look what took its place, and change library.py alone."""
    owner, _, attribute = name.partition(".")
    assert hasattr(objects[owner], attribute), f"kazoo has no {name} any more, needed because: {UNPROMISED[name]}"


@pytest.mark.parametrize("name", [name for name, why in UNPROMISED.items() if why.startswith("overridden")])
def test_what_is_overridden_takes_what_it_took(name: str) -> None:
    """And is called by kazoo's own code, so that ours is."""
    attribute = name.partition(".")[2]
    theirs = inspect.signature(getattr(ConnectionHandler, attribute))
    ours = inspect.signature(getattr(Connection, attribute))
    assert list(ours.parameters) == list(theirs.parameters), name
    assert f"self.{attribute}" in inspect.getsource(ConnectionHandler), f"nobody in kazoo calls {name} any more"


def test_the_parts_that_are_read_have_their_shape(objects: dict[str, Any]) -> None:
    """What waits is (request, result, id); the state is one of kazoo's own; a handler of another kind is taken."""
    client = objects["KazooClient"]
    assert len(client._pending) == 0
    assert "client._pending.append((request, async_object, xid))" in inspect.getsource(ConnectionHandler)
    assert list(inspect.signature(client._session_callback).parameters) == ["state"]
    assert not inspect.signature(client._reset_session).parameters
    assert not SequentialThreadingHandler().running
