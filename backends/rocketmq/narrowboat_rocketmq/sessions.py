"""What a proxy knows of a consumer: its settings, over a stream that stays open, and that it still lives.

Without that stream a proxy gives nothing out; without a sign of life every now and then it forgets the settings.
"""

from __future__ import annotations

import threading
from typing import Any

import grpc

from narrowboat.errors import NarrowboatError
from narrowboat_rocketmq.library import definition_pb2 as said
from narrowboat_rocketmq.library import service_pb2 as service
from narrowboat_rocketmq.library.calls import Telemetry, resource
from narrowboat_rocketmq.link import Link
from narrowboat_rocketmq.names import Place

#: Seconds between two signs of life; a proxy waits for two minutes.
_PULSE = 20.0


class Session:
    """One consumer's. From any thread."""

    def __init__(self, link: Link, place: Place, client: str) -> None:
        self._link = link
        self._place = place
        self._client = client
        self._mutex = threading.Lock()
        self._stream: Telemetry | None = None
        self._beat = 0.0
        self._closed = False

    def keep(self) -> None:
        """Let the proxy know the settings, and that we live; nothing where it does. Raises what a call would raise."""
        link = self._link
        with self._mutex:
            if self._closed:
                return
            try:
                if self._stream is None or not self._stream.alive:
                    self._open()
                self._live()
            except (grpc.RpcError, ValueError, StopIteration) as error:
                self._drop()
                raise link.broken(error, f"telling what is consumed of {self._place.path!r}") from error

    def beat(self) -> None:
        """Let the proxy know that we live, where it knows the settings; what fails is for the next `keep`."""
        with self._mutex:
            try:
                if self._stream is not None:
                    self._live()
            except (grpc.RpcError, ValueError, NarrowboatError):
                self._drop()

    def _live(self) -> None:
        link = self._link
        if link.clock() - self._beat <= _PULSE:
            return
        calls, group = link.calls, resource(self._place.group, link.namespace)
        request = service.HeartbeatRequest(group=group, client_type=said.SIMPLE_CONSUMER)
        calls.heartbeat(request, timeout=link.timeout, metadata=calls.headers(self._client))
        self._beat = link.clock()

    def _open(self) -> None:
        link = self._link
        stream = Telemetry(link.calls, self._client, self._settings())
        self._stream = stream
        stream.first(link.timeout)
        self._beat = link.clock()

    def _settings(self) -> Any:
        link, spot = self._link, self._place
        every = said.FilterExpression(type=said.TAG, expression="*")
        host = link.endpoint.hosts[0]
        settings = said.Settings(
            client_type=said.SIMPLE_CONSUMER,
            access_point=said.Endpoints(scheme=said.DOMAIN_NAME, addresses=[said.Address(host=host.host, port=host.port)]),
            subscription=said.Subscription(
                group=resource(spot.group, link.namespace),
                subscriptions=[
                    said.SubscriptionEntry(topic=resource(topic, link.namespace), expression=every) for topic in spot.topics
                ],
            ),
            user_agent=said.UA(language=said.PYTHON, version="5.0.8", platform="Python", hostname="narrowboat"),
        )
        settings.request_timeout.FromMilliseconds(int(link.timeout * 1000))
        return settings

    def drop(self) -> None:
        """Tell it all again before the next call."""
        with self._mutex:
            self._drop()

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def close(self) -> None:
        """End it. Idempotent."""
        with self._mutex:
            self._closed = True
            self._drop()
