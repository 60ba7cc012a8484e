"""RabbitMQ in another version than the usual one: what it does differently with what is given back, and never the other way."""

from __future__ import annotations

import pytest

from integration.fixtures import obtain
from integration.rabbitmq_harness import RabbitHarness, SettledServer
from integration.servers.editions import RabbitMQ43
from narrowboat.conformance import verify

#: What counts attempts, buries what has too many, gives back uncounted, and keeps what was acknowledged.
COUNTED = ("B23", "B34", "B40", "B41", "B51", "B120")


class SettledServer43(SettledServer, RabbitMQ43):
    """The newer server, not killed before it has written down which queues it has."""


@pytest.mark.timeout(600)
def test_what_is_given_back_is_counted_or_not_on_4_3() -> None:
    """From 4.3 on a server counts what is rejected and does not count what is "nacked": both are used for what they mean."""
    with obtain(RabbitMQ43, SettledServer43) as server:
        report = verify(RabbitHarness(server.url, server=server), faces=["sync"], only=COUNTED)
    assert report.ok, "\n\n".join(f"{row.id} {row.scenario}: {row.why}" for row in report.broken)
    assert {row.id for row in report.rows if row.outcome.value == "held"} >= set(COUNTED[:3])
