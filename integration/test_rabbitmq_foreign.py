"""RabbitMQ: any message that another program can publish is handed out, nacked, buried and read again, and its neighbours too.

Drawn over every type of field and every property that a server takes. `NARROWBOAT_FUZZ_CASES` says how many, 200 unless told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pika
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import narrowboat
from integration import kept
from integration.amqp_fields import ACCEPTED, PROPERTIES, Written
from integration.servers import RabbitMQServer
from narrowboat_rabbitmq.protocol.content import Content
from narrowboat_rabbitmq.protocol.table import text

#: So many messages are on their way together, as one example.
TOGETHER = 10
#: What a failure left in the queue would fail every simpler try as well: the first one is shown as it is.
DRAWN = settings(
    max_examples=max(1, int(os.environ.get("NARROWBOAT_FUZZ_CASES", "200")) // TOGETHER),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
    database=None,
)
Headers = list[tuple[bytes, bytes]]
#: Properties that are published again as they are.
PLAIN = ("content_type", "content_encoding", "correlation_id", "reply_to", "message_id", "type", "app_id", "timestamp")


class Bench:
    """One queue with its consumer, and another program's line to the same server."""

    def __init__(self, url: str) -> None:
        self.broker = narrowboat.broker(url, prefix="foreign")
        self.orders = self.broker.queue("orders", max_deliveries=0)  # a drawn header of ours may count any attempts
        self.messages = self.orders.consume(prefetch=10)
        self.dead = self.orders.dead_letters().consume(prefetch=10)
        self.url = url
        self.theirs: Any = None

    def publish(self, body: bytes, content: Content) -> None:
        """As another program does; on a new connection where the server closed the last one for something that it refused."""
        if self.theirs is None or not self.theirs.is_open:
            if self.theirs is not None and self.theirs.connection.is_open:
                self.theirs.connection.close()
            self.theirs = pika.BlockingConnection(pika.URLParameters(self.url)).channel()
            self.theirs.confirm_delivery()
        self.theirs.basic_publish("", "foreign:orders", body, Written(content.encode()), mandatory=True)

    def close(self) -> None:
        for each in (self.messages, self.broker, self.theirs.connection):
            each.close()

    def receive(self, messages: Any) -> Any:
        message = messages.receive(20)
        assert message is not None, "nothing came"
        return message


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with kept.lent(RabbitMQServer) as lent:
        made = Bench(lent.url)
        yield made
        made.close()


MESSAGES = st.lists(st.tuples(ACCEPTED, PROPERTIES, st.binary(max_size=100)), min_size=TOGETHER, max_size=TOGETHER)


@pytest.mark.timeout(7200)
@DRAWN
@given(MESSAGES)
def test_whatever_is_published_goes_its_way(bench: Bench, drawn: list[tuple[Headers, dict[str, Any], bytes]]) -> None:
    """Handed out as it is, counted, buried with its bytes; what is behind it is handed out as well."""
    sent: dict[bytes, tuple[Headers, dict[str, Any]]] = {}
    for number, (entries, properties, rest) in enumerate(drawn):
        headers = [each for each in entries if each[0] != b"narrowboat-expires"]  # that is obeyed
        sent[b"%d " % number + rest] = headers, properties
        content = Content(headers=headers or None, **{name: value for name, value in properties.items() if value is not None})
        bench.publish(b"%d " % number + rest, content)
    bench.orders.publish(b"behind")
    seen: set[bytes] = set()
    while len(seen) <= len(sent):
        message = bench.receive(bench.messages)
        seen.add(message.body)
        assert all(isinstance(part, str) for pair in message.headers.items() for part in pair)
        if message.body == b"behind":
            message.ack()
        else:
            message.reject("too strange")
    for _ in sent:
        letter = bench.receive(bench.dead)
        headers, properties = sent[letter.body]
        kept: Content = letter._delivery.tag.content
        assert letter.dead is not None
        assert "too strange" in letter.dead.reason
        for name in PLAIN:
            assert getattr(kept, name) == properties[name], name
        # A server writes a table anew before it hands it out, with other letters for the same numbers: names and texts stay.
        theirs = {name for name, _ in headers if not name.startswith((b"x-", b"narrowboat-"))}
        assert theirs <= {name for name, _ in kept.headers}
        for key, value in headers:
            if key in theirs and value[:1] == b"S":
                assert letter.headers[text(key)] == text(value[5:])
        letter.ack()


def test_what_the_server_gives_back_is_what_was_published(bench: Bench) -> None:
    """Odd bytes pass through a retry with a delay as they are, too."""
    odd = "caf\udce9"
    entries = [
        (b"caf\xe9", b"S\0\0\0\1\xff"),
        (b"ts", b"T" + (1772000000000).to_bytes(8)),
        (b"n", b"d" + b"\x3f\xf8" + bytes(6)),
    ]
    content = Content(headers=entries, message_id=odd, type=odd, content_encoding="gzip")
    bench.publish(b"odd", content)
    first = bench.receive(bench.messages)
    assert dict(first.headers) == {odd: "\udcff", "ts": "1772000000000", "n": "1.5"}
    first.nack(delay=0.2)
    again = bench.receive(bench.messages)
    assert (again.id, again.attempt, dict(again.headers)) == (odd, 2, dict(first.headers))
    assert (again._delivery.tag.content.type, again._delivery.tag.content.content_encoding) == (odd, "gzip")
    again.ack()


def test_a_redrive_keeps_what_the_core_has_no_field_for(bench: Bench) -> None:
    """Types of headers, encoding, type, application; and a time that was never there stays so."""
    content = Content(headers=[(b"n", b"d" + b"\x3f\xf8" + bytes(6))], content_encoding="gzip", type="t", app_id="a")
    bench.publish(b"redriven", content)
    first = bench.receive(bench.messages)
    assert first.published_at is None
    first.reject("no")
    bench.dead.close()
    assert bench.orders.dead_letters().redrive() == 1
    again = bench.receive(bench.messages)
    assert (again.body, again.attempt, again.published_at, dict(again.headers)) == (b"redriven", 1, None, {"n": "1.5"})
    kept = again._delivery.tag.content
    assert (kept.content_encoding, kept.type, kept.app_id) == ("gzip", "t", "a")
    assert kept.headers[0][1][:1] == b"d"
    again.ack()
