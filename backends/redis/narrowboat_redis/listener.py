"""One subscription for any number of channels: a thread and a connection of its own, begun by the first that is wanted.

Where it breaks, it is made again with a growing pause. It promises nothing about what was said meanwhile: `on_ready` tells
that a channel is heard from now on, `on_broken` that none is, and who waits looks for itself until then.
"""

from __future__ import annotations

import contextlib
import selectors
import threading
import time
from collections.abc import Callable, Iterable

import redis

from narrowboat.driver.waking import Nudge
from narrowboat.errors import NarrowboatError
from narrowboat_redis.connection import Line, find_primary, open_line
from narrowboat_redis.nodes import FAILURES
from narrowboat_redis.resp import ErrorReply, pack
from narrowboat_redis.site import Site, Topology

#: Seconds before the subscription is made again, at first and at most.
_AGAIN, _AGAIN_MAX = 0.05, 2.0
#: Seconds without a word after which the server is asked for a sign, and for which it may then be silent.
_QUIET, _SILENCE = 5.0, 2.0
_PING = pack(b"PING")


class Listener:
    """See the module's text. The callbacks come from its thread and must not block."""

    def __init__(
        self,
        site: Site,
        timeout: float,
        on_message: Callable[[bytes, bytes], None],
        on_ready: Callable[[bytes], None],
        on_broken: Callable[[], None],
    ) -> None:
        self._site = site
        self._timeout = timeout
        self._on_message = on_message
        self._on_ready = on_ready
        self._on_broken = on_broken
        self._mutex = threading.Lock()
        self._wanted: set[bytes] = set()
        self._heard: set[bytes] = set()
        self._thread: threading.Thread | None = None
        self._nudge = Nudge()
        self._closed = False

    def want(self, channel: bytes) -> None:
        """Hear that channel from now on. Idempotent."""
        self._wanted.add(channel)
        with self._mutex:
            # An interrupt can strike between making a thread and starting it: look again each time.
            if not self._closed and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name=f"narrowboat-{self._site.scheme}-ear", daemon=True)
                with contextlib.suppress(RuntimeError):  # no more threads: who waits looks by itself, and it is tried again
                    self._thread.start()
        self._nudge.ring()

    def unwant(self, channel: bytes) -> None:
        """That is no longer needed. Idempotent."""
        self._wanted.discard(channel)
        self._nudge.ring()

    def hears(self, channels: Iterable[bytes]) -> bool:
        """Whether all of them are heard."""
        return self._heard.issuperset(channels)

    def close(self) -> None:
        """End the thread and its connection. Idempotent."""
        self._closed = True
        self._nudge.ring()
        thread = self._thread
        if thread is not None and thread.ident is not None and thread is not threading.current_thread():
            thread.join(self._timeout)
        self._nudge.close()

    def _run(self) -> None:
        pause = _AGAIN
        while not self._closed:
            line = None
            begun = time.monotonic()
            try:
                line = self._connect()
                self._stand(line)
            except (NarrowboatError, *FAILURES):
                pass  # whoever waits looks for itself; a call that fails says why
            finally:
                self._heard = set()
                if line is not None:
                    line.close()
            if not self._closed:
                self._on_broken()
                pause = _AGAIN if time.monotonic() - begun > _QUIET else min(2 * pause, _AGAIN_MAX)
                self._rest(pause)

    def _connect(self) -> Line:
        site = self._site
        timeout = min(self._timeout, _SILENCE)
        if site.topology is Topology.SENTINEL:
            return open_line(site, find_primary(site, timeout), timeout)
        failed: BaseException = ErrorReply("CLUSTERDOWN no node")
        for address in site.hosts:  # any node of a cluster hears what is published on any other
            try:
                return open_line(site, address, timeout)
            except (OSError, redis.RedisError) as error:
                failed = error
        raise failed

    def _stand(self, line: Line) -> None:
        """Listen until it breaks or ends."""
        subscribed: set[bytes] = set()
        with selectors.DefaultSelector() as selector:
            selector.register(line.fileno(), selectors.EVENT_READ)
            selector.register(self._nudge, selectors.EVENT_READ)
            self._hear(line, subscribed, selector)

    def _hear(self, line: Line, subscribed: set[bytes], selector: selectors.BaseSelector) -> None:
        last, asked = time.monotonic(), False
        while not self._closed:
            self._follow(line, subscribed)
            patience = _SILENCE if asked else _QUIET
            left = last + patience - time.monotonic()
            if left <= 0:
                if asked:
                    raise TimeoutError("the subscription is silent")
                line.send(_PING)
                last, asked = time.monotonic(), True
                continue
            if not line.pending():
                ready = [key.fd for key, _ in selector.select(left)]
                if self._nudge.fileno() in ready:
                    self._nudge.hush()
                if line.fileno() not in ready:
                    continue
            for reply in line.read():
                last, asked = time.monotonic(), False
                self._take(reply)

    def _follow(self, line: Line, subscribed: set[bytes]) -> None:
        """Subscribe to what is wanted and not asked for yet, and the reverse."""
        wanted = self._wanted.copy()
        for command, channels in ((b"SUBSCRIBE", wanted - subscribed), (b"UNSUBSCRIBE", subscribed - wanted)):
            if channels:
                line.send(pack(command, *channels))
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
        """Until it may be tried again."""
        ends = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._nudge, selectors.EVENT_READ)
            while not self._closed and (left := ends - time.monotonic()) > 0:
                selector.select(left)
                self._nudge.hush()
