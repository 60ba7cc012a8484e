"""The conformance kit on Consul. Its sessions live 10 s or more, so scenarios mostly wait, and run side by side."""

from __future__ import annotations

import gc

import pytest

from integration.conformance import TRANSPORT, allowed, verified
from integration.consul_harness import ConsulHarness
from integration.fixtures import obtain
from integration.servers import ConsulServer
from narrowboat.conformance.scenario import FACES

#: Of the stress scenarios: an interrupt at every point of an acquire is thousands of acquires.
SIZE = 0.2


#: An interrupt that strikes between the making of a socket and its first name leaves it to the collector, which complains.
#: The kit interrupts the sync face at each of these points; that nothing leaks otherwise it counts itself (L44).
INTERRUPTED = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("face", [pytest.param(face, marks=INTERRUPTED if face == "sync" else ()) for face in FACES])
def test_consul(face: str) -> None:
    """Everything, on one agent that keeps its data."""
    server = obtain(ConsulServer)
    with server:
        try:
            verified(ConsulHarness(server.url, server=server), server, faces=[face], tiers=allowed(""), size=SIZE)
        finally:
            gc.collect()  # here, not in the next test


@pytest.mark.timeout(600)
def test_consul_tls() -> None:
    """What a transport can break, through TLS and with access control."""
    server = obtain(ConsulServer, tls=True, token="0b8f1b60-54a7-4a31-9b2a-5a51f6c1f6d2")
    with server:
        verified(server.url, server, tiers="CP", only=TRANSPORT)
