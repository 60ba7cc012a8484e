"""What the producer on librdkafka makes of the library's reports, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError as Told

from narrowboat_kafka.confluent.errors import Local
from narrowboat_kafka.confluent.handle import Troubles
from narrowboat_kafka.confluent.producer import _Call
from narrowboat_kafka.confluent.settings import Log

UP = "[thrd:a:9/1]: a:9/1: Disconnected: connection reset by peer (after 5010ms in state UP)"
NEVER = "[thrd:a:9/1]: a:9/1: Connect to ipv4#1.2.3.4:9 failed: Connection refused (after 0ms in state CONNECT)"

ASKS = "[thrd:a:9/bootstrap]: a:9/bootstrap: Decommissioning this broker (after 6ms in state UP) (_DESTROY_BROKER)"


@pytest.mark.parametrize("code", [Local.PURGE_QUEUE, Local.UNKNOWN_TOPIC, Local.UNKNOWN_PARTITION])
@pytest.mark.parametrize(
    ("line", "broke"), [("", False), (NEVER, False), (ASKS, False), (UP, True), (UP.replace("UP", "REAUTH"), True)]
)
def test_what_is_in_the_queue_may_have_been_sent_where_a_connection_broke(code: int, line: str, broke: bool) -> None:
    """It is in the queue again then, whatever it is refused for from there. The log alone tells of a connection's end."""
    troubles: Any = Troubles()
    call = _Call(1, troubles)
    if line:
        Log(troubles.failed).log(6, "%s [%s] %s", "FAIL", "narrowboat#producer-1", line)
    call.done(0, Told(code), None)
    (failed,) = call.answers()
    assert failed is not None
    assert failed.left is broke
