"""One exchange on one connection that does not block: connect, shake hands, send, receive.

It is for a thread with a selector and many open queries. That thread drops a query whose time is over. Each query has a
connection of its own, because Consul answers it minutes later.
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
from collections.abc import Callable

from narrowboat_consul import http
from narrowboat_consul.transport import Transport

log = logging.getLogger("narrowboat.consul")


class Query:
    """See the module's text. `ends`: when its time is over. `done` is called with the reply, or with None after a failure."""

    def __init__(self, transport: Transport, data: bytes, ends: float, done: Callable[[http.Reply | None], None]) -> None:
        self.ends = ends
        self.done = done
        self.events = selectors.EVENT_WRITE  #: what it waits for; a connection that was made can be written to
        self._transport = transport
        self._data = memoryview(data)  # a slice of it shows no more than the whole, which has the token in it
        self._incoming = transport.incoming()
        self._connected = self._shaken = False
        family, address = transport.peer()
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(address)

    def step(self) -> bool:
        """Go on as far as possible. True: the query is over, and `done` was called."""
        reply: http.Reply | None = None
        try:
            reply = self._advance()
            if reply is None:
                return False
        except ssl.SSLWantReadError:
            self.events = selectors.EVENT_READ
            return False
        except ssl.SSLWantWriteError:
            self.events = selectors.EVENT_WRITE
            return False
        except BlockingIOError:
            self.events = selectors.EVENT_WRITE if self._data else selectors.EVENT_READ
            return False
        except Exception:  # of the network, or of what came: this query is over, the thread goes on
            log.debug("a query failed", exc_info=True)
        self.socket.close()
        self.done(reply)
        return True

    def _advance(self) -> http.Reply | None:
        if not self._connected:
            problem = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if problem:
                raise OSError(problem, "connect")
            self._connected = True
            tls = self._transport.tls
            if tls is not None:
                host = self._transport.agent.hosts[0].host
                self.socket = tls.wrap_socket(self.socket, server_hostname=host, do_handshake_on_connect=False)
        if not self._shaken:
            if isinstance(self.socket, ssl.SSLSocket):
                self.socket.do_handshake()
            self._shaken = True
        while self._data:
            self._data = self._data[self.socket.send(self._data) :]
        while True:
            reply = self._incoming.take(self.socket.recv(65536))
            if reply is not None:
                return reply
