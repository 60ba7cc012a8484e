"""Opening a broker as a user of this backend must: where there are no dead letters, no queue asks for them.

A queue's default, dead after five deliveries, is refused by a backend without dead letters. Scenarios that are about something
else use queues as they come; what is opened here asks for endless deliveries instead.
"""

from __future__ import annotations

import functools
from typing import Any

import narrowboat
import narrowboat.aio
from narrowboat.capabilities import Support


def opened(url: str, face: str = "sync", **arguments: Any) -> Any:
    """A broker of that face; the arguments as for `narrowboat.broker`."""
    broker: Any = (narrowboat if face == "sync" else narrowboat.aio).broker(url, **arguments)
    if broker.capabilities.dead_letters is Support.ABSENT:
        topic = broker.topic
        broker.queue = functools.partial(broker.queue, max_deliveries=0)
        broker.topic = lambda *words, **terms: _endless(topic(*words, **terms))
    return broker


def _endless(topic: Any) -> Any:
    topic.subscription = functools.partial(topic.subscription, max_deliveries=0)
    return topic
