"""How long a topic that another program made keeps unconsumed messages: a warning where that is less than the URL promises.

A URL is all that `kept` can be claimed from, and it cannot know how a topic was set up that is there already. Such a topic
is used as it is, and what it does not keep is told in the log, with what to do about it. Pure but for the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

log = logging.getLogger("narrowboat.kafka")

#: What a topic's configuration says about this, and how it is set where everything is kept.
ALL = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}


def losses(found: Mapping[str, str | None], wanted: float) -> list[str]:
    """By which of its settings a topic loses messages that were to be kept for `wanted` seconds (0: until consumed).

    >>> losses({"cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1"}, 0)
    ['retention.ms=604800000']
    >>> losses({"cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1"}, 3600)
    []
    >>> losses({"cleanup.policy": "compact", "retention.ms": "604800000"}, 0)
    ['cleanup.policy=compact']
    """
    policy = (found.get("cleanup.policy") or "delete").split(",")
    met = [] if "compact" not in policy else ["cleanup.policy"]
    if "delete" in policy:
        milliseconds = _number(found.get("retention.ms"))
        if milliseconds >= 0 and (not wanted or milliseconds < wanted * 1000):
            met.append("retention.ms")
        if _number(found.get("retention.bytes")) >= 0:
            met.append("retention.bytes")
    return [f"{name}={found[name]}" for name in met]


def _number(value: str | None) -> int:
    return int(value) if value else -1


def report(topic: str, what: str, found: Mapping[str, str | None], wanted: float) -> None:
    """Warn where a topic that was found keeps less than `wanted`."""
    lost = losses(found, wanted)
    if lost:
        promise = f"for the {wanted:g} s of ?retention=" if wanted else "until consumed, as a URL without ?retention= says"
        log.warning(
            "the %s was there already, and its topic %r is set to %s: messages are not kept %s. Whoever consumes too late "
            "loses them. Change it (kafka-configs.sh --alter --topic %s --add-config %s), or say in the URL what it keeps",
            what,
            topic,
            ", ".join(lost),
            promise,
            topic,
            ",".join(f"{name}={value}" for name, value in ALL.items()),
        )
