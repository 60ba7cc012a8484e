"""One driver's way to its server: a socket that belongs to one I/O thread, and any number of callers who ask over it.

A connection begins with a greeting, which says who we are (a session of our own making, its how-manieth connection this is) and
what we stand on. What the server has not taken from an older connection of the session by then, it never takes: so a request
whose outcome is unknown cannot land behind what was asked after it. A connection that ends is begun anew, with pauses. Requests
that were sent on it have an unknown outcome; those that were not wait for the next one, or learn why there is none.

It knows neither locks nor messages: `woken` hears whom the server wakes, and is told None when wakes may have been lost.
"""

from __future__ import annotations

import functools
import itertools
import logging
import select
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from narrowboat.driver.endpoint import Endpoint
from narrowboat.driver.threads import LazyThread
from narrowboat.driver.waking import Nudge
from narrowboat.errors import AccessDenied, NarrowboatError, Unavailable
from narrowboat_zeromq import errors
from narrowboat_zeromq.client.call import Call
from narrowboat_zeromq.keys import Pair
from narrowboat_zeromq.options import SCHEME
from narrowboat_zeromq.protocol.faults import from_wire
from narrowboat_zeromq.protocol.frames import VERSION, Bodies, Malformed, pack, unpack

if TYPE_CHECKING:
    from narrowboat_zeromq.library import Wire

#: Requests that are out at once. More wait here, in their callers' order.
MOST_OUT = 500
#: Seconds between two signs of life, and without one from the server after which the connection is given up.
BEAT, SILENCE = 5.0, 15.0
#: Seconds before a connection is tried again: the first pause, and the longest.
_PAUSE_FIRST, _PAUSE_LAST = 0.05, 1.0
#: Milliseconds for which the last messages may still go out when the driver closes.
_LINGER = 200

logger = logging.getLogger("narrowboat.zeromq")


