"""One subscription to any number of channels: a thread and a connection of its own, begun by the first channel.

If it breaks, or the server does not answer a ping, it is made again, with a backoff. Messages that were published meanwhile are
lost. `on_ready` says that a channel is heard from now on, and `on_broken` that none is. Between the two the users poll.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterable

from narrowboat.driver.threads import LazyThread
from narrowboat.driver.waking import Nudge
from narrowboat.errors import NarrowboatError
from narrowboat_redis.connection import Connection
from narrowboat_redis.endpoint import Deployment, RedisEndpoint
from narrowboat_redis.errors import FAILURES, translate
from narrowboat_redis.opening import find_primary, open_connection
from narrowboat_redis.resp import ErrorReply, pack

#: The backoff before the subscription is made again, in seconds: the first and the longest.
_AGAIN, _AGAIN_MAX = 0.05, 2.0
#: Seconds for which it has to stand before the backoff begins anew. A subscription that breaks at once is no reason to hurry.
_STEADY = 5.0
#: Seconds of silence after which the server gets a ping, and within which it has to answer.
QUIET, _SILENCE = 5.0, 2.0
_PING = pack(b"PING")


class Subscription:
    """See the module's text. Its thread calls the callbacks."""

    def __init__(
        self,
        endpoint: RedisEndpoint,
        timeout: float,
        name: str,
        *,
        on_message: Callable[[bytes, bytes], None],
        on_ready: Callable[[bytes], None],
        on_broken: Callable[[BaseException], None],
        turn: Callable[[], float | None] = lambda: QUIET,
        quiet: float = QUIET,
    ) -> None:
        """`turn` does the periodic work, and returns the seconds until its next call.

        None: not before `hurry` is called; the subscription is not needed until then, and gets no ping. `quiet`: seconds of
        silence after which it gets one.
        """
        self._endpoint = endpoint
        self._timeout = timeout
        self._on_message = on_message
        self._on_ready = on_ready
        self._on_broken = on_broken
        self._turn = turn
        self._quiet = quiet
        self._wanted: set[bytes] = set()
        self._heard: set[bytes] = set()
        try:
            self._nudge = Nudge()
        except OSError as error:  # no more descriptors
            raise translate(error, endpoint, doing="opening") from error
        self._thread = LazyThread(f"narrowboat-{endpoint.scheme}-{name}", self._run, wake=self._nudge.ring)

    def want(self, channel: bytes) -> bool:
        """Subscribe to that channel. True: the thread began just now. Raises RuntimeError when there is no thread left."""
        self._wanted.add(channel)
        begun = self._thread.start()
        self._nudge.ring()
        return begun

    def unwant(self, channel: bytes) -> None:
        """Unsubscribe from that channel. Idempotent."""
        self._wanted.discard(channel)
        self._nudge.ring()

    def hears(self, channels: Iterable[bytes]) -> bool:
        """Whether all of these channels are heard."""
        return self._heard.issuperset(channels)

    def hurry(self) -> None:
        """Take the next turn now; if the subscription is broken, make it again now."""
        self._nudge.ring()

    def close(self) -> None:
        """End the thread and its connection. Idempotent."""
        self._thread.end(self._timeout)
        self._nudge.close()

    def _run(self) -> None:
        pause = _AGAIN
        while not self._thread.ended:
            begun = time.monotonic()
            error = self._stand()
            if error is not None and not self._thread.ended:
                self._on_broken(error)
                pause = _AGAIN if time.monotonic() - begun > _STEADY else min(2 * pause, _AGAIN_MAX)
                self._rest(pause)

    def _stand(self) -> BaseException | None:
        """Listen until the subscription breaks or ends. Returns the error that broke it."""
        connection = None
        try:
            connection = self._connect()
            with selectors.DefaultSelector() as selector:
                selector.register(connection, selectors.EVENT_READ)
                selector.register(self._nudge, selectors.EVENT_READ)
                self._hear(connection, selector)
        except (NarrowboatError, *FAILURES) as error:
            return error
        finally:
            self._heard = set()
            if connection is not None:
                connection.close()
        return None

    def _connect(self) -> Connection:
        endpoint, timeout = self._endpoint, min(self._timeout, _SILENCE)
        if endpoint.deployment is Deployment.SENTINEL:
            return open_connection(endpoint, find_primary(endpoint, timeout), timeout)
        failed: BaseException = ErrorReply("CLUSTERDOWN no node")
        for address in endpoint.hosts:  # any node of a cluster hears what is published on any other
            try:
                return open_connection(endpoint, address, timeout)
            except OSError as error:
                failed = error
        raise failed

    def _hear(self, connection: Connection, selector: selectors.BaseSelector) -> None:
        subscribed: set[bytes] = set()
        last, asked = time.monotonic(), False
        while not self._thread.ended:
            self._follow(connection, subscribed)
            pause = self._turn()
            left = last + (_SILENCE if asked else self._quiet) - time.monotonic()
            if left <= 0 and asked:
                raise TimeoutError("the subscription is silent")
            if left <= 0 and pause is not None:
                connection.send(_PING)
                last, asked = time.monotonic(), True
                continue
            if not connection.pending():
                wait = left if asked else None if pause is None else min(left, pause)
                ready = [key.fileobj for key, _ in selector.select(wait)]
                if self._nudge in ready:
                    self._nudge.hush()
                if connection not in ready:
                    continue
            for reply in connection.read():
                last, asked = time.monotonic(), False
                self._take(reply)

    def _follow(self, connection: Connection, subscribed: set[bytes]) -> None:
        """Send the subscriptions and unsubscriptions that are outstanding."""
        wanted = self._wanted.copy()
        for command, channels in ((b"SUBSCRIBE", wanted - subscribed), (b"UNSUBSCRIBE", subscribed - wanted)):
            if channels:
                connection.send(pack(command, *channels))
        self._heard &= wanted
        subscribed.clear()
        subscribed |= wanted

    def _take(self, reply: object) -> None:
        if isinstance(reply, ErrorReply):
            raise reply
        if not isinstance(reply, list) or len(reply) < 3:
            return
        if reply[0] == b"message":
            self._on_message(reply[1], reply[2])
        elif reply[0] == b"subscribe":
            self._heard.add(reply[1])
            self._on_ready(reply[1])

    def _rest(self, seconds: float) -> None:
        """Wait for the backoff, or for `hurry`."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._nudge, selectors.EVENT_READ)
            selector.select(seconds)
        self._nudge.hush()
