"""One connection to RabbitMQ: made when a call needs it, made again after it broke, on the next of several hosts.

Nothing is tried while nobody asks. Calls that come while a connection is being made share it; when all hosts refused, all of
them are told why, and the next try waits for a backoff with jitter, so that a server that is down sees few tries. `Session` is
one connection's life: what was received in it can be settled in it alone.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pika
from pika import exceptions

from narrowboat.driver.endpoint import Endpoint, HostPort
from narrowboat.driver.turn import turn
from narrowboat.driver.versions import numbers, tried
from narrowboat.dsn import Secret
from narrowboat.errors import Closed
from narrowboat_rabbitmq.connection.loop import Answer, Loop
from narrowboat_rabbitmq.errors import Operation, connection_error, late, transient
from narrowboat_rabbitmq.library import Connection, received, terminate
from narrowboat_rabbitmq.options import SCHEME, Options

PRODUCT = "RabbitMQ"
#: Versions with which this driver is proven; and the first that has two ways to give a message back.
TRIED, FREES = ("3.10", "4.0", "4.3"), (4, 3)
#: Seconds that the I/O thread, which never blocks, may need for what was posted to it on a machine that is very busy.
_BRIEF = 2.0
#: Seconds of backoff before the second try after a failure, and at most. The real one is drawn from the upper half of it.
_BACKOFF, _BACKOFF_MAX = 0.05, 2.0


class Session:
    """One connection, from its opening to its end. Only the I/O thread changes it."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.alive = True
        self.blocked: str | None = None  #: why the server takes no messages; None while it does
        self.error: BaseException | None = None
        self.on_end: dict[object, Callable[[BaseException], None]] = {}  #: called once, when it ends
        self.on_block: list[Callable[[], None]] = []
        said = connection.server_properties or {}
        version = str(said.get("version", ""))
        rabbit = said.get("product") == PRODUCT and tried(PRODUCT, version, TRIED)
        #: A quorum queue does not count what is given back to it by basic.nack (and counts basic.reject): from 4.3 on.
        self.frees = rabbit and numbers(version) >= FREES

    @property
    def heard(self) -> int:
        """Bytes that came so far."""
        return received(self.connection)

    def end(self, error: BaseException) -> None:
        """Tell everybody that nothing of it may be used any more. Idempotent."""
        if not self.alive:
            return
        self.alive = False
        self.error = error
        tells, self.on_end = self.on_end, {}
        for tell in tells.values():
            tell(error)

    def abort(self, error: BaseException) -> None:
        """End it without asking the server."""
        self.end(error)
        terminate(self.connection, error)


