"""The only file that speaks to pyzmq: sockets as this backend needs them, and what their monitors say.

Every name that is used is documented by pyzmq. What is not promised anywhere, and which the contract test tries: after
`RECONNECT_IVL=-1` a socket makes one connection in its life and resends nothing; a monitor tells the end of that connection; a
`ROUTER` with `ROUTER_MANDATORY` says so when a peer's buffer is full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import zmq
import zmq.utils.monitor
import zmq.utils.z85

from narrowboat.dsn import Secret
from narrowboat_zeromq.keys import Pair
from narrowboat_zeromq.protocol.frames import FRAME_MAX

#: Messages that wait in a socket, in each direction and for each peer, before it takes no more.
HIGH_WATER = 1000
#: Milliseconds that a handshake may take: a port that says nothing is given up then.
_HANDSHAKE = 5_000

Again = zmq.Again
Error = zmq.ZMQError
READABLE, WRITABLE = zmq.POLLIN, zmq.POLLOUT


class Unroutable(Exception):
    """A peer cannot be sent to. `gone`: its connection has ended; otherwise it does not read, and its buffer is full."""

    def __init__(self, gone: bool) -> None:
        super().__init__(gone)
        self.gone = gone


def _settle(socket: zmq.Socket[bytes]) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER)
    socket.setsockopt(zmq.MAXMSGSIZE, FRAME_MAX)
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE)


class Wire:
    """A client's socket: one connection, and when it ends the wire is of no use any more."""

    def __init__(self, context: zmq.Context[Any], address: str, *, server: str | None, own: Pair | None) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._monitor = self._socket.get_monitor_socket()
        self._poller = zmq.Poller()
        try:
            _settle(self._socket)
            self._socket.setsockopt(zmq.IPV6, 1)
            self._socket.setsockopt(zmq.IMMEDIATE, 1)
            self._socket.setsockopt(zmq.RECONNECT_IVL, -1)  # what it holds would be sent again to another server's process
            if server is not None and own is not None:
                self._socket.curve_serverkey = server.encode("ascii")
                self._socket.curve_publickey = own.public.encode("ascii")
                self._socket.curve_secretkey = own.secret.reveal().encode("ascii")
            self._poller.register(self._socket, zmq.POLLIN)
            self._poller.register(self._monitor, zmq.POLLIN)
            self._socket.connect(address)
        except BaseException:  # an interrupt as well: a socket that is left open holds up the end of the program
            self.close()
            raise

    def listen(self, nudge: Any) -> None:
        """Let what rings end a wait."""
        self._poller.register(nudge, zmq.POLLIN)

    def wait(self, seconds: float, *, writing: bool) -> None:
        """Until something came, or `seconds` are over. `writing`: or until more can be sent."""
        self._poller.register(self._socket, zmq.POLLIN | (zmq.POLLOUT if writing else 0))
        self._poller.poll(max(0, int(seconds * 1000 + 0.999)))

    def news(self) -> list[str]:
        """What the monitor has said: "ready", "denied", "foreign", "ended"."""
        told: list[str] = []
        while True:
            try:
                event = zmq.utils.monitor.recv_monitor_message(self._monitor, zmq.NOBLOCK)
            except zmq.Again:
                return told
            if (word := _NEWS.get(event["event"])) is not None:
                told.append(word)

    def receive(self) -> list[bytes] | None:
        """One message; None where there is none."""
        try:
            frames: list[bytes] = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return frames

    def send(self, frames: Sequence[bytes]) -> bool:
        """False: its buffer is full."""
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy=_small(frames))
        except zmq.Again:
            return False
        return True

    def close(self, *, linger: int = 0) -> None:
        """Give it back; what was sent may still go out for `linger` milliseconds."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._socket.close(linger)
            self._monitor.close(0)  # or its context never ends


def _small(frames: Sequence[bytes]) -> bool:
    """Whether copying is cheaper than keeping them until they are written."""
    return all(len(frame) < 65536 for frame in frames)


_NEWS = {
    zmq.EVENT_HANDSHAKE_SUCCEEDED: "ready",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "denied",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "foreign",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "ended",  # a connection that was cut meanwhile says no more
    zmq.EVENT_DISCONNECTED: "ended",
    zmq.EVENT_CLOSED: "ended",
}


class Hub:
    """A server's socket, and beside it the one on which ZeroMQ asks whether a client's key is known."""

    def __init__(self, address: str, own: Pair | None, known: Callable[[str], bool]) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._context.setsockopt(zmq.MAX_SOCKETS, 64)
        self._socket = self._context.socket(zmq.ROUTER)
        self._door = self._context.socket(zmq.REP)
        self._known = known
        self._poller = zmq.Poller()
        try:
            _settle(self._socket)
            self._socket.setsockopt(zmq.IPV6, int("[" in address))
            self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            self._socket.setsockopt(zmq.BACKLOG, 1024)
            if own is not None:
                self._door.bind("inproc://zeromq.zap.01")
                self._poller.register(self._door, zmq.POLLIN)
                self._socket.curve_server = True
                self._socket.curve_secretkey = own.secret.reveal().encode("ascii")
                self._socket.curve_publickey = own.public.encode("ascii")
                self._socket.zap_domain = b"narrowboat"
            self._socket.bind(address)
            self._poller.register(self._socket, zmq.POLLIN)
        except BaseException:  # an interrupt as well: a socket that is left open holds up the end of the program
            self.close()
            raise

    @property
    def address(self) -> str:
        """Where it listens."""
        return str(self._socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def listen(self, nudge: Any) -> None:
        """Let what rings end a wait."""
        self._poller.register(nudge, zmq.POLLIN)

    def wait(self, seconds: float) -> None:
        """Until something came, or `seconds` are over. Who knocks is let in or not."""
        for found, _ in self._poller.poll(max(0, int(seconds * 1000 + 0.999))):
            if found is self._door:
                self._answer()

    def receive(self) -> list[bytes] | None:
        """One message, with its sender before it; None where there is none."""
        try:
            frames: list[bytes] = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return frames

    def send(self, peer: bytes, frames: Sequence[bytes]) -> None:
        """`Unroutable` where the peer is gone or does not read."""
        try:
            self._socket.send_multipart([peer, *frames], zmq.NOBLOCK, copy=_small(frames))
        except zmq.ZMQError as error:
            raise Unroutable(error.errno == zmq.EHOSTUNREACH) from error

    def close(self, *, linger: int = 0) -> None:
        """Give it back; what was sent may still go out for `linger` milliseconds."""
        self._socket.close(linger)
        self._door.close(0)
        self._context.term()

    def _answer(self) -> None:
        """ZAP: RFC 27 of ZeroMQ."""
        try:
            version, request, *_, key = self._door.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        allowed = len(key) == _KEY and self._known(zmq.utils.z85.encode(key).decode("ascii"))
        status = (b"200", b"OK", b"client", b"") if allowed else (b"400", b"unknown key", b"", b"")
        self._door.send_multipart([version, request, *status])


#: Bytes of a key.
_KEY = 32


def context() -> zmq.Context[Any]:
    """A client's own context: its thread ends with it."""
    return zmq.Context()


def new_pair() -> Pair:
    """Two new keys."""
    public, secret = zmq.curve_keypair()
    return Pair(public.decode("ascii"), Secret(secret.decode("ascii")))
