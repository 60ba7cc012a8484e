"""What the conformance kit can do to a RocketMQ beyond its connections: delete a queue, and leave what other programs publish.

Everything here is done in bytes at the broker, and with bare stubs at the proxy, as operators and other programs would.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import grpc

from integration.servers import RocketMQServer
from integration.servers.rocketmq import ask
from narrowboat.conformance import Harness
from narrowboat_rocketmq.library import definition_pb2 as said
from narrowboat_rocketmq.library import service_pb2 as service

_SERVICE = "/apache.rocketmq.v2.MessagingService/"
_DELETE_AT_BROKER, _DELETE_AT_NAMES, _DELETE_GROUP = 215, 216, 207


class Plain:
    """Another program at the proxy: it sends, receives and acknowledges with bare stubs, and knows nothing of Narrowboat."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._client = (("x-mq-client-id", uuid.uuid4().hex), ("x-mq-language", "PYTHON"), ("x-mq-client-version", "5.0.8"))

    def call(self, name: str, request: Any) -> Any:
        """One call with one answer."""
        kind = getattr(service, f"{name}Response")
        method = self._channel.unary_unary(
            f"{_SERVICE}{name}", request_serializer=type(request).SerializeToString, response_deserializer=kind.FromString
        )
        return method(request, metadata=self._client, timeout=30)

    def send(self, topic: str, body: bytes, properties: dict[str, str] | None = None, **system: Any) -> Any:
        """Publish one message; the reply. `system`: further fields of its system properties."""
        message = said.Message(topic=said.Resource(name=topic), body=body, user_properties=properties or {})
        fields = {"message_id": uuid.uuid4().hex, "message_type": said.NORMAL, "born_host": "elsewhere", **system}
        for field, value in fields.items():
            setattr(message.system_properties, field, value)
        message.system_properties.born_timestamp.GetCurrentTime()
        return self.call("SendMessage", service.SendMessageRequest(messages=[message]))

    @contextlib.contextmanager
    def consuming(self, topic: str, group: str) -> Iterator[Callable[[float], list[Any]]]:
        """What receives within so many seconds, and acknowledges what came."""

        def say() -> Iterator[Any]:
            subscription = said.Subscription(
                group=said.Resource(name=group),
                subscriptions=[
                    said.SubscriptionEntry(
                        topic=said.Resource(name=topic), expression=said.FilterExpression(type=said.TAG, expression="*")
                    )
                ],
            )
            settings = said.Settings(client_type=said.SIMPLE_CONSUMER, subscription=subscription)
            settings.access_point.scheme = said.IPv4
            settings.access_point.addresses.add(host="127.0.0.1", port=8081)
            settings.request_timeout.FromSeconds(3)
            yield service.TelemetryCommand(settings=settings)
            while stream.is_active():
                time.sleep(0.05)  # a stream that has nothing to say must not end

        command = service.TelemetryCommand
        open_stream = self._channel.stream_stream(
            f"{_SERVICE}Telemetry", request_serializer=command.SerializeToString, response_deserializer=command.FromString
        )
        stream = open_stream(say(), metadata=self._client)
        try:
            next(stream)
            yield partial(self._receive, topic, group)
        finally:
            stream.cancel()

    def _receive(self, topic: str, group: str, within: float) -> list[Any]:
        ends, found = time.monotonic() + within, list[Any]()
        method = self._channel.unary_stream(
            f"{_SERVICE}ReceiveMessage",
            request_serializer=service.ReceiveMessageRequest.SerializeToString,
            response_deserializer=service.ReceiveMessageResponse.FromString,
        )
        request = service.ReceiveMessageRequest(
            group=said.Resource(name=group),
            message_queue=said.MessageQueue(topic=said.Resource(name=topic), id=-1),
            filter_expression=said.FilterExpression(type=said.TAG, expression="*"),
            batch_size=32,
        )
        request.invisible_duration.FromSeconds(30)
        request.long_polling_timeout.FromSeconds(5)
        while not found and time.monotonic() < ends:
            parts = list(method(request, metadata=self._client, timeout=20))
            found = [part.message for part in parts if part.HasField("message")]
        if found:
            entries = [
                service.AckMessageEntry(
                    message_id=message.system_properties.message_id, receipt_handle=message.system_properties.receipt_handle
                )
                for message in found
            ]
            self.call(
                "AckMessage",
                service.AckMessageRequest(group=said.Resource(name=group), topic=said.Resource(name=topic), entries=entries),
            )
        return found

    def close(self) -> None:
        """End the connection."""
        self._channel.close()


def strange_messages() -> dict[str, tuple[bytes, dict[str, str]]]:
    """What another program may publish, each by what is strange about it."""
    found: dict[str, tuple[bytes, dict[str, str]]] = {
        "nothing but a body": (b"x", {}),
        "properties as people write them": (b"x", {"Order Id": "4711", "größe": "XL", "a_b": "c"}),
        "a hundred properties": (b"x", {f"p{number}": "v" * 100 for number in range(100)}),
        "a packed length that is none": (b"x", {"narrowboat-packed": "-1"}),
        "a packed length that is too long": (b"x", {"narrowboat-packed": "99999"}),
        "a packed length of nonsense": (b"x" * 50, {"narrowboat-packed": "9" * 4000}),
        "packed bytes that are no JSON": (b"[" * 100 + b"x", {"narrowboat-packed": "100"}),
        "packed headers that are no text": (b'{"a": {"b": 1}}x', {"narrowboat-packed": "15"}),
        "another group's": (b"x", {"narrowboat-id": " ", "narrowboat-key": "\u00e9" * 900}),
        "half a megabyte": (b"x" * 500_000, {}),
    }
    for text in ("-1000000", "1e308", "inf", "nan", "9" * 5000, "\u0663"):
        found[f"{text[:10]!r} for every number"] = (b"x", {"narrowboat-expires": text, "narrowboat-priority": text})
    # A number that is one: it is believed, and the message has expired or not.
    found["'-1000000' for every number"] = (b"x", {"narrowboat-priority": "-1000000"})
    return found


class RocketHarness(Harness):
    """For one server that the harness may do anything to."""

    @property
    def _rocket(self) -> RocketMQServer:
        return cast(RocketMQServer, self.server)

    def _delete(self, name: str) -> None:
        ask(self._rocket.broker_port, _DELETE_GROUP, {"groupName": name, "cleanOffset": "true"})
        for topic in (name, f"{name}_-later", f"%RETRY%{name}_{name}"):
            ask(self._rocket.broker_port, _DELETE_AT_BROKER, {"topic": topic})
            ask(self._rocket.admin_port, _DELETE_AT_NAMES, {"topic": topic})

    def delete(self, half: str, namespace: str, name: str) -> None:
        self._delete(f"{namespace}|{name}")

    def plant_entries(self, namespace: str, name: str) -> list[tuple[str, Callable[[], object]]]:
        topic = f"{namespace}|{name}"
        return [(label, partial(self._plant, topic, *content)) for label, content in strange_messages().items()]

    def _plant(self, topic: str, body: bytes, properties: dict[str, str]) -> None:
        plain = Plain(self._rocket.port)
        try:
            reply = plain.send(topic, body, properties)
            assert reply.status.code == said.OK, reply.status
        finally:
            plain.close()
