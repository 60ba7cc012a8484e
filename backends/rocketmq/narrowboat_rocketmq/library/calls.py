"""The calls of RocketMQ's gRPC service over one channel: what is sent with each of them, and nothing about what they mean.

grpc's own retries are off: it would repeat a send whose answer was lost. A channel connects at its first call, and again at the
next one after its connection broke; while a proxy is away calls fail at once, and it is tried again every second at most.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import os
import threading
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

# Before grpc is imported, which reads it then: without it a forked child could make no channel of its own. grpc's threads
# stand still during a fork, and the child's copies of the parent's channels are closed by grpc.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "1")

import grpc

from narrowboat.dsn import Secret
from narrowboat_rocketmq.library import definition_pb2 as said
from narrowboat_rocketmq.library import service_pb2 as service

_SERVICE = "/apache.rocketmq.v2.MessagingService/"
#: Milliseconds between two tries to connect, and those that one may take.
_BACKOFF, _CONNECTING = (200, 1000), 10_000
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),  # a variable of the environment that is meant for browsers
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection, with its own certificates
    ("grpc.initial_reconnect_backoff_ms", _BACKOFF[0]),
    ("grpc.min_reconnect_backoff_ms", _CONNECTING),  # in spite of its name
    ("grpc.max_reconnect_backoff_ms", _BACKOFF[1]),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.max_receive_message_length", 256 * 1024 * 1024),  # 32 messages of 4 MiB, and room
)


class Calls:
    """See the module's text. From any thread.

    Args:
        target: host and port, as grpc has them.
        credentials: of TLS; None: without.
        override: the name that the certificate has, where that is not the host's.
        user, secret: with which each call is signed; None: it is not.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        override: str | None,
        user: str | None,
        secret: Secret | None,
    ) -> None:
        options: list[tuple[str, Any]] = [*_OPTIONS]
        if override is not None:
            options.append(("grpc.ssl_target_name_override", override))
        if credentials is None:
            self._channel = grpc.insecure_channel(target, options)
        else:
            self._channel = grpc.secure_channel(target, credentials, options)
        self._user = user
        self._secret = secret
        self._plain = self._headers(uuid.uuid4().hex)
        unary, one_many, many = self._channel.unary_unary, self._channel.unary_stream, self._channel.stream_stream
        self.send = _method(unary, "SendMessage")
        self.route = _method(unary, "QueryRoute")
        self.ack = _method(unary, "AckMessage")
        self.change = _method(unary, "ChangeInvisibleDuration")
        self.heartbeat = _method(unary, "Heartbeat")
        self.end = _method(unary, "NotifyClientTermination")
        self.receive = _method(one_many, "ReceiveMessage")
        self.telemetry = many(
            f"{_SERVICE}Telemetry",
            request_serializer=service.TelemetryCommand.SerializeToString,
            response_deserializer=service.TelemetryCommand.FromString,
        )

    def _headers(self, client: str) -> tuple[tuple[str, str], ...]:
        return (
            ("x-mq-client-id", client),
            ("x-mq-language", "PYTHON"),
            ("x-mq-protocol", "v2"),
            ("x-mq-client-version", "5.0.8"),
        )

    def headers(self, client: str | None = None) -> tuple[tuple[str, str], ...]:
        """What goes with a call. `client`: which consumer it is for, as the proxy keeps settings for each."""
        plain = self._plain if client is None else self._headers(client)
        if self._user is None or self._secret is None:
            return plain
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        signature = hmac.new(self._secret.reveal().encode(), now.encode(), hashlib.sha1).hexdigest().upper()
        words = f"MQv2-HMAC-SHA1 Credential={self._user}, SignedHeaders=x-mq-date-time, Signature={signature}"
        return (*plain, ("x-mq-date-time", now), ("authorization", words))

    def close(self) -> None:
        """End the channel; calls that are under way are cancelled."""
        self._channel.close()


def _method(kind: Any, name: str) -> Any:
    request, response = getattr(service, f"{name}Request"), getattr(service, f"{name}Response")
    return kind(f"{_SERVICE}{name}", request_serializer=request.SerializeToString, response_deserializer=response.FromString)


class Telemetry:
    """The stream that a consumer keeps open: while it is, the proxy knows its settings, without which it is given nothing."""

    def __init__(self, calls: Calls, client: str, settings: Any) -> None:
        self._ended = threading.Event()
        self._stream = calls.telemetry(self._say(settings), metadata=calls.headers(client))

    def _say(self, settings: Any) -> Iterator[Any]:
        yield service.TelemetryCommand(settings=settings)
        self._ended.wait()  # the end of what we say would be the end of the stream

    def first(self, timeout: float) -> Any:
        """The proxy's answer to the settings; raises `grpc.RpcError`, also when none came in time."""
        timer = threading.Timer(timeout, self.close)
        timer.daemon = True
        timer.start()
        try:
            return next(self._stream)
        finally:
            timer.cancel()

    @property
    def alive(self) -> bool:
        """Whether the stream is still open."""
        return bool(self._stream.is_active())

    def close(self) -> None:
        """End it. Idempotent."""
        self._ended.set()
        self._stream.cancel()


def resource(name: str, namespace: str) -> Any:
    """A topic or group."""
    return said.Resource(name=name, resource_namespace=namespace)


def drain(stream: Iterable[Any], messages: list[Any]) -> Any:
    """Add to `messages` what a receiving call gives; the status that it ended with. What came before an error is kept."""
    status = None
    for part in stream:
        which = part.WhichOneof("content")
        if which == "message":
            messages.append(part.message)
        elif which == "status":
            status = part.status
    return status