class Link:
    """See the module's text. Any thread may call `ask` and `tell`; the rest of its state is the I/O thread's."""

    def __init__(
        self,
        endpoint: Endpoint,
        keys: tuple[str, Pair] | None,
        greeting: Mapping[str, Any],
        timeout: float,
        woken: Callable[[Sequence[Any] | None], None],
    ) -> None:
        self.where = str(endpoint)
        self.generation = 0  #: grows when the server has forgotten what it kept of our session
        self._host, self._port = endpoint.hosts[0]
        self._keys = keys
        self._greeting = greeting
        self.timeout = timeout
        self._woken = woken
        self._ids = itertools.count(1)
        self._outbox: deque[Call] = deque()
        self._out: dict[int, Call] = {}
        self._nudge = Nudge()
        self._rung = False
        self._thread = LazyThread(f"narrowboat-{SCHEME}-io", self._run, wake=self._nudge.ring)
        self._context: Any = None
        self._wire: Wire | None = None
        self._state = "away"  #: away, connecting, greeting, ready
        self._connection = 0
        self._heard = self._beaten = 0.0
        self._until = 0.0  #: when what the state waits for must have come
        self._next = 0.0  #: when a connection may be tried
        self._tried = -1.0
        self._pause = _PAUSE_FIRST
        self._full = False
        self._suspect = -1.0

    # -- the callers' side ------------------------------------------------------------------------------------------

    def ends(self) -> float:
        """The deadline of a call that begins now, by `time.monotonic`."""
        return time.monotonic() + self.timeout

    def ask(
        self,
        op: str,
        *args: Any,
        bodies: Sequence[bytes] = (),
        late: Callable[[list[Any]], None] | None = None,
        ends: float | None = None,
    ) -> tuple[Any, Bodies]:
        """Send a request and wait for its answer. Raises what the server answered, or `Unavailable`.

        `ends`: the call's deadline, where it has used a part of its time already.
        `late` gets the answer where it comes when its caller has gone; it may run on the I/O thread, and must not wait.
        """
        id = next(self._ids)
        call = Call(id, op, pack((id, op, *args), bodies), late=late)
        self._post(call)
        try:
            if not call.wait(self.timeout if ends is None else ends - time.monotonic()):
                raise self._given_up(call, self.timeout)
        except BaseException:  # an interrupt as well: the answer that still comes is nobody's
            call.left = True
            if call.given and call.why is None and late is not None:  # it came in the last moment
                late(call.value)
            raise
        if call.why is not None:
            raise call.why()
        answer, found = call.value, call.bodies
        assert found is not None
        if len(answer) == 2 and answer[0] == "ok":
            return answer[1], found
        if answer == ["forgotten"]:
            raise errors.Forgotten(f"{self.where}: the server has forgotten this consumer", backend=SCHEME, sent=False)
        raise from_wire(answer)

    def tell(self, op: str, *args: Any) -> None:
        """Send a request whose answer nobody waits for; where there is no connection, it is dropped."""
        if self._state == "ready":
            id = next(self._ids)
            self._post(Call(id, op, pack((id, op, *args)), quiet=True))

    def close(self, timeout: float) -> None:
        """End the thread and the connection. Idempotent."""
        self._thread.end(timeout)
        self._nudge.close()

    def _post(self, call: Call) -> None:
        self._outbox.append(call)
        try:
            self._thread.start()
        except RuntimeError as error:
            call.left = True
            raise Unavailable(
                f"{self.where}: no thread can be started for its connection ({error}); nothing was sent",
                backend=SCHEME,
                sent=False,
            ) from error
        if not self._rung:
            self._rung = True
            self._nudge.ring()

    def _given_up(self, call: Call, seconds: float) -> NarrowboatError:
        if call.sent:
            self._suspect = call.sent_at  # if nothing at all came since, the connection is dead
            self._nudge.ring()
            return errors.unanswered(self.where, call.what, seconds)
        if self._state == "greeting":
            return errors.silent(self.where, seconds)
        if self._state == "ready":
            return errors.not_sent(self.where, call.what, seconds)
        return errors.unreached(self.where, self._host, self._port, seconds)

    # -- the I/O thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        from narrowboat_zeromq import library

        self._context = library.context()
        try:
            while not self._thread.ended:
                try:
                    self._turn()
                except Exception:
                    logger.exception("an error on the I/O thread; its connection begins anew")
                    self._lose("an error ended the connection")
                    self._next = time.monotonic() + _PAUSE_LAST
        finally:
            self._leave()

    def _turn(self) -> None:
        now = time.monotonic()
        if self._wire is None:
            if self._wanted(now):
                self._connect(now)
            else:
                self._idle(now)
            return
        wire = self._wire
        wire.wait(self._patience(now), writing=self._full)
        if self._rung:
            self._nudge.hush()
            self._rung = False
        if self._state == "ready":
            self._read(wire)
            self._flush(wire)
        if self._wire is wire:
            for word in wire.news():
                self._hear(word)
        if self._state == "greeting":
            self._read(wire)
        self._look()

    def _wanted(self, now: float) -> bool:
        return now >= self._next or (bool(self._outbox) and now >= self._tried + _PAUSE_FIRST)

    def _idle(self, now: float) -> None:
        """Wait where there is no connection."""
        until = self._tried + _PAUSE_FIRST if self._outbox else self._next
        poll = select.poll()
        poll.register(self._nudge, select.POLLIN)
        poll.poll(max(1, int((until - now) * 1000)))
        self._nudge.hush()
        self._rung = False

    def _patience(self, now: float) -> float:
        if self._state != "ready":
            return max(0.0, min(self._until - now, 1.0))
        return max(0.0, min(self._beaten + BEAT, self._heard + SILENCE) - now)

    def _connect(self, now: float) -> None:
        from narrowboat_zeromq.library import Wire

        self._tried = now
        server, own = self._keys or (None, None)
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            self._wire = Wire(self._context, f"tcp://{host}:{self._port}", server=server, own=own)
        except OSError as error:  # pyzmq's is one: a name that cannot be resolved, no file descriptor left
            self._fail(_unreachable(self.where, error))
            return
        self._wire.listen(self._nudge)
        self._state = "connecting"
        self._until = now + self.timeout

    def _hear(self, word: str) -> None:
        """What the monitor told."""
        if word == "ready" and self._state == "connecting":
            self._connection += 1
            self._state = "greeting"
            assert self._wire is not None
            self._wire.send(pack((0, "hello", VERSION, {**self._greeting, "connection": self._connection})))
        elif word == "denied" and self._wire is not None:
            key = self._keys[1].public if self._keys else ""
            self._fail(lambda: AccessDenied(errors.denied(self.where, key), backend=SCHEME))
        elif word == "foreign" and self._wire is not None:
            self._fail(lambda: errors.no_zmtp(self.where, self._keys is not None))
        elif word == "ended" and self._wire is not None:
            if self._state == "connecting":
                self._fail(lambda: errors.unreached(self.where, self._host, self._port, self.timeout))
            else:
                self._lose("the connection ended")

    def _read(self, wire: Wire) -> None:
        while self._wire is wire and (frames := wire.receive()) is not None:
            self._heard = time.monotonic()
            try:
                head, bodies = unpack(frames)
                self._take(head, bodies)
            except Malformed as error:
                self._fail(functools.partial(errors.greeted_wrongly, self.where, str(error)))

    def _take(self, head: list[Any], bodies: Bodies) -> None:
        id = head[0]
        if id != 0:
            call = self._out.pop(id, None) if type(id) is int else None
            if call is not None and call.left and call.late is not None:
                call.late(head[1:])
            elif call is not None:
                call.give(head[1:], bodies)
            return
        match head[1:]:
            case ["wake", list() as whom]:
                self._woken(whom)
            case ["welcome", dict() as said] if self._state == "greeting":
                self._welcomed(said)
            case ["refused", refusal]:
                self._fail(lambda: from_wire(refusal))
            case ["bye", *_]:
                self._lose("the server ended")
            case ["beat"]:
                pass
            case other:
                if self._state == "greeting":
                    self._fail(lambda: errors.greeted_wrongly(self.where, other))

    def _welcomed(self, said: Mapping[str, Any]) -> None:
        self._state = "ready"
        self._pause = _PAUSE_FIRST
        self._beaten = self._heard
        if said.get("resumed") is not True:
            self.generation += 1
        if self._connection > 1:
            self._woken(None)
        assert self._wire is not None
        self._flush(self._wire)

    def _flush(self, wire: Wire) -> None:
        """Send what waits, as much as the server is to have at once."""
        outbox, out = self._outbox, self._out
        self._full = False
        while outbox and len(out) < MOST_OUT and self._wire is wire:
            call = outbox[0]
            if call.left and not call.quiet:
                outbox.popleft()
                continue
            if not wire.send(call.frames):
                self._full = True
                return
            outbox.popleft()
            call.sent, call.sent_at, call.frames = True, time.monotonic(), ()
            out[call.id] = call

    def _look(self) -> None:
        """What the time has come for."""
        now = time.monotonic()
        if self._wire is None:
            return
        if self._state != "ready":
            if now >= self._until:
                greeted = self._state == "greeting"
                self._fail(
                    (lambda: errors.silent(self.where, self.timeout))
                    if greeted
                    else (lambda: errors.unreached(self.where, self._host, self._port, self.timeout))
                )
            return
        if now >= self._heard + SILENCE or self._suspect >= self._heard:
            self._lose("the server said nothing any more")
        elif now >= self._beaten + BEAT:
            self._beaten = now
            self._wire.send([b'[0,"beat"]'])
            for id in [id for id, call in self._out.items() if call.left and call.sent_at < now - SILENCE]:
                del self._out[id]

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        self._state = "away"
        self._suspect = -1.0
        if wire is not None:
            wire.close()

    def _lose(self, why: str) -> None:
        """The connection is gone: what was sent on it has an unknown outcome."""
        self._drop()
        self._next = 0.0
        lost, self._out = self._out, {}
        for call in lost.values():
            call.fail(lambda what=call.what: errors.broken(self.where, what, why))  # type: ignore[misc]  # a default

    def _fail(self, why: Callable[[], Exception]) -> None:
        """No connection can be made now: whoever waited for one since before it was tried is told."""
        self._lose("the connection ended")
        self._next = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _PAUSE_LAST)
        while self._outbox and self._outbox[0].born <= self._tried:
            self._outbox.popleft().fail(why)

    def _leave(self) -> None:
        if self._wire is not None:
            if self._state == "ready":
                self._flush(self._wire)
                self._wire.send([b'[0,"bye"]'])
            self._wire.close(linger=_LINGER)
            self._wire = None
        self._lose("it was closed")
        self._context.term()
        while self._outbox:
            self._outbox.popleft().fail(lambda: errors.not_sent(self.where, "a request", 0.0))


def _unreachable(where: str, error: OSError) -> Callable[[], Exception]:
    text = error.strerror or str(error)
    return lambda: Unavailable(f"{where}: no connection can be made ({text}); nothing was sent", backend=SCHEME, sent=False)