class Link:
    """See the module's text. `name` says in the server's list of connections what it is for."""

    def __init__(self, endpoint: Endpoint, options: Options, loop: Loop, timeout: float, name: str) -> None:
        self.endpoint = endpoint
        self.loop = loop
        self.timeout = timeout
        self.session: Session | None = None
        self.silent = False  #: nothing came for a whole operation timeout, and no connection was made since
        self._options = options
        self._name = name
        self._waiters: list[Answer[Session]] = []
        self._connecting: Any = None  # the connection that is being made
        self._timer: Any = None  # of the backoff
        self._host = 0  # which is tried next
        self._left = 0  # how many hosts are tried before all waiters are told
        self._failures = 0
        self._not_before = 0.0
        self._worked = False  # it was there: then it is worth trying until the callers' time is over
        self._last: BaseException | None = None
        self._closed = False
        self._closing: Answer[None] | None = None
        loop.stood_still.append(self._stood_still)
        loop.failed.append(self._broken)

    # -- for callers ----------------------------------------------------------------------------------------------

    def ready(self, operation: Operation) -> Session:
        """The open session; raises why there is none. Nothing of the operation was sent then."""
        session = self.session
        if session is not None and session.alive:
            return session
        answer: Answer[Session] = Answer()
        self.loop.post(lambda: self._want(answer))
        if not answer.wait(operation.deadline - self.loop.clock()):
            answer.fail(self._last or TimeoutError())  # nobody waits for it any more
        if answer.value is not None:
            return answer.value
        operation, error = operation._replace(prepares=True), answer.error
        assert error is not None
        if isinstance(error, Closed):
            raise error
        if isinstance(error, TimeoutError):
            self.silent = True
            raise late(self.endpoint, operation, self.timeout)
        raise connection_error(error, self.endpoint, operation)

    def alone(self, mutex: threading.Lock, operation: Operation) -> AbstractContextManager[object]:
        """Hold `mutex`; raises where another call still waits for the server with it when the operation's time is over."""
        left = operation.deadline - self.loop.clock()
        return turn(mutex, left, lambda: late(self.endpoint, operation._replace(prepares=True), self.timeout))

    def doubt(self, session: Session, heard: int) -> None:
        """After an answer that did not come: where nothing came since `heard`, end the connection, as that of a dead server.

        It has ended when this returns, so that the next call does not wait on it for another timeout.
        """
        done: Answer[None] = Answer()

        def look() -> None:
            if session.alive and session.heard == heard and session.blocked is None:
                self.silent = True
                session.abort(exceptions.AMQPHeartbeatTimeout("nothing was heard from the server for a whole time-out"))
            done.give(None)

        self.loop.post(look)
        done.wait(_BRIEF)

    def begin_close(self) -> Answer[None]:
        """Begin to end it in good order; the answer is given when it has."""
        done: Answer[None] = Answer()
        self.loop.post(lambda: self._close(done))
        return done

    def finish_close(self, done: Answer[None], timeout: float) -> None:
        """Wait for that, and end it without the server after `timeout` seconds."""
        if not done.wait(timeout):
            self.loop.post(self._abort)
            done.wait(_BRIEF)  # or the loop would end before the socket is closed

    # -- on the I/O thread ----------------------------------------------------------------------------------------

    def _want(self, answer: Answer[Session]) -> None:
        if self._closed:
            answer.fail(_was_closed())
        elif self.session is not None and self.session.alive:
            answer.give(self.session)
        else:
            self._waiters.append(answer)
            if self._connecting is None and self._timer is None:
                self._begin()

    def _begin(self) -> None:
        """Try all hosts once, when the backoff is over."""
        self._left = len(self.endpoint.hosts)
        pause = self._not_before - self.loop.clock()
        if pause > 0:
            self._timer = self.loop.later(pause, self._connect)
        else:
            self._connect()

    def _connect(self) -> None:
        self._timer = None
        host = self.endpoint.hosts[self._host % len(self.endpoint.hosts)]
        self._host += 1
        self._left -= 1
        try:
            self._connecting = Connection(
                self._parameters(host),
                on_open_callback=self._opened,
                on_open_error_callback=self._failed,
                on_close_callback=self._ended,
                custom_ioloop=self.loop.raw,
            )
        except Exception as error:
            self._connecting = None
            self._tell(error)

    def _parameters(self, host: HostPort) -> pika.ConnectionParameters:
        """Pika's settings: one try, our timeouts, and heartbeats that the I/O thread keeps up while handlers run."""
        endpoint, secret = self.endpoint, self.endpoint.secret or Secret("")
        tls = self._options.context(backend=endpoint.scheme) if endpoint.tls else None
        return pika.ConnectionParameters(
            host=host.host,
            port=host.port,
            virtual_host=endpoint.database,
            credentials=pika.PlainCredentials(endpoint.user, secret.reveal(), erase_on_connect=True),
            heartbeat=self._options.heartbeat,
            connection_attempts=1,
            retry_delay=0,
            socket_timeout=self.timeout,
            stack_timeout=self.timeout,
            blocked_connection_timeout=None,
            client_properties={"connection_name": self._name, "product": "narrowboat"},
            ssl_options=pika.SSLOptions(tls, host.host) if tls is not None else None,
        )

    def _opened(self, connection: Any) -> None:
        if connection is not self._connecting or self._closed:
            connection.close()
            return
        self._connecting = None
        self._failures = 0
        self._worked = True
        self.silent = False
        self._last = None
        self._host -= 1  # it works: the next one after it is tried when it does not
        session = self.session = Session(connection)
        connection.add_on_connection_blocked_callback(lambda _, frame: self._block(session, str(frame.method.reason)))
        connection.add_on_connection_unblocked_callback(lambda _, frame: self._block(session, None))
        waiters, self._waiters = self._waiters, []
        for answer in waiters:
            answer.give(session)

    def _block(self, session: Session, reason: str | None) -> None:
        session.blocked = reason
        for tell in session.on_block:
            tell()

    def _failed(self, connection: Any, error: BaseException) -> None:
        if connection is not self._connecting:
            return
        self._connecting = None
        if self._closed:
            self._done()
        elif self._left > 0:
            self._connect()
        else:
            self._tell(error)

    def _tell(self, error: BaseException) -> None:
        self._failures += 1
        most = min(_BACKOFF_MAX, _BACKOFF * 2.0**self._failures)
        self._not_before = self.loop.clock() + most * (0.5 + random.random() / 2)  # spreads tries, keeps no secret
        self._last = error
        self._waiters = [answer for answer in self._waiters if not answer.given]
        if self._waiters and self._worked and not self._closed and transient(error):
            self._begin()
            return
        waiters, self._waiters = self._waiters, []
        for answer in waiters:
            answer.fail(error)

    def _ended(self, connection: Any, error: BaseException) -> None:
        session = self.session
        if session is not None and session.connection is connection:
            self.session = None
            session.end(error)
            if len(self.endpoint.hosts) > 1:
                self._host += 1
        self._done()

    def _stood_still(self, seconds: float) -> None:
        if self.session is not None:
            self.session.abort(
                exceptions.AMQPHeartbeatTimeout(
                    f"this process stood still for {seconds:.1f} s; the server may have given us up"
                )
            )

    def _broken(self, error: Exception) -> None:
        """After an error on the I/O thread nobody knows what it left half done: the connection begins anew."""
        if self.session is not None:
            self.session.abort(error)
        if self._connecting is not None:  # it may never be heard of again
            connection, self._connecting = self._connecting, None
            with contextlib.suppress(Exception):  # whatever state the error left it in: its socket is to be closed
                connection.close()
            self._tell(error)

    def _close(self, done: Answer[None]) -> None:
        self._closed = True
        self._closing = done
        if self._timer is not None:
            self.loop.forget(self._timer)
            self._timer = None
        self._tell(_was_closed())
        if self.session is not None and self.session.alive:
            connection = self.session.connection
            self.session.end(exceptions.ConnectionClosedByClient(200, "closed"))
            connection.close()
        elif self._connecting is not None:
            with contextlib.suppress(exceptions.ConnectionWrongStateError):  # it took too long, and ends by itself just now
                self._connecting.close()
            # `_failed` follows
        elif self.session is None:
            self._done()

    def _done(self) -> None:
        if self._closing is not None:
            self._closing.give(None)

    def _abort(self) -> None:
        if self.session is not None:
            self.session.abort(exceptions.ConnectionClosedByClient(200, "closed without an answer"))


def _was_closed() -> Closed:
    return Closed("this broker was closed; open it again", backend=SCHEME)
