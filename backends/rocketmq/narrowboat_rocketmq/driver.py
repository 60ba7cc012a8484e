"""Messages on RocketMQ: the calls of the contract. What is published, and each settlement, is one call of the proxy's gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from narrowboat.capabilities import BrokerCapabilities
from narrowboat.contract import Address, Broker, Context, Depth, Feed, Outgoing, Properties, Receipt, Source
from narrowboat.dsn import Url
from narrowboat.errors import NarrowboatError, Unsupported
from narrowboat_rocketmq.errors import refused
from narrowboat_rocketmq.feed import RocketFeed
from narrowboat_rocketmq.library import definition_pb2 as said
from narrowboat_rocketmq.library import service_pb2 as service
from narrowboat_rocketmq.library.calls import resource
from narrowboat_rocketmq.link import Link
from narrowboat_rocketmq.options import SCHEME, Options, admin, endpoint
from narrowboat_rocketmq.publishing import Publisher
from narrowboat_rocketmq.sources import Sources


class RocketBroker(Broker):
    """One user of one namespace of messages."""

    def __init__(self, url: Url, options: Options, capabilities: BrokerCapabilities, context: Context) -> None:
        found = endpoint(url, options)
        if found.tls:
            options.context(backend=found.scheme)  # a file that is not what it should be is told before anything is sent
        self.capabilities = capabilities
        self._link = Link(found, options, context, admin(url, options))
        self._sources = Sources(self._link, options)
        self._publisher = Publisher(self._link, self._sources)
        self._feeds: set[RocketFeed] = set()

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Store each message; the server has confirmed those with a receipt."""
        self._link.check_open()
        return self._publisher.send(messages)

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """A feed from `source`, which exists from now on."""
        self.declare(source, earliest=earliest)
        feed = RocketFeed(self._link, self._sources, self._publisher, source, wake, self._feeds.discard)
        self._feeds.add(feed)
        return feed

    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        """Not to be had: nothing on a server of RocketMQ goes away with its user."""
        raise Unsupported("request() is not offered on RocketMQ: a topic for replies would stay behind", backend=SCHEME)

    def declare(self, source: Source, *, earliest: bool) -> None:
        """Make it if it is not there; refuse it when it differs."""
        self._link.check_open()
        self._sources.declare(source)

    def stored(self, address: Address) -> Properties | None:
        """What a consumer declared, or somebody altered since."""
        self._link.check_open()
        return self._sources.stored(address)

    def alter(self, address: Address, *, lease: float | None, max_deliveries: int | None) -> Properties:
        """Store another lease or limit."""
        self._link.check_open()
        return self._sources.alter(address, lease, max_deliveries)

    def delete(self, address: Address) -> bool:
        """Remove it with all its messages."""
        return self._sources.delete(address)

    def purge(self, address: Address) -> int:
        """Drop what is ready."""
        return self._sources.purge(address)

    def depth(self, address: Address) -> Depth:
        """How many are ready and dead, as far as offsets say."""
        self._link.check_open()
        return self._sources.depth(address)

    def ping(self) -> None:
        """One round trip to the proxy, about a topic that every server has."""
        host = self._link.endpoint.hosts[0]
        request = service.QueryRouteRequest(
            topic=resource("TBW102", ""),
            endpoints=said.Endpoints(scheme=said.DOMAIN_NAME, addresses=[said.Address(host=host.host, port=host.port)]),
        )
        reply = self._link.call("route", request, "answering a ping")
        if reply.status.code not in (said.OK, said.TOPIC_NOT_FOUND):
            raise refused(reply.status, self._link.endpoint, "answering a ping")

    def close(self) -> None:
        """Close every feed, and end the connections and threads."""
        try:
            for feed in list(self._feeds):
                with contextlib.suppress(NarrowboatError):
                    feed.close()
        finally:
            self._link.close()
