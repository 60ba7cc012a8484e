"""The connection with a ring: made at the first call, shared by all threads, made anew by the library when it breaks.

Each statement is sent once. The library's own retries and speculative executions are off, because it does not know which
statement may be sent twice. Many statements travel at once over one connection for each node. After a connection broke, the
library asks nobody until it has another one, and says so at once: that is waited for, as long as a call may last.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from cassandra import ConsistencyLevel, InvalidRequest, OperationTimedOut
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.cluster import Session as CqlSession
from cassandra.connection import ConnectionException
from cassandra.policies import (
    ConstantReconnectionPolicy,
    DCAwareRoundRobinPolicy,
    FallthroughRetryPolicy,
    HostStateListener,
    RoundRobinPolicy,
)
from cassandra.pool import NoConnectionsAvailable
from cassandra.query import PreparedStatement, dict_factory

from narrowboat.driver.turn import turn
from narrowboat.errors import Closed, NarrowboatError, Unavailable
from narrowboat_cassandra import library
from narrowboat_cassandra.errors import translate
from narrowboat_cassandra.options import Consistency, Ring
from narrowboat_cassandra.schema import check_durability, check_version, make
from narrowboat_cassandra.steps import HERE, STATEMENTS, Do

#: Version 4 of the protocol: every Cassandra from 2.2 on speaks it, and says in it what a later one says by a code that the
#: library has no class for.
PROTOCOL = 4
#: Seconds between two tries to reach a node that went away.
RECONNECT = 0.5
#: Seconds after which a connection without traffic is asked for a sign of life, and for which that is waited for.
HEARTBEAT, PULSE = 5.0, 3.0
#: Statements that are under way at once for one call.
TOGETHER = 128

#: Seconds after which it is tried again whether a node can be asked, where nobody says that one can.
AGAIN = 0.1

Answer = list[dict[str, Any]] | NarrowboatError


class _Nodes(HostStateListener):  # type: ignore[misc]  # the library has no annotations
    """Wakes who waits for a node that can be asked."""

    def __init__(self) -> None:
        self.changed = threading.Condition()

    def on_up(self, host: object) -> None:
        with self.changed:
            self.changed.notify_all()

    on_add = on_up

    def on_down(self, host: object) -> None:
        pass

    on_remove = on_down


class Session:
    """See the module's text. Any thread may call anything. `timeout`: seconds for all that one call does."""

    def __init__(self, ring: Ring, timeout: float) -> None:
        self._ring = ring
        self._timeout = timeout
        self._mutex = threading.Lock()
        self._cluster: Cluster | None = None
        self._session: CqlSession | None = None
        self._prepared: dict[str, PreparedStatement] = {}
        self._nodes = _Nodes()
        self._closed = False
        self._pid = os.getpid()

    def ends(self) -> float:
        """When a call that begins now is over, by `time.monotonic`."""
        return time.monotonic() + self._timeout

    def run(self, steps: Sequence[Do], ends: float, *, doing: str) -> list[Answer]:
        """Do the steps, all at once. One answer for each; raises where there is no connection to send them over."""
        session = self._session or self._connect(ends)
        answers: list[Answer] = []
        for begin in range(0, len(steps), TOGETHER):
            part = steps[begin : begin + TOGETHER]
            sent = [self._send(session, step, ends) for step in part]
            answers += [self._answer(session, *each, ends, doing) for each in zip(part, sent, strict=True)]
        return answers

    def _statement(self, session: CqlSession, name: str) -> PreparedStatement:
        """The statement, prepared at its first use: many a program never needs the half of them."""
        found = self._prepared.get(name)
        if found is None:
            local = self._ring.options.consistency is Consistency.LOCAL_SERIAL
            serial = ConsistencyLevel.LOCAL_SERIAL if local else ConsistencyLevel.SERIAL
            quorum = ConsistencyLevel.LOCAL_QUORUM if local else ConsistencyLevel.QUORUM
            found = session.prepare(STATEMENTS[name].format(table=self._ring.table, here=HERE))
            found.consistency_level = serial if name in ("look", "show") else quorum
            found.serial_consistency_level = serial
            self._prepared[name] = found
        return found

    def _send(self, session: CqlSession, step: Do, ends: float) -> Any:
        left = ends - time.monotonic()
        if left <= 0:
            return OperationTimedOut(last_host="it was not asked, connecting took too long")
        try:
            return session.execute_async(self._statement(session, step.name), step.values, timeout=left)
        except Exception as error:  # values that do not fit, or a cluster that is being closed
            return error

    def _answer(self, session: CqlSession, step: Do, sent: Any, ends: float, doing: str) -> Answer:
        while True:
            if not isinstance(sent, Exception):
                try:
                    return list(sent.result())
                except Exception as error:  # whatever a library raises must not spoil the other members
                    sent = error
            if self._closed or not _was_not_asked(sent) or time.monotonic() + AGAIN >= ends:
                return translate(sent, self._ring, doing=doing)
            self._pause()
            sent = self._send(session, step, ends)

    def _pause(self) -> None:
        with self._nodes.changed:
            self._nodes.changed.wait(AGAIN)

    # -- connecting ---------------------------------------------------------------------------------------------------

    def _connect(self, ends: float) -> CqlSession:
        def late() -> Unavailable:
            text = f"{self._ring}: another call was still connecting after {self._timeout:g} s"
            return Unavailable(text, backend=self._ring.scheme, sent=False)

        with turn(self._mutex, ends - time.monotonic(), late):
            if self._closed:
                raise Closed("the provider is closed", backend=self._ring.scheme)
            if self._session is None:
                self._open(ends)
            assert self._session is not None
            return self._session

    def _open(self, ends: float) -> None:
        left = ends - time.monotonic()
        made = cluster(self._ring, max(0.05, left / len(self._ring.hosts)), max(0.05, left))
        library.keep_to_this_process(made)
        made.register_listener(self._nodes)
        try:
            try:
                session = made.connect()
                check_version(made, self._ring)
                self._find_table(session, ends)
                check_durability(session, made, self._ring)
            except Exception as error:
                raise translate(error, self._ring, doing="connecting") from error
        except BaseException:  # an interrupt as well: nobody else would end its threads
            self._prepared.clear()
            made.shutdown()
            raise
        self._cluster, self._session = made, session

    def _find_table(self, session: CqlSession, ends: float) -> None:
        """Prepare a statement: a table that is not ours is told at once, and one that is missing is made if the URL says so."""
        made = False
        while True:
            try:
                self._statement(session, "look")
                return
            except InvalidRequest as error:
                if not self._ring.options.create or "does not exist" not in str(error) or time.monotonic() + AGAIN >= ends:
                    raise
            if made:  # a node lists a table before it knows it
                self._pause()
            make(session, self._ring)
            made = True

    def close(self) -> None:
        """End the connections and the library's threads. Idempotent."""
        with self._mutex:
            self._closed = True
            made, self._cluster, self._session = self._cluster, None, None
        if made is not None and self._pid == os.getpid():
            made.shutdown()


