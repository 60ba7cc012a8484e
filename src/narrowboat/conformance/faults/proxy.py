"""A TCP proxy on loopback that misbehaves when it is told to: what a network does to a connection.

    with Proxy("127.0.0.1", 6379) as proxy:
        client.connect(*proxy.address)
        proxy.reset()               # every connection gets a RST; new ones pass
        proxy.refuse()              # and new ones are refused, until heal()
        proxy.black_hole()          # no byte passes and no end is told; what was sent arrives after heal()
        proxy.slow(latency=0.2, piece=1, rate=65536)
        proxy.drop_request()        # the next request is lost, and its connection with it
        proxy.drop_reply()          # the next request arrives; its reply is lost, and the connection with it

It stands in front of one server address and serves any number of connections from one thread. Each method has taken
effect when it returns, and may be called from any thread. The proxy knows no protocol: a "request" is what a client sends in
one piece. It does not decrypt TLS. A server that tells its clients another address is out of its reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

_CHUNK = 65536
#: Seconds for a control call to take effect. It only hands work to a loop that never blocks.
_PATIENCE = 10.0


@dataclasses.dataclass
class _Way:
    """One direction of all connections. It is open while the event is set."""

    open: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    latency: float = 0.0
    piece: int = 0
    rate: float = 0.0


@dataclasses.dataclass
class _Drop:
    """A request that is to be lost, or one whose reply is."""

    reply: bool
    keep: int = 0  #: bytes of the reply that arrive


class _Link:
    """The connection of one client, and the proxy's own to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.doomed: _Drop | None = None  # the next reply is to be lost
        self.dead = False

    def reset(self) -> None:
        """Send a RST to both ends."""
        self.dead = True
        for writer in (self.client, self.server):
            _reset(writer)


class Proxy:
    """See the module's text. Listens from the start on `address`; close it, or use it in a `with`."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._links: set[_Link] = set()
        self._drops: list[_Drop] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._port = 0
        self.accepted = 0  #: connections that were opened through it, ever
        self.dropped = 0  #: requests and replies that were lost on demand
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="conformance-proxy", daemon=True)
        self._thread.start()
        self._up, self._down = _Way(), _Way()
        self.heal()

    @property
    def address(self) -> tuple[str, int]:
        """The address to connect to instead of the server's."""
        return ("127.0.0.1", self._port)

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return self._do(lambda: len(self._links))

    # -- what can go wrong ----------------------------------------------------------------------------------------

    def reset(self) -> int:
        """Send a RST on every connection, as when a firewall forgets it. Returns how many there were. New ones pass."""

        def cut() -> int:
            links = tuple(self._links)
            for link in links:
                link.reset()
            return len(links)

        return self._do(cut)

    def refuse(self) -> None:
        """Refuse new connections until `heal`. Those that are open stay."""
        self._run(self._deaf())

    def black_hole(self, *, up: bool = True, down: bool = True) -> None:
        """Let nothing pass to the server (`up`) and to the clients (`down`) until `heal`. No end is told."""

        def close() -> None:
            if up:
                self._up.open.clear()
            if down:
                self._down.open.clear()

        self._do(close)

    def slow(self, *, latency: float = 0.0, piece: int = 0, rate: float = 0.0) -> None:
        """Each way takes `latency` seconds more, in pieces of `piece` bytes, at `rate` bytes a second. 0 is no limit."""

        def apply() -> None:
            for way in (self._up, self._down):
                way.latency, way.piece, way.rate = latency, piece, rate

        self._do(apply)

    def drop_request(self) -> None:
        """The next request never reaches the server. Its connection gets a RST."""
        self._do(lambda: self._drops.append(_Drop(reply=False)))

    def drop_reply(self, *, keep: int = 0) -> None:
        """The next request reaches the server. Of its reply only `keep` bytes arrive, then a RST."""
        self._do(lambda: self._drops.append(_Drop(reply=True, keep=keep)))

    def heal(self) -> None:
        """End all faults: what was held back arrives, nothing more is dropped, connections are accepted."""

        def well() -> None:
            self._drops.clear()
            self._up.open.set()
            self._down.open.set()

        self.slow()
        self._do(well)
        self._run(self._listen())

    def close(self) -> None:
        """Give up the port and every connection. Idempotent."""
        if self._thread.is_alive():
            self._run(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_PATIENCE)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Proxy {self._port} to {self._upstream[0]}:{self._upstream[1]}>"

    # -- on its own thread ----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)

    def _do(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._run(call())

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self._port, reuse_address=True)
            self._port = self._listener.sockets[0].getsockname()[1]

    async def _deaf(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _end(self) -> None:
        await self._deaf()
        for link in tuple(self._links):
            link.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)  # or the end would not wait for one that is just connecting
        try:
            await self._forward(reader, client)
        except asyncio.CancelledError:
            _reset(client)
        finally:
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            back, server = await asyncio.open_connection(*self._upstream)
        except OSError:
            _reset(client)
            return
        link = _Link(client, server)
        self._links.add(link)
        ways = (self._pump(link, reader, server, self._up), self._pump(link, back, client, self._down))
        tasks = [asyncio.create_task(way) for way in ways]
        self._tasks.update(tasks)
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._links.discard(link)
            self._tasks.difference_update(tasks)
            for writer in (client, server):
                writer.close()

    async def _pump(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Way) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if way.latency:
                    await asyncio.sleep(way.latency)
                await way.open.wait()
                if not link.dead:
                    if way is self._up:
                        data = self._upwards(link, data)
                    elif link.doomed is not None:
                        data = data[: link.doomed.keep]
                    await _send(writer, data, way)
                if link.doomed is not None and way is self._down:
                    link.reset()
                if link.dead:
                    return
            await way.open.wait()
            if writer.can_write_eof() and not link.dead:
                writer.write_eof()

    def _upwards(self, link: _Link, data: bytes) -> bytes:
        """What of a request goes on to the server. A planned drop strikes here, unless the link loses a reply already."""
        if not self._drops or link.doomed is not None:
            return data
        drop = self._drops.pop(0)
        self.dropped += 1
        if drop.reply:
            link.doomed = drop
            return data
        link.reset()
        return b""


async def _send(writer: asyncio.StreamWriter, data: bytes, way: _Way) -> None:
    piece = way.piece or len(data) or 1
    for start in range(0, len(data), piece):
        part = data[start : start + piece]
        writer.write(part)
        await writer.drain()
        if way.rate:
            await asyncio.sleep(len(part) / way.rate)
        elif way.piece:
            await asyncio.sleep(0)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other end gets a RST and no FIN."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
