"""A KeyboardInterrupt at every interruptible point of receive and ack: no message is lost between the caller and the consumer.

At once, and not when its lease ends: neither the consumer nor the driver may keep what nobody knows of. How the points are
found is said in `narrowboat.conformance.faults.sweep`.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import narrowboat
from narrowboat._engine.runtime import run
from narrowboat._messages.delivery import LOST, SETTLED
from narrowboat.clock import ManualClock
from narrowboat.conformance.faults.sweep import Strike, sweep
from narrowboat.contract import Depth, Feed, Source
from narrowboat.errors import SettleUnknown, StaleDelivery
from narrowboat.layers.faults import Faults
from narrowboat.layers.passing import PassingBroker, PassingFeed

# A coroutine that is interrupted before its first step is dropped unstarted; that is what an interrupt means.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


class Layer(PassingBroker):
    """Passes all on."""

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        return PassingFeed(super().open(source, earliest=earliest, wake=wake))


@pytest.mark.parametrize("layer", [None, Layer, Faults().wrap], ids=["bare", "passing", "through"])
@pytest.mark.parametrize("url", ["memory://{}", "sqlite:///{}?durability=normal"])
def test_a_receive_loses_nothing_wherever_it_is_interrupted(url: str, layer: Any, tmp_path: Path) -> None:
    """Two messages are fetched together: both are there afterwards, once, uncounted (it is their only delivery), and kept."""
    url = url.format(tmp_path / "messages.db" if url.startswith("sqlite") else uuid.uuid4().hex)
    with narrowboat.broker(url, clock=ManualClock(), wrap=layer) as broker:
        queue = broker.queue("orders", max_deliveries=1, lease=30)
        with queue.consume(prefetch=10) as messages:

            def once(strike: Strike) -> None:
                sent = {receipt.id for receipt in queue.publish_many([b"1", b"2"])}
                got = []
                try:
                    message = strike(messages.receive, 0)
                except KeyboardInterrupt:
                    pass
                else:
                    got.append(message)
                while len(got) < 2 and (message := messages.receive(0)) is not None:
                    got.append(message)
                assert sorted(message.id for message in got) == sorted(sent), strike.where
                assert all(entry in messages._consumer.window.unsettled for entry in got), strike.where
                assert messages._consumer.extending in broker._core.kept, strike.where
                for message in got:
                    message.ack()
                assert queue.depth() == Depth(0, 0, 0, 0), strike.where

            assert sweep(once) > 100


@pytest.mark.parametrize("wait", [True, False])
def test_a_settlement_is_made_or_can_be_repeated_wherever_it_is_interrupted(wait: bool) -> None:
    """No message is left that is being settled by nobody: it would fill the window, and its ack could not be repeated."""
    with narrowboat.broker(f"memory://{uuid.uuid4().hex}", clock=ManualClock()) as broker:
        queue = broker.queue("orders", max_deliveries=0)
        with queue.consume(prefetch=10) as messages:

            def once(strike: Strike) -> None:
                queue.publish(b"x")
                message = messages.receive(0)
                with contextlib.suppress(KeyboardInterrupt):
                    strike(message.ack, wait=wait)
                if not wait:
                    run(messages._consumer.settlement.flush())
                with contextlib.suppress(StaleDelivery, SettleUnknown):
                    message.ack()
                assert message._state in (SETTLED, LOST), strike.where
                assert message not in messages._consumer.window.unsettled, strike.where
                assert queue.depth() == Depth(0, 0, 0, 0), strike.where

            assert sweep(once) > (30 if wait else 15)
