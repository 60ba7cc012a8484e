"""What one broker object has open: a client of Kafka, and whether it is still to be used."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Collection
from typing import Any

from narrowboat.contract import Context
from narrowboat.dsn import Url
from narrowboat.errors import Closed, ConfigurationError
from narrowboat_kafka import clients
from narrowboat_kafka.client import Client, Ear, Edge, Loop, Membership, Producer, TopicPartition, Unconnected
from narrowboat_kafka.errors import translate, unconnected
from narrowboat_kafka.options import SCHEME, Options, endpoint
from narrowboat_kafka.share.seam import Sharing

#: What is open in this process, so that a forked child can disown it.
_open: weakref.WeakSet[Connections] = weakref.WeakSet()


class Connections:
    """See the module's text. Consumers and producers are made when they are asked for, the administration at once."""

    def __init__(self, url: Url, options: Options, context: Context) -> None:
        where = endpoint(url, options)
        self.timeout = context.timeout
        self.place = ",".join(map(str, where.hosts))
        self._closed = False
        doing = f"connecting to {self.place}"
        try:
            self._client: Client = clients.load(url)(where, options, context.timeout)
        except Unconnected as error:
            raise unconnected(error, doing, where) from error
        except Exception as error:
            raise translate(error, doing) from error
        self.admin = self._client.admin
        self.loop: Loop = self._client.loop
        _open.add(self)

    def check_open(self) -> None:
        """Raise `Closed` after `close`."""
        if self._closed:
            raise self.closed()

    def closed(self) -> Closed:
        """What a call is told after the end."""
        return Closed(f"this broker on {self.place} was closed; open it again", backend=SCHEME)

    def call(self, coroutine: Callable[..., Any], *arguments: object) -> Any:
        """Run `coroutine` on the loop, and wait for what it returns."""
        self.check_open()
        return self.loop.call(coroutine, *arguments)

    async def offsets(self, partitions: Collection[TopicPartition], which: Edge) -> dict[TopicPartition, int]:
        """The earliest or latest offset of each, as far as it may be read. On the loop's thread.

        Over the administration's connection: on a consumer's own it would stand behind a fetch that waits for messages.
        """
        return await self.admin.offsets(partitions, which, self.timeout) if partitions else {}

    def member(self, group: str, ear: Ear) -> Membership:
        """A member of a group that has joined nothing yet; its coroutines run on the loop."""
        return self._client.member(group, ear)

    def producer(self) -> Producer:
        """A producer that has sent nothing yet."""
        self.check_open()
        return self._client.producer()

    def sharing(self) -> Sharing:
        """Share groups; `ConfigurationError` where the client's library has none."""
        found: Sharing | None = self._client.sharing()
        if found is None:
            raise ConfigurationError("?groups=share needs kafka+confluent://: this client has no share groups", backend=SCHEME)
        return found

    def shut(self) -> None:
        """Begin nothing new; what is under way goes on, and is ended by `close`."""
        self._closed = True

    def close(self, within: float) -> None:
        """End what is open, within so many seconds if the server does not answer."""
        self.shut()
        self._client.close(within)

    def disown(self) -> None:
        """In a forked child: threads and connections are the parent's, and nothing here may touch them any more."""
        self._closed = True
        self._client.disown()


def _disown_all() -> None:
    for each in list(_open):
        each.disown()


os.register_at_fork(after_in_child=_disown_all)
