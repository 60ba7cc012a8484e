"""Request and reply where several callers ask at once, on a driver that lets them all in."""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections.abc import Callable

import pytest

import narrowboat
import narrowboat_memory
from narrowboat import registry
from narrowboat.capabilities import Concurrency
from narrowboat.contract import Address, Broker, Feed
from narrowboat.layers.passing import PassingBroker


class SlowInbox(PassingBroker):
    """An inbox takes a while to open, so that a second caller comes meanwhile."""

    def __init__(self, inner: Broker, opened: list[str]) -> None:
        super().__init__(inner)
        self.opened = opened

    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        self.opened.append(threading.current_thread().name)
        threading.Event().wait(0.2)
        return super().inbox(wake)


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> str:
    """A URL of a backend that multiplexes."""
    plain = narrowboat_memory.broker
    backend = dataclasses.replace(
        plain,
        capabilities=lambda url, options: dataclasses.replace(
            plain.capabilities(url, options), concurrency=Concurrency.MULTIPLEXED
        ),
    )
    monkeypatch.setitem(registry._loaded, (registry.BROKERS, "memory"), backend)
    return f"memory://{uuid.uuid4().hex}"


def test_first_requests_at_the_same_time_share_one_inbox(url: str) -> None:
    """Each gets its own reply. With an inbox for each, the replies to all but the last would be read by nobody."""
    opened: list[str] = []
    replies: dict[int, bytes] = {}
    broker = narrowboat.broker(url, wrap=lambda driver: SlowInbox(driver, opened))
    server = narrowboat.broker(url)
    with broker, server, server.queue("double").consume() as messages:

        def serve() -> None:
            for message in messages:
                message.reply(message.body * 2)
                message.ack()

        def ask(number: int) -> None:
            replies[number] = broker.queue("double").request(str(number).encode(), timeout=5).body

        serving = threading.Thread(target=serve)
        asking = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in (serving, *asking):
            thread.start()
        for thread in asking:
            thread.join(20)
        messages.stop()
        serving.join(10)

    assert replies == {number: str(number).encode() * 2 for number in range(6)}
    assert len(opened) == 1
