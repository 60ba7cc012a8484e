"""A Consul agent for tests, as a server that keeps its data, or as `-dev`, which forgets.

with ConsulServer(token="management") as server:
    narrowboat.locks(server.url)           # consul://:<token>@127.0.0.1:23456
"""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from integration.servers import programs
from integration.servers.certificates import Certificates
from integration.servers.ports import LOOPBACK, free_port
from integration.servers.server import Runner, Server


class ConsulServer(Server):
    """One agent that is a cluster of its own.

    Args:
        directory, port, image: as for every `Server`; the port is that of the HTTP interface.
        persistent: keep the data over restarts; without it the agent runs with `-dev`.
        token: switch access control on, deny what is not allowed, and let this token (a UUID is usual) do everything.
        tls: listen with TLS only; with these certificates, or with new ones.
        config: further settings of the agent; they beat the ones that are made here.
    """

    name: ClassVar[str] = "consul"
    image_name: ClassVar[str] = "hashicorp/consul:1.22"

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        port: int | None = None,
        image: str | None = None,
        persistent: bool = True,
        token: str | None = None,
        tls: bool | Certificates = False,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(directory, port=port, image=image)
        self.persistent = persistent
        self.token = token
        self.certificates = Certificates(self.directory / "tls") if tls is True else tls or None
        self._config = dict(config or {})

    @classmethod
    def check_installed(cls) -> None:
        programs.find(cls.name, "consul")

    @property
    def url(self) -> str:
        return self.url_for(self.token)

    def url_for(self, token: str | None = None, path: str = "") -> str:
        """The URL for another token than the one that may do everything."""
        who = f":{quote(token, safe='')}@" if token is not None else ""
        query = f"?ca={quote(str(self.certificates.ca))}" if self.certificates else ""
        return f"consul{'s' if self.certificates else ''}://{who}{LOOPBACK}:{self.port}{f'/{path}' if path else ''}{query}"

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the HTTP interface with the token, for a look from outside: `request("GET", "/v1/session/list")`.

        Returns the parsed JSON; None for an empty answer. Raises `urllib.error.HTTPError`.
        """
        text = self.put(path, None if body is None else json.dumps(body).encode(), method)
        return json.loads(text) if text else None

    def put(self, path: str, data: bytes | None, method: str = "PUT") -> bytes:
        """The same with bytes for a body, as the store takes them; and the answer as it came."""
        scheme = "https" if self.certificates else "http"
        request = urllib.request.Request(f"{scheme}://{LOOPBACK}:{self.port}{path}", data=data, method=method)
        if self.token is not None:
            request.add_header("X-Consul-Token", self.token)
        context = ssl.create_default_context(cafile=str(self.certificates.ca)) if self.certificates else None
        with urllib.request.urlopen(request, timeout=5, context=context) as reply:
            text: bytes = reply.read()
        return text

    def _answers(self) -> bool:
        # A leader that answers a consistent read: after a restart the leader's name is there before its data is.
        return bool(self.request("GET", "/v1/status/leader")) and bool(
            self.request("GET", "/v1/catalog/nodes?consistent") or self.token
        )

    def _prepare(self) -> Runner:
        path = self.directory / "agent.json"
        path.write_text(json.dumps({**self._defaults(), **self._config}, indent=1))
        path.chmod(0o600)  # it has the token
        return self._run("consul", "agent", *(() if self.persistent else ("-dev",)), "-config-file", str(path))

    def _defaults(self) -> dict[str, Any]:
        http = {"http": -1, "https": self.port} if self.certificates else {"http": self.port, "https": -1}
        found: dict[str, Any] = {
            "node_name": f"node-{self.port}",
            "bind_addr": LOOPBACK,
            "client_addr": LOOPBACK,
            "ports": {
                **http,
                "dns": -1,
                "grpc": -1,
                "grpc_tls": -1,
                "server": free_port(),
                "serf_lan": free_port(),
                "serf_wan": -1,
            },
            "connect": {"enabled": False},
            "disable_update_check": True,
            "performance": {"raft_multiplier": 1},
            "log_level": "warn",
        }
        if self.persistent:
            found |= {"server": True, "bootstrap_expect": 1, "data_dir": str(self.directory / "data")}
        if self.certificates is not None:
            found["tls"] = {
                "https": {
                    "ca_file": str(self.certificates.ca),
                    "cert_file": str(self.certificates.certificate),
                    "key_file": str(self.certificates.key),
                    "verify_incoming": False,
                }
            }
        if self.token is not None:
            found["acl"] = {"enabled": True, "default_policy": "deny", "tokens": {"initial_management": self.token}}
        return found
