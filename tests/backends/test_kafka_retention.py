"""What is told where a topic of Kafka keeps less than the URL promises."""

from __future__ import annotations

import pytest

from narrowboat_kafka.topology import retention


@pytest.mark.parametrize(
    ("found", "wanted", "told"),
    [
        ({"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}, 0.0, None),
        ({"cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1"}, 0.0, "retention.ms=604800000"),
        ({"cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1"}, 604800.0, None),
        ({"cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1"}, 604801.0, "604801 s"),
        ({"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "1000"}, 0.0, "retention.bytes=1000"),
        ({"cleanup.policy": "compact", "retention.ms": "1", "retention.bytes": "1"}, 0.0, "cleanup.policy=compact:"),
        (
            {"cleanup.policy": "compact,delete", "retention.ms": "1", "retention.bytes": "-1"},
            0.0,
            "compact,delete, retention.ms=1",
        ),
        ({}, 0.0, None),
    ],
)
def test_a_topic_that_keeps_less_than_the_url_promises_is_told(
    found: dict[str, str], wanted: float, told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", "narrowboat.kafka"):  # whatever an example of the docs has set
        retention.report("orders", "queue 'orders'", found, wanted)
    if told is None:
        assert not caplog.messages
    else:
        (message,) = caplog.messages
        assert told in message
        assert "kafka-configs.sh --alter --topic orders" in message
