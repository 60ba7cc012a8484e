"""Receiving from one topic for one consumer: a thread that holds a call open until the server has something.

A proxy holds an empty call for five seconds at least, whatever it is told, so no caller of ours waits in one. The thread asks
for as much as its consumer wants at that moment, and for nothing while it wants nothing. An ordered consumer asks for one
message a call: with several, 5.4.0 hands out again what was acknowledged before the first of them is.

A call that is cancelled goes on at the broker for as long as it would have been held. What becomes ready meanwhile is taken by
it, counted, and given back by the proxy because nobody listens. `lingering` says how long that may go on.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from narrowboat.driver.threads import LazyThread
from narrowboat.errors import NarrowboatError
from narrowboat_rocketmq.claim import MARGIN, Claim
from narrowboat_rocketmq.library import definition_pb2 as said
from narrowboat_rocketmq.library import service_pb2 as service
from narrowboat_rocketmq.library.calls import drain, resource
from narrowboat_rocketmq.link import Link

#: Seconds for which a call is held where there is nothing: the least that a proxy takes.
HELD = 5.0
#: Seconds by which a call may end later at the broker than it would have here.
_LATER = 0.5
#: The most messages of one call that a broker gives.
_MOST = 32


class Wanted(NamedTuple):
    """What one consumer receives, for the requests."""

    group: str
    lease: float
    ordered: bool
    client: str


class Poll:
    """See the module's text.

    Args:
        link, wanted, topic: what is received.
        demand: waits until something is wanted, a second at most, and says how much; 0: nothing.
        take: is given what came, and the error or status that came after it or instead.
    """

    def __init__(
        self,
        link: Link,
        wanted: Wanted,
        topic: str,
        demand: Callable[[Poll], int],
        take: Callable[[Poll, list[Claim], Any], None],
    ) -> None:
        self.topic = topic
        self.idle_until = 0.0  #: the topic is not there: it is not asked for again before
        self.begun = math.inf  #: when the call that is held began, on the broker's clock; infinite where none is
        self._link = link
        self._wanted = wanted
        self._demand = demand
        self._take = take
        self._mutex = threading.Lock()
        self._call: Any = None
        self._held = 0.0  #: until when the broker may hold a call of ours, on the broker's clock
        self.thread = LazyThread(f"narrowboat-rocketmq-{topic}"[:60], self._run, wake=self._cancel)

    def _run(self) -> None:
        while not self.thread.ended:
            count = self._demand(self)
            if count > 0 and not self.thread.ended:
                claims, problem = self._receive(min(count, 1 if self._wanted.ordered else _MOST))
                self._take(self, claims, problem)

    def _receive(self, count: int) -> tuple[list[Claim], Any]:
        link, wanted = self._link, self._wanted
        request = service.ReceiveMessageRequest(
            group=resource(wanted.group, link.namespace),
            message_queue=said.MessageQueue(topic=resource(self.topic, link.namespace), id=-1),
            filter_expression=said.FilterExpression(type=said.TAG, expression="*"),
            batch_size=count,
        )
        request.invisible_duration.FromMilliseconds(round((wanted.lease + MARGIN) * 1000))
        request.long_polling_timeout.FromMilliseconds(int(HELD * 1000))
        messages: list[Any] = []
        status = problem = None
        try:
            calls = link.calls
            call = calls.receive(request, timeout=HELD + link.timeout, metadata=calls.headers(wanted.client))
            with self._mutex:
                self._call = call
            if self.thread.ended:
                call.cancel()
            self.begun = link.clock()
            self._held = self.begun + HELD + _LATER
            status = drain(call, messages)
            self._held = 0.0
        except NarrowboatError as error:
            return [], error
        except (grpc.RpcError, ValueError) as error:
            problem = None if self.thread.ended else link.broken(error, f"receiving from {self.topic!r}")
        finally:
            self.begun = math.inf
        now = link.clock()
        claims = [
            Claim(message, self.topic, message.system_properties.receipt_handle, now, now + wanted.lease)
            for message in messages
        ]
        if problem is None and not claims and status is not None and status.code not in (said.OK, said.MESSAGE_NOT_FOUND):
            problem = status
        return claims, problem

    def lingering(self) -> float:
        """For how many more seconds the broker may hold a call of ours that nobody listens to; 0 before the thread's end."""
        return max(0.0, self._held - self._link.clock()) if self.thread.ended else 0.0

    def _cancel(self) -> None:
        with self._mutex:
            call = self._call
        if call is not None:
            call.cancel()
