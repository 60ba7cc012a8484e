"""The server's one thread: it reads what has gathered, does what is of one kind together, and answers.

While a commit is under way the next requests gather in the socket, so that many callers cost few commits and no caller waits
for one that is not his. A client is known by its session, and speaks by one connection: what comes by an older one is refused,
since a newer greeting has been answered. A client that says nothing for `SILENCE` seconds, or reads nothing, is given up with
its feeds.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from narrowboat.driver.serving import Served
from narrowboat.driver.waking import Nudge
from narrowboat.errors import ConfigurationError
from narrowboat_zeromq.library import Hub, Unroutable
from narrowboat_zeromq.protocol.faults import to_wire
from narrowboat_zeromq.protocol.frames import ID_MAX, VERSION, Malformed, pack, unpack
from narrowboat_zeromq.server.ask import Ask
from narrowboat_zeromq.server.desk import ORDER, Desk
from narrowboat_zeromq.server.desks import Desks
from narrowboat_zeromq.server.session import Session

logger = logging.getLogger("narrowboat.zeromq")

#: Seconds without a word from a client after which it is given up. It says one every 5 s.
SILENCE = 15.0
#: Messages that are read before what they ask for is done.
BURST = 512
#: Sessions at once.
SESSIONS_MAX = 10_000
_TOKEN = re.compile("[0-9a-f]{32}")
_CONNECTION_MAX = 2**53
_BEAT = [b'[0,"beat"]']


class Router:
    """See the module's text. `run` is the thread; `stop` may come from a signal's handler."""

    def __init__(self, hub: Hub, served: Served) -> None:
        self._hub = hub
        self._desks = Desks(served)
        self._sessions: dict[str, Session[Desk]] = {}
        self._peers: dict[bytes, Session[Desk]] = {}
        self._rung: deque[Session[Desk]] = deque()
        self._nudge = Nudge()
        self._nudged = False
        self._thread = 0
        self._stopping = False
        self._chores: deque[Callable[[], None]] = deque()
        self._swept = 0.0
        self.turned = time.monotonic()  #: when it last was through with everything
        self.counts: Counter[str] = Counter()
        hub.listen(self._nudge)

    @property
    def sizes(self) -> dict[str, int]:
        """What it has open, for the metrics."""
        feeds = sum(len(session.feeds) for session in list(self._sessions.values()))
        return {"sessions": len(self._sessions), "feeds": feeds, "namespaces": len(self._desks)}

    def stop(self) -> None:
        """Let `run` do what has arrived, say goodbye, and return."""
        self._stopping = True
        self._wake()

    def later(self, chore: Callable[[], None]) -> None:
        """Have `chore` done by the thread, between two bursts."""
        self._chores.append(chore)
        self._wake()

    def run(self) -> None:
        """Serve until `stop`."""
        self._thread = threading.get_ident()
        try:
            while not self._stopping:
                self._hub.wait(min(1.0, self._desks.next - time.monotonic()))
                if self._nudged:
                    self._nudged = False
                    self._nudge.hush()
                while self._chores:
                    self._chores.popleft()()
                self._turn()
            while self._turn():  # what has arrived is done, and answered
                pass
            for peer in list(self._peers):
                self._send(peer, [b'[0,"bye","the server ends"]'])
        finally:  # sessions are not ended: their clients go on with what they have at the server that comes next
            self._nudge.close()

    def _turn(self) -> int:
        burst = self._gather()
        if burst:
            self._perform(burst)
        self._desks.look(time.monotonic())
        self._push()
        self._sweep()
        self.turned = time.monotonic()
        return len(burst)

    def _gather(self) -> list[Ask]:
        burst: list[Ask] = []
        now = time.monotonic()
        for _ in range(BURST):
            frames = self._hub.receive()
            if frames is None:
                break
            peer = frames[0]
            try:
                ask = self._read(peer, frames[1:], now)
            except Malformed as error:
                self._refuse(peer, error)
            except Exception as error:  # refused, or a driver that could not be opened: nobody else is to notice
                self._send(peer, pack((0, "refused", to_wire(error))))
            else:
                if ask is not None:
                    burst.append(ask)
        return burst

    def _read(self, peer: bytes, frames: list[bytes], now: float) -> Ask | None:
        session = self._peers.get(peer)
        if session is not None:
            session.heard = now
            if frames == _BEAT:  # most of what comes where most clients are idle
                self._send(peer, _BEAT)
                return None
        head, bodies = unpack(frames)
        match head:
            case [0, "beat"] if session is not None:
                self._send(peer, _BEAT)
            case [0, "hello", version, *rest]:
                self._greet(peer, version, rest, now)
            case [0, "bye"]:
                if session is not None:
                    self._end(session)
            case [int() as id, str() as op, *args] if 0 < id <= ID_MAX and type(id) is int:
                if session is None:
                    raise Malformed(
                        "a request by a connection that has not greeted, or that a newer one of its session replaced"
                    )
                if not session.desk.knows(op):
                    self._send(peer, pack((id, *to_wire(_unknown(op)))))
                    return None
                return Ask(session, id, op, args, bodies)
            case _:
                raise Malformed("the head is neither a greeting nor [id, request, ...]")
        return None

    def _refuse(self, peer: bytes, error: Malformed) -> None:
        self.counts["refused"] += 1
        logger.warning("a message of a client was refused: %s", error)
        self._send(peer, pack((0, "refused", to_wire(ConfigurationError(f"the message was refused: {error}")))))

    # -- sessions ---------------------------------------------------------------------------------------------------

    def _greet(self, peer: bytes, version: object, rest: list[Any], now: float) -> None:
        if version != VERSION:
            shown = str(version)[:20]
            raise ConfigurationError(
                f"this server speaks version {VERSION} of the protocol, and the client greeted with version {shown}: upgrade "
                "whichever is older"
            )
        if len(rest) != 1 or not isinstance(rest[0], dict):
            raise Malformed("a greeting has a version and an object")
        said = rest[0]
        token, connection = said.get("session"), said.get("connection")
        if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
            raise Malformed("session: 32 hexadecimal digits are allowed")
        if type(connection) is not int or not 0 < connection < _CONNECTION_MAX:
            raise Malformed("connection: a whole number is allowed")
        session = self._sessions.get(token)
        resumed = session is not None
        if session is None:
            if len(self._sessions) >= SESSIONS_MAX:
                raise ConfigurationError(f"the server has {SESSIONS_MAX} clients, which is as many as it may have")
            session = self._sessions[token] = Session(token, self._desks.take(said), self._ring)
        elif connection <= session.connection:
            raise Malformed("connection: the session has a newer one")
        self._peers.pop(session.peer, None)  # from now on nothing is taken by it
        session.peer, session.connection, session.heard = peer, connection, now
        self._peers[peer] = session
        self._send(peer, pack((0, "welcome", {"version": VERSION, "resumed": resumed, "silence": SILENCE})))

    def _end(self, session: Session[Desk]) -> None:
        self._sessions.pop(session.token, None)
        self._peers.pop(session.peer, None)
        session.desk.forget(session)
        self._desks.leave(session.desk)

    def _sweep(self) -> None:
        now = time.monotonic()
        gap = now - self._swept
        if gap < 1.0:
            return
        self._swept = now
        if gap > SILENCE / 2:  # we stood still, and what the clients said meanwhile is not read yet
            for session in self._sessions.values():
                session.heard = now
        for session in [each for each in self._sessions.values() if now - each.heard > SILENCE]:
            self.counts["missed"] += 1
            self._end(session)

    # -- requests ---------------------------------------------------------------------------------------------------

    def _perform(self, burst: list[Ask]) -> None:
        gathered: dict[tuple[str, Desk], list[Ask]] = {}
        single: list[Ask] = []
        for ask in burst:
            self.counts[ask.op] += 1
            if ask.op in ORDER:
                gathered.setdefault((ask.op, ask.session.desk), []).append(ask)
            else:
                single.append(ask)
        for (op, desk), asks in sorted(gathered.items(), key=_place):
            desk.gathered(op, asks)
            for ask in asks:
                self._send(ask.session.peer, ask.answer)
        for ask in single:
            ask.session.desk.single(ask)
            self._send(ask.session.peer, ask.answer)

    def _send(self, peer: bytes, frames: list[bytes]) -> None:
        try:
            self._hub.send(peer, frames)
        except Unroutable as error:
            session = self._peers.get(peer)
            if session is not None and not error.gone:  # one whose connection has ended may come again
                logger.warning("a client does not read its answers, and is given up")
                self._end(session)

    # -- wakes ------------------------------------------------------------------------------------------------------

    def _ring(self, session: Session[Desk]) -> None:
        """From any thread: the session has somebody to wake."""
        self._rung.append(session)
        if threading.get_ident() != self._thread:
            self._wake()

    def _wake(self) -> None:
        self._nudged = True  # first: the thread hushes before it looks at what there is
        self._nudge.ring()

    def _push(self) -> None:
        while self._rung:
            session = self._rung.popleft()
            wakes = session.take_wakes()
            if wakes and self._sessions.get(session.token) is session:
                session.desk.woken(session, wakes)
                self._send(session.peer, pack((0, "wake", wakes)))


def _place(each: tuple[tuple[str, Desk], list[Ask]]) -> int:
    return ORDER.index(each[0][0])


def _unknown(op: str) -> ConfigurationError:
    return ConfigurationError(f"this server knows no request {op[:40]!r} for that half; upgrade it, or the client")
