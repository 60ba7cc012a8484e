"""Compressed bodies: smaller where that is possible, whole again, and no bomb is ever expanded."""

from __future__ import annotations

import importlib
import itertools
import tracemalloc
import zlib
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from test_sealed import NOW, ORDERS, again, driver, feed_of, key, outgoing, place, received, ring

import narrowboat
from narrowboat.errors import ConfigurationError
from narrowboat.layers.changing import UNOPENED, Unopened
from narrowboat.layers.compressed import HEADER, LEAST, Algorithm, Compress, CompressedBroker, expanded
from narrowboat.layers.sealed import Seal
from narrowboat.layers.sealed.format import MARKER
from narrowboat.layers.sealed.keys import KINDS

ALGORITHMS = [each.value for each in Algorithm]
TEXT = b"kettle, rope and lamp; " * 40


@given(st.sampled_from(ALGORITHMS), st.binary(max_size=1000) | st.binary(max_size=50).map(lambda part: part * 50))
def test_a_body_comes_back(name: str, body: bytes) -> None:
    made = Compress(name).compress(body)
    assert expanded(name, made, len(body)) == body


@pytest.mark.parametrize("name", ALGORITHMS)
def test_it_is_smaller_on_the_server_and_says_how(name: str) -> None:
    """What would not become smaller stays as it is. Any process expands it, whatever it compresses with."""
    url = place()
    server = driver(url)
    sends = Compress(name).wrap(server)
    sends.send([outgoing(body=TEXT, headers={"a": "b"}), outgoing(body=b"x" * (LEAST - 1)), outgoing(body=bytes(range(256)))])

    seen = received(server)
    assert [each.headers.get(HEADER) for each in seen] == [name, None, None]
    assert len(seen[0].body) < len(TEXT) / 5
    server.delete(ORDERS)
    server.send([again(each) for each in seen])
    found = received(Compress().wrap(server))
    assert [(each.body[:300], dict(each.headers)) for each in found] == [
        (TEXT[:300], {"a": "b"}),
        (b"x" * (LEAST - 1), {}),
        (bytes(range(256)), {}),
    ]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_bomb_takes_no_memory_and_is_refused(name: str) -> None:
    bomb = Compress(name).compress(bytes(200 * 2**20))
    tracemalloc.start()
    try:
        with pytest.raises(Unopened, match="expand to more than 1000000"):
            expanded(name, bomb, 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    finally:
        tracemalloc.stop()
    assert len(expanded(name, Compress(name).compress(bytes(1_000_000)), 1_000_000)) == 1_000_000


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"x", lambda d: d + d, lambda d: b"", lambda d: b"x" + d])
def test_what_is_damaged_is_refused(name: str, change: Any) -> None:
    with pytest.raises(Unopened):
        expanded(name, change(Compress(name).compress(TEXT)), 10_000)


@given(st.sampled_from([*ALGORITHMS, "lzma", ""]), st.binary(max_size=200))
def test_any_bytes_are_a_body_or_refused(name: str, body: bytes) -> None:
    try:
        assert isinstance(expanded(name, body, 1000), bytes)
    except Unopened:
        pass


def test_a_frame_that_asks_for_much_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    made = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(Unopened, match="cannot be expanded by zstd"):
        expanded("zstd", made.compress(TEXT) + made.flush(), 10_000)


def test_a_bomb_is_a_dead_letter_and_its_neighbours_are_handled() -> None:
    """With the constant reason. A redrive publishes it as it was."""
    url = place()
    server = driver(url)
    most = server.capabilities.body_max
    with narrowboat.broker(url, compress="zlib") as broker, narrowboat.broker(url) as clear:
        orders = broker.queue("orders")
        orders.publish(TEXT)
        server.send([outgoing(id="bomb", body=zlib.compress(bytes(most + 1)), headers={HEADER: "zlib"})])
        orders.publish(b"2")
        with orders.consume(idle=0.1) as messages:
            for message in messages:
                assert message.body in (TEXT, b"2")
                message.ack()
        letters = orders.dead_letters()
        with letters.consume(idle=0.1) as messages:
            (letter,) = messages
            assert (letter.id, letter.dead.reason) == ("bomb", CompressedBroker.REASON)
            assert "expand to more than" in letter.headers[UNOPENED]
        assert letters.redrive() == 1
        with clear.queue("orders").consume(idle=0.1) as messages:
            assert [(each.id, each.headers[HEADER]) for each in messages] == [("bomb", "zlib")]


def test_a_forgery_that_expands_is_not_sealed_by_a_redrive() -> None:
    """Both layers, as a URL puts them: what the seal behind could not open, the layer in front leaves alone."""
    server = driver(place())
    both = Compress().wrap(Seal(ring()).wrap(server))
    server.send([outgoing(id="forged", body=zlib.compress(TEXT), headers={HEADER: "zlib"})])
    feed = feed_of(both)
    (found,) = feed.receive(1).deliveries
    assert found.refused and found.body != TEXT
    dead = ORDERS.dead
    server.send([again(found, dead, headers={HEADER: "zlib"})])
    (letter,) = received(both, dead)
    assert letter.body != TEXT and UNOPENED in letter.headers
    both.send([again(letter, origin=letter.tag)])
    server.delete(dead)
    assert [MARKER in each.headers for each in received(server)] == [False]


@pytest.mark.parametrize("kind", KINDS)
def test_a_genuine_letter_is_compressed_and_sealed_anew_by_a_redrive(kind: str) -> None:
    server, now = driver(place()), itertools.count(NOW)  # what is signed twice in one millisecond has one signature
    both = Compress().wrap(Seal(ring(key(kind=kind)), wall=lambda: next(now)).wrap(server))
    both.send([outgoing(body=TEXT)])
    (seen,) = received(server)
    server.delete(ORDERS)
    server.send([again(seen, ORDERS.dead)])
    (letter,) = received(both, ORDERS.dead)
    both.send([again(letter, origin=letter.tag)])
    (back,) = received(server)
    assert back.headers[MARKER] != seen.headers[MARKER]
    server.delete(ORDERS)
    server.send([again(back)])
    assert [each.body for each in received(both)] == [TEXT]


def test_without_zstd_it_is_refused_when_the_face_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command; and a message of others is refused, and comes back by a redrive."""

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigurationError, match=r"zstd is not installed.*\[compress\]"):
        narrowboat.broker("memory://x", compress="zstd")
    with pytest.raises(Unopened, match="zstd is not installed"):
        expanded("zstd", b"x", 10)
