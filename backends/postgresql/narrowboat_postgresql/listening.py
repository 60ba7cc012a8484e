"""The connection on which this process hears notifications, and its thread: begun by the first who wants to hear something.

What was notified while there was no connection is lost, so everybody is told when it breaks and when it stands again, and looks
for himself. It sends nothing but LISTEN and UNLISTEN, and is never in a transaction.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from narrowboat.driver.threads import LazyThread
from narrowboat.driver.waking import Nudge
from narrowboat.errors import NarrowboatError
from narrowboat_postgresql.errors import Broken, Refused, translate
from narrowboat_postgresql.place import Place

if TYPE_CHECKING:
    from narrowboat_postgresql.library import Link

#: Seconds between two attempts to connect, at first and at most.
_AGAIN, _MOST = 0.05, 2.0


class Listening:
    """See the module's text. From any thread."""

    def __init__(self, place: Place, name: str, heard: Callable[[str, str], None], changed: Callable[[], None]) -> None:
        """`heard` gets a channel and a text; `changed` is called when the connection stands, hears more channels, or breaks."""
        self._place = place
        self._heard = heard
        self._changed = changed
        self._mutex = threading.Condition(threading.Lock())
        self._wanted: set[str] = set()
        self._hears: set[str] = set()
        self._failed: NarrowboatError | None = None
        self._nudge: Nudge | None = None
        self._thread = LazyThread(f"narrowboat-postgresql-{name}", self._work, wake=self._ring)

    def want(self, channel: str) -> None:
        """Hear it from some moment on; see `hears`. Raises RuntimeError where no thread can be started."""
        with self._mutex:
            if channel not in self._wanted:
                self._wanted.add(channel)
                self._failed = None
                if self._nudge is None:
                    self._nudge = Nudge()
                self._nudge.ring()
        self._thread.start()

    def unwant(self, channel: str) -> None:
        """Hear it no more."""
        with self._mutex:
            self._wanted.discard(channel)
        self._ring()

    def hears(self, channel: str) -> bool:
        """Whether everything that is notified there from now on is heard."""
        return channel in self._hears

    def await_channel(self, channel: str, seconds: float) -> bool:
        """Wait until it is heard, or until that failed. Whether it is."""
        with self._mutex:
            self._mutex.wait_for(
                lambda: channel in self._hears or self._failed is not None or self._thread.ended, timeout=seconds
            )
            return channel in self._hears

    def close(self) -> None:
        """End the thread and its connection. Idempotent."""
        self._thread.end(self._place.timeout)
        if self._nudge is not None:
            self._nudge.close()

    def _ring(self) -> None:
        if self._nudge is not None:
            self._nudge.ring()

    def _work(self) -> None:
        pause = _AGAIN
        while not self._thread.ended:
            link = None
            try:
                link, _ = self._place.connect(time.monotonic() + self._place.timeout)
                pause = _AGAIN
                self._serve(link)
            except Exception as error:  # whatever happens here is a broken connection, and begun anew
                self._broke(error)
            finally:
                if link is not None:
                    link.close()
            if not self._thread.ended:
                self._rest(pause)
                pause = min(2 * pause, _MOST)
        with self._mutex:
            self._hears = set()
            self._mutex.notify_all()

    def _serve(self, link: Link) -> None:
        assert self._nudge is not None
        poll = select.poll()
        poll.register(link.fileno(), select.POLLIN)
        poll.register(self._nudge.fileno(), select.POLLIN)
        while not self._thread.ended:
            self._nudge.hush()
            self._adjust(link)
            for notice in link.notices():
                self._heard(notice.channel, notice.text)
            poll.poll()

    def _adjust(self, link: Link) -> None:
        with self._mutex:
            more, less = self._wanted - self._hears, self._hears - self._wanted
        if not more and not less:
            return
        words = [f'LISTEN "{channel}"' for channel in sorted(more)] + [f'UNLISTEN "{channel}"' for channel in sorted(less)]
        link.script("; ".join(words), time.monotonic() + self._place.timeout)
        with self._mutex:
            self._hears = (self._hears - less) | more
            self._failed = None
            self._mutex.notify_all()
        if more:
            self._changed()

    def _broke(self, error: Exception) -> None:
        found = translate(error, self._place.endpoint, doing="listening") if isinstance(error, (Refused, Broken)) else error
        with self._mutex:
            self._hears = set()
            self._failed = found if isinstance(found, NarrowboatError) else NarrowboatError(str(found))
            self._mutex.notify_all()
        self._changed()

    def _rest(self, seconds: float) -> None:
        assert self._nudge is not None
        poll = select.poll()
        poll.register(self._nudge.fileno(), select.POLLIN)
        self._nudge.hush()
        if not self._thread.ended:
            poll.poll(seconds * 1000)
