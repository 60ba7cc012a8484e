"""A ZooKeeper ensemble of three, of which two make a quorum.

with ZooKeeperEnsemble() as ensemble:
    narrowboat.locks(ensemble.url)         # zookeeper://127.0.0.1:20001,127.0.0.1:20002,127.0.0.1:20003
    ensemble.leader().kill()               # the other two go on
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from integration.servers.group import Group
from integration.servers.ports import LOOPBACK, free_port
from integration.servers.zookeeper import ZooKeeperServer, url_of


class ZooKeeperEnsemble(Group):
    """Three members; arguments as for `ZooKeeperServer`. Among themselves they talk without TLS."""

    name: ClassVar[str] = "zookeeper"

    def __init__(self, *, image: str | None = None, tls: bool = False, config: Mapping[str, str] | None = None) -> None:
        peers = {f"server.{n}": f"{LOOPBACK}:{free_port()}:{free_port()}" for n in (1, 2, 3)}
        settings = {**peers, **(config or {})}
        first = ZooKeeperServer(image=image, tls=tls, config=settings, identity=1)
        secure = first.certificates or False
        rest = (ZooKeeperServer(image=image, tls=secure, config=settings, identity=n) for n in (2, 3))
        self.servers = [first, *rest]
        super().__init__(self.servers)

    @property
    def url(self) -> str:
        return self.url_for()

    def url_for(self, user: str = "", password: str | None = None, path: str = "") -> str:
        """As of one server, with all three hosts."""
        return url_of(self.servers, user, password, path)

    def leader(self) -> ZooKeeperServer:
        """The member that leads now, of those that run."""
        return next(server for server in self.servers if server.alive and server.mode() == "leader")

    def followers(self) -> list[ZooKeeperServer]:
        """The members that follow it."""
        return [server for server in self.servers if server.alive and server.mode() == "follower"]
