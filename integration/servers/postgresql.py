"""A PostgreSQL server for tests: a cluster of its own, with a user and a database for Narrowboat and a superuser beside them.

    with PostgreSQLServer(password="s3cret", tls=True) as server:
        narrowboat.broker(server.url)        # postgresqls://narrowboat:s3cret@127.0.0.1:23456/narrowboat?ca=/.../ca.pem
        server.client().execute("...")       # psycopg, as the superuser, for a look from outside

It does not sync to the disk unless told (`config={"fsync": "on"}`): what was answered is there after a kill -9 all the same,
because the machine goes on. PostgreSQL refuses to run as root; where the tests do, its processes are those of a plain user, who
cannot enter root's own cache: programs from there run from a copy.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from integration.servers import plain_user, programs
from integration.servers.certificates import Certificates
from integration.servers.ports import LOOPBACK
from integration.servers.process import Process
from integration.servers.server import Runner, Server, ServerFailed

#: The superuser, which tests use to look and to break things.
ADMIN, ADMIN_PASSWORD = "admin", "admin"


class PostgreSQLServer(Server):
    """One server.

    Args:
        directory, port, image: as for every `Server`.
        user, password: whom the URL names: an ordinary user that owns its database.
        database: that database.
        tls: refuse connections without TLS; with these certificates, or with new ones.
        config: further settings, by name; they beat the ones that are made here.
    """

    name: ClassVar[str] = "postgresql"
    image_name: ClassVar[str] = "postgres:17"
    start_bound = 60.0
    stop_bound = 20.0

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        port: int | None = None,
        image: str | None = None,
        user: str = "narrowboat",
        password: str = "narrowboat",
        database: str = "narrowboat",
        tls: bool | Certificates = False,
        config: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory, port=port, image=image)
        self.user = user
        self.password = password
        self.database = database
        self.certificates = Certificates(self.directory / "tls") if tls is True else tls or None
        self._config = dict(config or {})
        self._populated = False

    @classmethod
    def check_installed(cls) -> None:
        binaries(cls.installation())

    @property
    def url(self) -> str:
        return self.url_for(self.user, self.password)

    def url_for(self, user: str, password: str, database: str | None = None) -> str:
        """The URL for another user, password or database than its own."""
        who = f"{quote(user, safe='')}:{quote(password, safe='')}@"
        query = f"?ca={quote(str(self.certificates.ca))}" if self.certificates else ""
        path = quote(self.database if database is None else database, safe="")
        return f"postgresql{'s' if self.certificates else ''}://{who}{LOOPBACK}:{self.port}/{path}{query}"

    def client(self, *, database: str | None = None, user: str = ADMIN, password: str = ADMIN_PASSWORD) -> Any:
        """A `psycopg.Connection` of the superuser that commits each statement. The caller closes it."""
        import psycopg

        return psycopg.connect(
            host=LOOPBACK,
            port=self.port,
            user=user,
            password=password,
            dbname=self.database if database is None else database,
            connect_timeout=20,  # of a busy machine: a port where nobody is refuses at once
            sslmode="require" if self.certificates else "disable",
            autocommit=True,
        )

    def _prepare(self) -> Runner:
        data = self.directory / "data"
        told = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "300",
            "shared_buffers": "64MB",
            "log_min_messages": "warning",
            **self._tls(),
            **self._config,
        }
        arguments = [word for name, value in told.items() for word in ("-c", f"{name}={value}")]
        if self.image is not None:
            raise ServerFailed("a PostgreSQL server in a container is not made yet: install it, or name one by its URL")
        folder, env = programs_of(self.installation())
        plain = plain_user.command()
        if not data.exists():
            secret = self.directory / "password"
            secret.write_text(ADMIN_PASSWORD)
            plain_user.own(self.directory)
            command = [folder / "initdb", "-D", data, "-U", ADMIN, "--pwfile", secret, "-A", "scram-sha-256"]
            command += ["-E", "UTF8", "--no-locale", "-N"]
            words = [*plain, *map(str, command)]
            done = subprocess.run(
                words, capture_output=True, text=True, check=False, cwd=self.directory, env={**os.environ, **env}
            )
            if done.returncode != 0:
                raise ServerFailed(f"initdb for {self} failed: {(done.stderr + done.stdout).strip()}")
            if self.certificates:
                (data / "pg_hba.conf").write_text("hostssl all all all scram-sha-256\n")
        plain_user.own(self.directory)
        argv = [*plain, str(folder / "postgres"), "-D", str(data), *arguments]
        return Family(argv, log=self.directory / "output.log", cwd=self.directory, env=env)

    def _tls(self) -> dict[str, str]:
        if self.certificates is None:
            return {}
        private = self.directory / "server.key"
        shutil.copyfile(self.certificates.key, private)
        private.chmod(0o600)
        return {"ssl": "on", "ssl_cert_file": str(self.certificates.certificate), "ssl_key_file": str(private)}

    def _answers(self) -> bool:
        with self.client(database="postgres") as client:
            if not self._populated:
                self._populate(client)
            return bool(client.execute("SELECT 1").fetchone())

    def _populate(self, client: Any) -> None:
        from psycopg import sql

        if client.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (self.user,)).fetchone() is None:
            client.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(self.user), sql.Literal(self.password))
            )
        if client.execute("SELECT 1 FROM pg_database WHERE datname = %s", (self.database,)).fetchone() is None:
            client.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(self.database), sql.Identifier(self.user))
            )
        self._populated = True


class Family(Process):
    """A process whose children leave its group, as each of PostgreSQL's does: they are paused and killed with it."""

    def pause(self) -> None:
        """Stop the parent, so that there are no new children, and then the children."""
        super().pause()
        for child in self._children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGSTOP)
        self._await(lambda child: _state(child) in {"T", "t", "Z", ""})

    def resume(self) -> None:
        """Let all go on."""
        for child in self._children() if self._paused else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGCONT)
        super().resume()

    def kill(self) -> None:
        """End all at once: a child that outlived its parent would bar the next start."""
        children = self._children()
        super().kill()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._await(lambda child: _state(child) in {"Z", ""}, children)

    def _children(self) -> list[int]:
        if self.pid is None or self._owner != os.getpid():
            return []
        try:
            return [int(each) for each in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except FileNotFoundError:
            return []

    def _await(self, there: Any, children: list[int] | None = None) -> None:
        ends = time.monotonic() + 10.0
        while not all(map(there, self._children() if children is None else children)) and time.monotonic() < ends:
            time.sleep(0.005)


def _state(process: int) -> str:
    """The letter of a process's state; "" where it is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def binaries(installation: str) -> Path:
    """The folder of the server's programs. What stands in /usr/bin are wrappers for clusters of the system."""
    return _found(installation)[1]


def programs_of(installation: str) -> tuple[Path, dict[str, str]]:
    """The same where the user that runs them can enter it, and the variables that they need."""
    root, folder = _found(installation)
    if root == Path("/"):
        return folder, {}
    there = plain_user.reached(root)
    libraries = programs.library_path(there)
    return there / folder.relative_to(root), {"LD_LIBRARY_PATH": libraries} if libraries else {}


def _found(installation: str) -> tuple[Path, Path]:
    for root in programs.roots(installation):
        found = [path.parent for path in root.glob("usr/lib/postgresql/*/bin/postgres") if (path.parent / "initdb").exists()]
        if found:
            return root, max(found, key=lambda path: int(path.parent.name))
    raise programs.NotInstalled(installation, "postgres")
