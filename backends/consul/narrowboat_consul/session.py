"""The one session of a provider: made at the first lock, kept fresh, destroyed at the end.

It has no health checks: with Consul's default one, a flap of the gossip drops every lock of the node. Its locks are deleted
when it ends (`Behavior=delete`). Consul counts its ttl from the last renewal that reached the leader. It ends a session after
one to two ttls, never earlier.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

from narrowboat.errors import NarrowboatError
from narrowboat_consul.errors import nonsense, refused
from narrowboat_consul.options import Agent
from narrowboat_consul.replies import session_id
from narrowboat_consul.transport import Limit, Transport

#: Seconds. A lock is attempted only on a session that was renewed within this time. Validity is counted from the attempt and
#: the session's life from its renewal, so the difference is a part of the claimed margin. Shorter costs more renewals.
SLACK = 1.0


class Session:
    """See the module's text. Its calls have a connection of their own, so that a 429 for other calls does not end it."""

    def __init__(self, agent: Agent, limit: Limit, clock: Callable[[], float], doubt: Callable[[str | None], None]) -> None:
        self._agent = agent
        self._clock = clock
        self._doubt = doubt
        self._transport = Transport(agent, limit)
        self._mutex = threading.Lock()
        self._id: str | None = None
        self._renewed = 0.0

    @property
    def id(self) -> str | None:
        """The present one; None before the first lock, and after the loss of one until the next."""
        return self._id

    def fresh(self) -> str:
        """The id of a session that was renewed within `SLACK` seconds: the present one, or a new one."""
        with self._mutex:
            if self._id is None or (self._clock() - self._renewed > SLACK and not self._renew(self._id)):
                sent = self._clock()
                self._id = self._create()
                self._renewed = sent
            return self._id

    def renew(self) -> str | None:
        """Renew the session for a full ttl from now on. None: it has ended, and all its locks are gone."""
        with self._mutex:
            return self._id if self._id is not None and self._renew(self._id) else None

    def forget(self, identity: str) -> None:
        """Drop a session that has ended: the next call makes a new one."""
        with self._mutex:
            if self._id == identity:
                self._end()

    def close(self) -> None:
        """Destroy the session, so that nothing of it is left in Consul. If the agent does not answer, it ends by its ttl."""
        with self._mutex:
            identity, self._id = self._id, None
        try:
            if identity is not None:
                self._transport.call("PUT", f"/v1/session/destroy/{identity}")
        except NarrowboatError:  # its ttl ends it
            pass
        finally:
            self._transport.close()

    def _renew(self, identity: str) -> bool:
        sent = self._clock()
        reply = self._transport.call("PUT", f"/v1/session/renew/{identity}")
        if reply.code == 404:
            self._end()
            return False
        if reply.code != 200:
            raise refused(reply.code, reply.body, self._agent)
        self._renewed = sent
        return True

    def _end(self) -> None:
        """The session and all its locks have ended: tell the holders now, before their next renewal."""
        self._id = None
        self._doubt(None)

    def _create(self) -> str:
        options = self._agent.options
        asked = {
            "Name": "narrowboat",
            "Checks": [],
            "LockDelay": f"{options.lock_delay}s",
            "Behavior": "delete",
            "TTL": f"{options.session_ttl}s",
        }
        reply = self._transport.call("PUT", "/v1/session/create", body=json.dumps(asked).encode())
        if reply.code != 200:
            raise refused(reply.code, reply.body, self._agent)
        try:
            return session_id(reply.body)
        except ValueError as error:
            raise nonsense(self._agent, f"{error} for a new session") from error
