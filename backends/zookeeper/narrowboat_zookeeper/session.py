"""One session with the ensemble, and exchanges in it: many requests sent at once, and one wait with a time limit.

kazoo keeps the session and reconnects. It never retries a request here. This file works around four of its properties. It
queues requests for a server that is away, without a time limit. It does not publish the negotiated time of the session. It
reports a session as lost only when it is connected again. Its `stop` can hang for as long as a connection does.

This driver relies on the order of one session: requests take effect in the order in which they were sent, also across a
reconnection (servers drop the requests of the session's older connection that were still under way).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from kazoo.client import KazooClient, KazooState
from kazoo.retry import KazooRetry
from kazoo.security import CREATOR_ALL_ACL, OPEN_ACL_UNSAFE, READ_ACL_UNSAFE, make_acl

from narrowboat.driver.quiet import quiet
from narrowboat.dsn import hidden
from narrowboat.errors import Closed, ConfigurationError, NarrowboatError
from narrowboat_zookeeper import errors
from narrowboat_zookeeper.handler import Handler, Result, WakeupPipe
from narrowboat_zookeeper.library import Connection, forget_session, use
from narrowboat_zookeeper.options import Acl, Ensemble

#: Seconds for which a call waits for a connection when there was none for a whole timeout. The next try may succeed.
_GRACE = 0.3
#: The longest backoff between two tries to connect to all hosts, in seconds.
_RETRY_MAX = 0.2

_ACLS = {
    Acl.OPEN: OPEN_ACL_UNSAFE,
    Acl.CREATOR: CREATOR_ALL_ACL,
    Acl.READ: CREATOR_ALL_ACL + READ_ACL_UNSAFE,
}
#: The rights to the node above all namespaces: others may read it, and make a namespace of their own in it.
_SHARED = [*CREATOR_ALL_ACL, make_acl("world", "anyone", read=True, create=True)]


class Session:
    """See the module's text.

    kazoo's thread calls `on_up` whenever there is a connection again, and `on_lost` when the session has ended.
    """

    def __init__(self, ensemble: Ensemble, timeout: float, on_up: Callable[[], None], on_lost: Callable[[], None]) -> None:
        self.ensemble = ensemble
        self.timeout = timeout
        self.acl = _ACLS[ensemble.acl]
        self.owned = ensemble.acl is not Acl.OPEN  #: nodes that this session makes belong to its user
        self.shared_acl = _SHARED if ensemble.acl is not Acl.OPEN and ensemble.options.share else self.acl
        self._on_up = on_up
        self._on_lost = on_lost
        secure = ensemble.options.context(backend=ensemble.scheme) if ensemble.tls else None
        self._handler = Handler(timeout, secure, self._connecting)
        logger = _logger()
        retry = KazooRetry(max_tries=-1, delay=0.05, max_delay=_RETRY_MAX, sleep_func=self._handler.sleep_func)
        secret = ensemble.secret
        auth = [("digest", hidden(f"{ensemble.user}:{secret.reveal()}"))] if secret is not None else None
        options = ensemble.options
        self.client = KazooClient(
            hosts=",".join(map(str, ensemble.hosts)),
            timeout=options.session_ttl,
            handler=self._handler,
            auth_data=auth,
            connection_retry=retry,
            command_retry=KazooRetry(max_tries=0, sleep_func=self._handler.sleep_func),
            logger=logger,
        )
        self._connection = Connection(self.client, retry.copy(), logger=logger)
        self._connection.largest = options.max_reply
        use(self._connection, self.client)
        self._up = threading.Event()
        self._down_since = time.monotonic()
        self._mute_since: float | None = None  #: when what was not answered was sent, until the connection is broken off
        self._refusal: NarrowboatError | None = None
        self._closed = False
        self.epoch = 0  #: counts connections: watches end with theirs
        self.id: int | None = None  #: of the session that we are connected in; None while there is none
        self.ttl = options.session_ttl  #: seconds, as negotiated
        self.client.add_listener(self._changed)
        try:
            self.client.start_async()
        except BaseException:  # no thread to be had, or an interrupt: nobody else knows of the bell
            self._handler.wakeup.close()
            raise

    def _changed(self, state: str) -> None:
        """On kazoo's thread."""
        if state == KazooState.CONNECTED:
            identity = self.client.client_id
            self.id = identity[0] if identity is not None else None
            self._refusal = self._check(self._connection.granted)
            self._mute_since = None
            self._up.set()
            self._on_up()
        else:
            if self._up.is_set():
                self._up.clear()
                self.epoch += 1
                self._down_since, self._mute_since = self._mute_since or time.monotonic(), None
            if state == KazooState.LOST:
                self.id = None
                self._on_lost()

    def _connecting(self) -> None:
        """On kazoo's thread. A session that was out of reach for its whole time is over for us: ask for a new one.

        If only answers are lost, each try to resume the session would keep it alive, and its locks with it, for ever.
        """
        if self.id is not None and not self._up.is_set() and time.monotonic() - self._down_since > self.ttl:
            self.id = None
            forget_session(self.client)

    def _check(self, granted: float | None) -> NarrowboatError | None:
        options = self.ensemble.options
        if granted is None:
            return ConfigurationError(
                "the installed kazoo does not tell what time a session was granted; install a version that this backend's page "
                "lists",
                backend=self.ensemble.scheme,
            )
        self.ttl = granted
        if granted > options.session_ttl + 0.001:
            return ConfigurationError(
                f"{self.ensemble} grants sessions of {granted:g} s and more (minSessionTimeout), longer than the "
                f"session_ttl={options.session_ttl:g} that was asked for: the lock of a dead holder would be free later than "
                f"promised. Use session_ttl={granted:g} or more.",
                backend=self.ensemble.scheme,
            )
        if granted < 2 * options.tick:
            return ConfigurationError(
                f"{self.ensemble} grants sessions of {granted:g} s at most (maxSessionTimeout), less than two ticks of "
                f"{options.tick:g} s. Use the servers' tickTime as tick=.",
                backend=self.ensemble.scheme,
            )
        return None

    def pipe(self, ends: float) -> Pipe:
        """A pipe for requests that are sent together. Waits for a connection until `ends` (monotonic)."""
        self.check_open()
        if not self._up.is_set():
            now = time.monotonic()
            until = min(ends, max(self._down_since + self.timeout, now + _GRACE))
            if not self._up.wait(max(0.0, until - now)):
                self.check_open()
                raise self._unreachable()
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)  # raised again and again, it would keep every frame that it went through
        return Pipe(self, ends)

    def _unreachable(self) -> NarrowboatError:
        if self.client.client_state == "AUTH_FAILED":
            return errors.denied(self.ensemble)
        return errors.unreachable(self.ensemble, time.monotonic() - self._down_since, self._handler.last_error)

    def check_open(self) -> None:
        """Raise `Closed` after `close`."""
        if self._closed:
            raise Closed(f"{self.ensemble.scheme} locks: used after close()", backend=self.ensemble.scheme)

    @property
    def up(self) -> bool:
        """Whether there is a connection, as far as we know."""
        return self._up.is_set() and self._refusal is None

    @property
    def wakeup(self) -> WakeupPipe:
        """The pipe that wakes kazoo's thread."""
        return self._handler.wakeup

    def abort(self, since: float) -> None:
        """Break off a connection that has not answered `since` (monotonic); kazoo makes a new one in the same session.

        It counts as down from then on: a call that has waited for a whole timeout must not wait for another one.
        """
        if self._up.is_set():
            self._mute_since = since
        self._handler.abort()

    def close(self, timeout: float) -> None:
        """End the session, its connection and its thread, within `timeout` seconds. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._handler.closing.set()
        stopping = threading.Thread(target=self._stop, name="narrowboat-zookeeper-close", daemon=True)
        try:
            stopping.start()
        except RuntimeError:  # no thread to be had: what could hang is broken off instead
            self._handler.abort()
            self._stop()
            return
        stopping.join(timeout / 2 if self._up.is_set() else 0.0)
        if stopping.is_alive():  # no answer to our farewell: the session ends by itself
            self._handler.abort()
            stopping.join(timeout / 2)

    def _stop(self) -> None:
        try:
            self.client.stop()
            self.client.close()
        except Exception:
            logging.getLogger("narrowboat.zookeeper").debug("closing the session with %s", self.ensemble, exc_info=True)


class Pipe:
    """Requests sent together in one session. Each method sends one; `wait` waits for all; `outcome` reads one."""

    __slots__ = ("_client", "_ends", "_last", "_session", "_sync")

    def __init__(self, session: Session, ends: float) -> None:
        self._session = session
        self._client = session.client
        self._ends = ends
        self._last: Result | None = None
        self._sync: Result | None = None

    def sync(self) -> Result:
        """Reads that follow see every write that was confirmed before, and the leader has heard of this session. Sent once."""
        if self._sync is None:
            self._last = self._sync = self._client.sync_async(self._session.ensemble.base or "/")
        return self._sync

    def sent(self, result: Result) -> Result:
        """Wait for this request as well, even if it was sent before this pipe was made."""
        self._last = result
        return result

    def create(self, path: str, data: bytes) -> Result:
        """An ephemeral sequential node: (path, stat)."""
        acl = self._session.acl
        return self.sent(self._client.create_async(path, data, acl=acl, ephemeral=True, sequence=True, include_data=True))

    def make(self, path: str, shared: bool = False) -> Result:
        """A permanent node. `shared`: the node above the namespaces of all users."""
        return self.sent(self._client.create_async(path, acl=self._session.shared_acl if shared else self._session.acl))

    def children(self, path: str, watch: Callable[[Any], None] | None = None) -> Result:
        """The names of the node's children."""
        return self.sent(self._client.get_children_async(path, watch=watch))

    def get(self, path: str, watch: Callable[[Any], None] | None = None) -> Result:
        """(data, stat). The server arms a watch only where there is a node, so none is left behind."""
        return self.sent(self._client.get_async(path, watch=watch))

    def exists(self, path: str) -> Result:
        """The node's stat; None where there is no node."""
        return self.sent(self._client.exists_async(path))

    def delete(self, path: str) -> Result:
        """Remove a node without children."""
        return self.sent(self._client.delete_async(path))

    def mark_and_delete(self, path: str, data: bytes) -> Result:
        """Set and delete in one step: its holder's watch sees the change, and no other call comes in between."""
        transaction = self._client.transaction()
        transaction.set_data(path, data)
        transaction.delete(path)
        return self.sent(transaction.commit_async())

    def wait(self) -> None:
        """Wait until all are answered. Answers come in order, so this waits for the last one.

        Raises `Unavailable` when they are late. The connection is then broken off, and the requests may still take effect.
        """
        last = self._last
        if last is None:
            return
        if not last.ready():
            answered = threading.Lock()
            answered.acquire()
            last.rawlink(lambda result: answered.release())
            if not answered.acquire(timeout=max(0.0, self._ends - time.monotonic())):
                self._session.abort(self._ends - self._session.timeout)
                raise errors.timed_out(self._session.ensemble, self._session.timeout)
        if isinstance(last.exception, errors.BROKEN):
            raise errors.unknown(self._session.ensemble, last.exception)

    def outcome(self, result: Result) -> Any:
        """A request's value, or the server's error as a value. Raises the error that broke the whole exchange."""
        if not result.ready():
            raise errors.timed_out(self._session.ensemble, self._session.timeout)
        if result.exception is None:
            return result.value
        if isinstance(result.exception, errors.BROKEN):
            raise errors.unknown(self._session.ensemble, result.exception)
        return result.exception


def _logger() -> logging.Logger:
    """The logger that kazoo writes to."""
    logger = logging.getLogger("narrowboat.zookeeper.kazoo")
    logger.addFilter(_not_verbose)
    quiet("narrowboat.zookeeper.kazoo")
    return logger


def _not_verbose(record: logging.LogRecord) -> bool:
    """Whether a record may be logged. kazoo's debug messages repeat the bytes that it sends, passwords included."""
    return record.levelno >= logging.INFO
