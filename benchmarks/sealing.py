"""Sealing and opening batches of 1,000 messages of 200 bytes, against the bare primitive on the same bytes.

`python -m benchmarks sealing`. Rates are for each second of processor time, the best round: no server takes part, and on a busy
machine the clock tells of its other programs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measure import SHORT_ROUNDS, Row
from narrowboat.clock import SystemClock
from narrowboat.contract import Address, Broker, Context, Delivery, Kind, Outgoing
from narrowboat.dsn import Url, parse_options
from narrowboat.layers.sealed import Keyring, Seal
from narrowboat.layers.sealed.keyring import document_of
from narrowboat.layers.sealed.keys import ED25519, GCM, KINDS, NONCE, Key, public_half
from narrowboat.layers.sealed.layer import SealedBroker
from narrowboat.registry import broker_backend

MANY, SIZE = 1000, 200
ORDERS = Address(Kind.QUEUE, "orders")


def rows(folder: Path) -> Iterator[Row]:
    """What is demanded is sealing with AES-256-GCM; the others tell what they cost."""
    for kind in KINDS:
        yield from _of(kind, rounds=3 if kind == ED25519 else SHORT_ROUNDS, least=100_000 if kind == GCM else 0)


def _of(kind: str, rounds: int, least: int) -> Iterator[Row]:
    secret = os.urandom(32)
    key = Key("k1", kind, 0.0, secret, public_half(secret) if kind == ED25519 else None)
    broker = SealedBroker(_memory(), Seal(Keyring(lambda: document_of([key]))))
    batch = [_message() for _ in range(MANY)]
    came = [_delivery(each) for each in broker.outgoing(batch) if isinstance(each, Outgoing)]
    suite, content, bound = key.suite(b"place"), bytes(4 + SIZE), bytes(120)
    tail, sealed = suite.seal(bound, content, bytes(NONCE))
    works: dict[str, tuple[Callable[[], object], Callable[[], object], int]] = {
        "seal": (
            lambda: broker.outgoing(batch),
            lambda: [suite.seal(bound, content, bytes(NONCE)) for _ in range(MANY)],
            least,
        ),
        "open": (
            lambda: [broker.arrived(ORDERS, each) for each in came],
            lambda: [suite.open(bound, tail, sealed or content) for _ in range(MANY)],
            0,
        ),
    }
    for name, (whole, alone, demanded) in works.items():
        ours, bare = _rates(rounds, whole, alone)
        target = f">= {demanded:,}/s" if demanded else ""
        yield Row(f"{kind}: {name} {SIZE} B", f"{ours:,.0f}/s", f"{bare:,.0f}/s", ours / bare, target, ours >= demanded)


def _rates(rounds: int, *works: Callable[[], object]) -> list[float]:
    """Messages for each second of processor time, the best round of each, in turns."""
    best = [0.0 for _ in works]
    for _ in range(rounds):
        for index, work in enumerate(works):
            begun = time.process_time()
            work()
            best[index] = max(best[index], MANY / (time.process_time() - begun))
    return best


def _memory() -> Broker:
    backend, url, clock = broker_backend("memory"), Url.parse("memory://"), SystemClock()
    return backend.open(url, parse_options(url, backend.options, {}), Context(clock=clock, timeout=5.0, watch=clock.watch))


def _message() -> Outgoing:
    id, now = os.urandom(16).hex(), time.time()
    return Outgoing(ORDERS, id, os.urandom(SIZE), {}, None, now, 0.0, 0, None, None, None, None, False)


def _delivery(sent: Outgoing) -> Delivery:
    return Delivery(sent.id, sent.body, sent.headers, None, 1, sent.published_at, 0, None, None, None, None, "tag")
