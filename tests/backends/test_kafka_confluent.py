"""What the producer on librdkafka makes of the library's reports, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError as Told

from narrowboat_kafka.confluent.errors import Local
from narrowboat_kafka.confluent.handle import Troubles
from narrowboat_kafka.confluent.producer import _Call


class Broke:
    """What the library tells of a connection that had been made."""

    def name(self) -> str:
        return "_TRANSPORT"

    def code(self) -> int:
        return Local.TRANSPORT

    def fatal(self) -> bool:
        return False

    def str(self) -> str:  # last: it hides the type
        return "a:9/1: Disconnected (after 5010ms in state UP)"


@pytest.mark.parametrize("code", [Local.PURGE_QUEUE, Local.UNKNOWN_TOPIC, Local.UNKNOWN_PARTITION])
@pytest.mark.parametrize("broke", [False, True])
def test_what_is_in_the_queue_may_have_been_sent_where_a_connection_broke(code: int, broke: bool) -> None:
    """It is in the queue again then, whatever it is refused for from there."""
    troubles: Any = Troubles()
    call = _Call(1, troubles)
    if broke:
        troubles.heard(Broke())
    call.done(0, Told(code), None)
    (failed,) = call.answers()
    assert failed is not None
    assert failed.left is broke