def _was_not_asked(error: Exception) -> bool:
    """Whether the library knew no node that it could ask; a subclass would say that it broke while it was asked."""
    found = error.errors.values() if isinstance(error, NoHostAvailable) else [error]
    return all(type(each) in (ConnectionException, NoConnectionsAvailable) for each in found)


def cluster(ring: Ring, patience: float, timeout: float) -> Cluster:
    """The library's object for a ring, which has not connected yet."""
    options = ring.options
    secret = ring.secret.reveal() if ring.secret is not None else ""
    policy = DCAwareRoundRobinPolicy(local_dc=options.dc) if options.dc else RoundRobinPolicy()
    profile = ExecutionProfile(
        load_balancing_policy=policy,
        retry_policy=FallthroughRetryPolicy(),
        request_timeout=timeout,
        row_factory=dict_factory,
    )
    return Cluster(
        [host.host for host in ring.hosts],
        port=ring.hosts[0].port,
        protocol_version=PROTOCOL,
        connection_class=library.Connection,
        auth_provider=PlainTextAuthProvider(ring.user, secret) if ring.user is not None else None,
        ssl_context=options.context(backend=ring.scheme) if ring.tls else None,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        reconnection_policy=ConstantReconnectionPolicy(RECONNECT, max_attempts=None),
        connect_timeout=patience,
        control_connection_timeout=timeout,
        idle_heartbeat_interval=HEARTBEAT,
        idle_heartbeat_timeout=PULSE,
        schema_metadata_enabled=False,
        token_metadata_enabled=False,
        prepare_on_all_hosts=False,
        monitor_reporting_enabled=False,
        compression=False,
    )
