"""A server whose start takes long is handed on from test to test of one process, and nothing of it is left at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration import kept
from integration.servers import RedisServer


class DearRedis(RedisServer):
    """As if its start took long."""

    dear = True


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(kept, "_idle", [])
    yield
    kept.close()


def used(**options: str) -> DearRedis:
    with kept.lent(DearRedis, DearRedis, **options) as lent:
        server: DearRedis = lent
        assert server.alive
    return server


def test_the_next_one_that_asks_for_it_gets_it() -> None:
    first = used()
    assert first.alive
    assert used() is first


def test_other_options_are_another_server() -> None:
    assert used() is not used(password="s3cret")


def test_two_at_a_time_have_one_each() -> None:
    with kept.lent(DearRedis, DearRedis) as one, kept.lent(DearRedis, DearRedis) as other:
        assert one is not other


def test_one_that_a_test_has_ended_starts_again() -> None:
    first = used()
    first.kill()
    assert used() is first


def test_what_a_test_failed_on_is_nobody_elses() -> None:
    with pytest.raises(AssertionError, match="it failed"), kept.lent(DearRedis, DearRedis) as server:
        raise AssertionError("it failed")
    assert not server.alive
    assert used() is not server


def test_the_oldest_makes_room_and_the_end_takes_all() -> None:
    servers = [used(), used(password="a"), used(password="b")]
    assert [server.alive for server in servers] == [False, True, True]
    kept.close()
    assert not any(server.alive for server in servers)


def test_one_that_starts_at_once_is_not_kept() -> None:
    with kept.lent(RedisServer, RedisServer) as server:
        pass
    assert not server.alive
