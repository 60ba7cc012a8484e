"""What a URL of Kafka means, what is claimed for it, and what is refused before any connection."""

from __future__ import annotations

import re
import sys
import warnings
from typing import Any

import pytest

import narrowboat
from narrowboat.capabilities import Kept, Support, Survives
from narrowboat.contract import Address, Broker, Kind, Outgoing
from narrowboat.dsn import Url
from narrowboat.errors import ConfigurationError, NarrowboatError, PublishFailed, Unsupported
from narrowboat_kafka.broker import broker, capabilities
from narrowboat_kafka.options import Options

#: kafka-python reads its schemas in a way that Python 3.11 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")

with warnings.catch_warnings():
    # kafka-python reads its schemas in a way that Python 3.11 calls deprecated; not ours to mend, and an error here.
    warnings.simplefilter("ignore", DeprecationWarning)
    from narrowboat_kafka.driver import KafkaBroker


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("kafka+java://localhost", "unknown scheme"),
        ("kafka://localhost/shop", "prefix"),
        ("kafka://", "host"),
        ("kafka+confluent://", r"write kafka\+confluent://localhost:9092"),
        ("kafka+python://localhost?verify=none", r"write kafkas\+python://"),
        ("kafka://user@localhost", "password"),
        ("kafka://localhost?ca=/ca.pem", "kafkas"),
        ("kafka://localhost?prefix=a_b", "prefix"),
        ("kafka://localhost?prefix=a--b", "prefix"),
        ("kafka://localhost?prefix=-a", "prefix"),
        ("kafka://localhost?partitions=0", "partitions"),
        ("kafka://localhost?replication=-1", "replication"),
        ("kafka://localhost?retention=-1", "retention"),
        ("kafka://localhost?session=0.1", "session"),
        ("kafka://localhost?delay_max=0.5", "delay_max"),
        ("kafka://localhost?sasl=magic", "sasl"),
        ("kafka://localhost?partition=2", "partitions"),
    ],
)
def test_what_a_url_cannot_mean_is_refused_with_the_reason(url: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        narrowboat.broker(url)


@pytest.mark.parametrize("written", ["kafka+confluent", "kafkas+confluent"])
def test_a_client_that_is_not_installed_is_told_with_the_scheme_of_the_url(written: str, monkeypatch: Any) -> None:
    """And with the command that installs it."""
    for name in [name for name in sys.modules if name.startswith("narrowboat_kafka.confluent")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ConfigurationError, match=rf"^{re.escape(written)}:// needs confluent_kafka.*\[kafka-confluent\]"):
        narrowboat.broker(f"{written}://localhost")


def test_the_faster_client_is_named_where_it_is_installed(monkeypatch: Any) -> None:
    """To who asks which backends there are, with the scheme that asks for it."""
    found: list[object] = [object(), None]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found.pop(0))
    assert broker.note("kafkas") == "confluent_kafka is installed: kafkas+confluent:// is the same, and faster"
    assert not broker.note("kafka")


def test_a_name_of_a_header_with_a_nul_is_refused_and_its_neighbours_are_not(monkeypatch: Any) -> None:
    """Before anything is sent: it would arrive under another name by one of the clients."""
    broker: Any = object.__new__(KafkaBroker)
    monkeypatch.setattr(KafkaBroker, "_target", lambda self, to, later: "orders")
    to = Address(Kind.QUEUE, "orders")

    def message(id: str, headers: dict[str, str]) -> Outgoing:
        return Outgoing(to, id, b"x", headers, None, 12.5, 0.0, 0, None, None, None, None, dedup=False)

    refused: dict[int, NarrowboatError] = {}
    found = broker._records([message("a", {"h": "a\0b"}), message("b", {"a\0b": "1"}), message("c", {})], refused)
    assert [dict(each.headers)["narrowboat-id"] for each in found] == [b"a", b"c"]
    assert list(refused) == [1]
    assert isinstance(refused[1], PublishFailed) and not refused[1].retryable and "has a NUL in it" in str(refused[1])


def test_replay_is_claimed_where_the_url_says_for_how_long() -> None:
    url = Url.parse("kafka://localhost")
    assert capabilities(url, Options()).replay is Support.ABSENT
    assert capabilities(url, Options()).kept is Kept.UNTIL_CONSUMED
    kept = capabilities(url, Options(retention=3600))
    assert (kept.replay, kept.kept) == (Support.NATIVE, Kept.RETENTION)
    assert capabilities(url, Options(replication=3)).survives is Survives.NODE


@pytest.mark.parametrize(
    "ask",
    [
        lambda broker: broker.queue("orders", ordered=True),
        lambda broker: broker.queue("orders", priorities=3),
        lambda broker: broker.queue("orders").request(b"", timeout=1),
        lambda broker: broker.topic("prices").subscription("g", start="earliest"),
    ],
)
def test_what_is_not_claimed_is_refused_before_any_connection(ask: Any) -> None:
    with pytest.raises(Unsupported):
        ask(narrowboat.broker("kafka://127.0.0.1:1"))


def test_the_driver_is_loaded_late_and_covers_no_entry_object() -> None:
    import narrowboat_kafka

    assert issubclass(KafkaBroker, Broker)
    assert narrowboat_kafka.broker.scheme == "kafka"
