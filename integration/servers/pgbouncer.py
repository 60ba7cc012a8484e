"""PgBouncer in front of a PostgreSQL server of the tests, in transaction mode: it hands a connection on after each transaction.

with PgBouncer(server) as pooler:
    pooler.url        # the server's, with the pooler's port
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from integration.servers import plain_user, programs
from integration.servers.ports import LOOPBACK, free_port
from integration.servers.postgresql import PostgreSQLServer
from integration.servers.process import Process

#: Seconds until it listens.
START = 20.0


class PgBouncer:
    """One. `ignored`: parameters of a new connection that it drops; it refuses a connection that asks for others."""

    def __init__(self, server: PostgreSQLServer, *, ignored: str = "") -> None:
        self.port = free_port()
        self.url = server.url.replace(f":{server.port}/", f":{self.port}/")
        directory = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        users, told = directory / "users", directory / "pgbouncer.ini"
        users.write_text(f'"{server.user}" "{server.password}"\n')
        told.write_text(
            f"[databases]\n* = host={LOOPBACK} port={server.port}\n[pgbouncer]\nlisten_addr = {LOOPBACK}\n"
            f"listen_port = {self.port}\nunix_socket_dir =\nauth_type = plain\nauth_file = {users}\npool_mode = transaction\n"
            f"ignore_startup_parameters = {ignored}\n"
        )
        plain_user.own(directory)
        found = programs.find("pgbouncer", "pgbouncer")
        path, env = found.path, dict(found.env)
        if env:  # it is in the cache
            root = path.parent.parent.parent
            there = plain_user.reached(root)
            path, env = there / path.relative_to(root), {"LD_LIBRARY_PATH": programs.library_path(there)}
        self._log = directory / "output.log"
        self._process = Process([*plain_user.command(), str(path), str(told)], log=self._log, env={**os.environ, **env})

    def __enter__(self) -> Self:
        self._process.start()
        ends = time.monotonic() + START
        while True:
            try:
                socket.create_connection((LOOPBACK, self.port), timeout=1).close()
            except OSError as error:
                if time.monotonic() >= ends or not self._process.alive:
                    raise RuntimeError(f"PgBouncer does not listen: {self._log.read_text()[-2000:]}") from error
                time.sleep(0.02)
            else:
                return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
