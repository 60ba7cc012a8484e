"""Opens a broker as a user of the backend must: on a backend without dead letters, no queue asks for them.

Such a backend refuses a queue's default, which is a dead letter after five deliveries. Scenarios about other things use queues
by default; on such a backend, the queues of a broker that is opened here ask for endless deliveries instead.
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
