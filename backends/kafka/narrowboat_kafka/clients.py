"""Which client of Kafka a broker object stands on. It is imported when a broker is opened, or prepared for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from narrowboat.driver.endpoint import Endpoint
    from narrowboat_kafka.client import Client
    from narrowboat_kafka.options import Options


def load() -> Callable[[Endpoint, Options, float], Client]:
    """The class that opens a client."""
    from narrowboat_kafka.library.client import Client

    return Client
