"""What the conformance kit can do to ZooKeeper beyond its connections: end sessions, delete nodes.

Everything here is done with kazoo and nothing of Narrowboat's own, as an operator would.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from integration.foreign import DAMAGED
from narrowboat.conformance import Harness
from narrowboat.dsn import Url


@contextmanager
def kazoo(url: str, **arguments: Any) -> Iterator[KazooClient]:
    """A client of kazoo's own for the hosts of `url`, below its path."""
    parsed = Url.parse(url)
    secure = {"use_ssl": True, "ca": parsed.query["ca"]} if parsed.scheme == "zookeepers" else {}
    hosts = ",".join(f"{host.name}:{host.port}" for host in parsed.hosts)
    client = KazooClient(hosts=hosts, **{"timeout": 10.0, **secure, **arguments})
    client.start(timeout=20)
    try:
        yield client
    finally:
        client.stop()
        client.close()


class ZooKeeperHarness(Harness):
    """For servers that the harness may do anything to."""

    def residue(self, namespace: str) -> int:
        """Contenders of the namespace: the nodes of idle locks are swept seconds later."""
        with kazoo(self.url) as client:
            return sum(len(_children(client, path)) for path in _locks(client, self._namespace(namespace)))

    def delete(self, half: str, namespace: str, name: str) -> None:
        with kazoo(self.url) as client:
            path = f"{self._namespace(namespace)}/{quote(name, safe='')}"
            everything = client.transaction()  # one by one, a waiter could be granted what is deleted next
            for child in _children(client, path):
                everything.delete(f"{path}/{child}")
            everything.commit()

    def end_session(self, driver: object) -> None:
        """Close it from elsewhere: to its owner that looks as if its time were up."""
        session: Any = driver._state.session  # type: ignore[attr-defined]  # the provider's own
        identity = session.client.client_id
        with kazoo(self.url, client_id=identity):
            pass

    def plant_record(self, namespace: str, name: str, kind: int) -> bool:
        """A contender before everybody else that goes with no session, with a record that nobody can believe."""
        if kind >= len(DAMAGED):
            return False
        with kazoo(self.url) as client:
            node = f"{self._namespace(namespace)}/{quote(name, safe='')}/x~theirs~0000000000"
            client.create(node, DAMAGED[kind], makepath=True)
        return True

    def cleanup(self, namespace: str) -> None:
        with kazoo(self.url) as client:
            path = self._namespace(namespace)
            try:
                client.delete(path, recursive=True)
            except NoNodeError:
                pass

    def _namespace(self, namespace: str) -> str:
        url = Url.parse(self.locks_url(namespace))
        base = f"/{url.path.strip('/')}" if url.path.strip("/") else ""
        return f"{base}/narrowboat/_{quote(url.query['prefix'], safe='')}"


def _children(client: KazooClient, path: str) -> list[str]:
    try:
        found: list[str] = client.get_children(path)
    except NoNodeError:
        return []
    return found


def _locks(client: KazooClient, namespace: str) -> list[str]:
    return [f"{namespace}/{each}" for each in _children(client, namespace)]
