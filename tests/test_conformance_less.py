"""A backend that claims less, and says so, is green: what it does without is refused or not looked at, never broken."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import narrowboat_memory
from narrowboat import registry
from narrowboat.capabilities import BrokerCapabilities, LockCapabilities, Support, WaitOrder, WakeUp
from narrowboat.conformance import Harness, verify
from narrowboat.contract import Context
from narrowboat.dsn import Url

LEAST_LOCKS = dict.fromkeys(("holders", "evict", "shared", "semaphore"), Support.ABSENT)
LEAST_MESSAGES = dict.fromkeys(
    ("dead_letters", "depth", "delay", "topics", "order", "priority", "ttl", "dedup", "replay", "request_reply"), Support.ABSENT
)
#: What these look at is the library's entry points, of which a backend that only a test knows has none.
NEED_AN_ENTRY_POINT = {"L110", "L116", "B109"}


@pytest.mark.parametrize(
    ("half", "absent"),
    [
        ("messages", {"dead_letters": Support.ABSENT}),
        ("messages", {"depth": Support.ABSENT}),
        ("messages", {"oldest": Support.ABSENT}),
        ("messages", {"delay": Support.ABSENT}),
        ("messages", {"uncounted_release": Support.ABSENT}),
        ("messages", {"extension": Support.ABSENT}),
        ("messages", LEAST_MESSAGES),
        ("locks", {"holders": Support.ABSENT}),
        ("locks", {**LEAST_LOCKS, "order": WaitOrder.ANY, "wake": WakeUp.POLLED}),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_it_is_green(half: str, absent: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    group = registry.LOCKS if half == "locks" else registry.BROKERS
    # Either kind of backend: what is replaced here, both have.
    whole: Any = narrowboat_memory.locks if half == "locks" else narrowboat_memory.broker

    def capabilities(url: Url, options: Any) -> LockCapabilities | BrokerCapabilities:
        claims: LockCapabilities | BrokerCapabilities = whole.capabilities(url, options)
        return dataclasses.replace(claims, **absent)

    def open(url: Url, options: Any, context: Context) -> Any:
        driver = whole.open(url, options, context)
        driver.capabilities = capabilities(url, options)
        return driver

    less = dataclasses.replace(whole, scheme="less", capabilities=capabilities, open=open)
    monkeypatch.setitem(registry._loaded, (group, "less"), less)
    known = registry.schemes
    monkeypatch.setattr(registry, "schemes", lambda of: [*known(of), "less"] if of == group else known(of))

    report = verify(Harness("less://"), tiers="CT", faces=["sync"], size=0.1)

    broken = {f"{row.id} {row.scenario}: {row.why}" for row in report.broken if row.id not in NEED_AN_ENTRY_POINT}
    assert not broken, "\n\n".join(sorted(broken))
    assert report.count()["held"] > 40
