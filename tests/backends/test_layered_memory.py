"""A driver behind a seal, a signature or compression is a driver: the suite of all drivers, on memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from broker_calls import Drivers, open_driver
from broker_suite import BrokerSuite
from narrowboat.clock import ManualClock
from narrowboat.contract import Broker
from narrowboat.layers.compressed import Compress
from narrowboat.layers.sealed import Keyring, Seal
from narrowboat.layers.sealed.keyring import document_of
from narrowboat.layers.sealed.keys import GCM, HMAC, Key
from narrowboat_memory import broker as backend

_names = itertools.count(1)


def _sealed(kind: str) -> Callable[[Broker], Broker]:
    document = document_of([Key("k1", kind, 0.0, bytes(range(32)))])
    return Seal(Keyring(lambda: document)).wrap


WRAPS: dict[str, Callable[[Broker], Broker]] = {
    "sealed": _sealed(GCM),
    "signed": _sealed(HMAC),
    "compressed": Compress().wrap,
    "compressed and sealed": lambda driver: Compress().wrap(_sealed(GCM)(driver)),
    "compressed and signed": lambda driver: Compress().wrap(_sealed(HMAC)(driver)),
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=WRAPS)
def drivers(clock: ManualClock, request: pytest.FixtureRequest) -> Iterator[Drivers]:
    name, wrap = f"layered{next(_names)}", WRAPS[request.param]
    opened: list[Broker] = []

    def open_one(options: str = "") -> Broker:
        opened.append(wrap(open_driver(backend, f"memory://{name}?{options}", clock)))
        return opened[-1]

    yield open_one
    for broker in opened:
        broker.close()


class TestLayeredMemory(BrokerSuite):
    """The suite's own tests, with each of `WRAPS`."""
