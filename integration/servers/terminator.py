"""TLS in front of a server that has none, with any certificate: what a load balancer does, and does wrong.

    with Terminator(certificates, server.address) as address:
        narrowboat.locks("rediss://{}:{}".format(*address))

Only the handshake is its own; what comes through it goes to the server and back unchanged. A server that tells its clients
another address is out of its reach, unless the terminator stands at that one (`port`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from pathlib import Path
from types import TracebackType

from integration.servers.certificates import Certificates
from integration.servers.ports import LOOPBACK
from integration.servers.server import Address


class Terminator:
    """Listens while it is entered.

    Args:
        certificates: what it shows.
        server: where the bytes go.
        port: where it listens; a free one unless told.
        clients: ask for a client's certificate that an authority of this file has signed.
    """

    def __init__(self, certificates: Certificates, server: Address, *, port: int = 0, clients: Path | None = None) -> None:
        self._server = server
        self._port = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates.both)
        if clients is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(clients)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="terminator", daemon=True)
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Address:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        assert self._listener is not None
        return Address(*self._listener.sockets[0].getsockname()[:2])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _open(self) -> None:
        self._loop.set_exception_handler(lambda loop, context: None)  # handshakes that are refused are what it is for
        self._listener = await asyncio.start_server(self._accept, LOOPBACK, self._port, ssl=self._context)

    async def _close(self) -> None:
        assert self._listener is not None
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection(*self._server)
            await asyncio.gather(_pump(reader, there), _pump(back, writer))
        except OSError:
            pass  # one of the two has gone
        finally:
            for each in (writer, there):
                if each is not None:
                    each.close()
            self._tasks.discard(task)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
    sink.close()
