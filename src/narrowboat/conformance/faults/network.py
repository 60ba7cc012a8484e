"""The network between a scenario and the servers of a URL: a proxy in front of each host, and a URL that leads through them.

    network = kit.network()
    locks = kit.locks(url=network.url)
    network.reset()

Its methods are those of `Proxy`, on all of them at once. It can stand before every server whose address the URL gives with
its port, and which does not tell its clients to go elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from narrowboat.conformance.faults.proxy import Proxy
from narrowboat.dsn import Url


class Network:
    """See the module's text. `proxies` stand in front of the hosts of the URL, in its order; `url` leads through them."""

    def __init__(self, url: str, proxies: Sequence[Proxy] | None = None) -> None:
        if proxies is None:
            proxies = [Proxy(host.name, host.port) for host in Url.parse(url).hosts if host.port is not None]
        self.proxies = tuple(proxies)
        self.url = with_hosts(url, [f"{host}:{port}" for host, port in (proxy.address for proxy in self.proxies)])

    @property
    def accepted(self) -> int:
        """Connections that were opened, ever."""
        return sum(proxy.accepted for proxy in self.proxies)

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return sum(proxy.connections for proxy in self.proxies)

    @property
    def dropped(self) -> int:
        """Requests and replies that were lost on demand."""
        return sum(proxy.dropped for proxy in self.proxies)

    def _on_each(self, work: Callable[[Proxy], object]) -> None:
        for proxy in self.proxies:
            work(proxy)

    def reset(self) -> int:
        """A RST on every connection; how many there were."""
        return sum(proxy.reset() for proxy in self.proxies)

    def refuse(self) -> None:
        """New connections are refused."""
        self._on_each(lambda proxy: proxy.refuse())

    def cut(self) -> None:
        """Reset what is open and refuse what is new: the server is not there."""
        self.refuse()
        self.reset()

    def black_hole(self, *, up: bool = True, down: bool = True) -> None:
        """Nothing passes, and nobody is told."""
        self._on_each(lambda proxy: proxy.black_hole(up=up, down=down))

    def slow(self, *, latency: float = 0.0, piece: int = 0, rate: float = 0.0) -> None:
        """See `Proxy.slow`."""
        self._on_each(lambda proxy: proxy.slow(latency=latency, piece=piece, rate=rate))

    def drop_request(self, *, match: bytes = b"", times: int = 1) -> None:
        """On each proxy, the next request is lost."""
        self._on_each(lambda proxy: proxy.drop_request(match=match, times=times))

    def drop_reply(self, *, match: bytes = b"", keep: int = 0, times: int = 1) -> None:
        """On each proxy, the next request's reply is lost."""
        self._on_each(lambda proxy: proxy.drop_reply(match=match, keep=keep, times=times))

    def heal(self) -> None:
        """All is well again."""
        self._on_each(lambda proxy: proxy.heal())

    def close(self) -> None:
        """Give up ports and connections."""
        self._on_each(lambda proxy: proxy.close())


def reachable(url: str) -> bool:
    """Whether proxies can stand in front of the servers of `url`: it names hosts, each with its port."""
    hosts = Url.parse(url).hosts
    return bool(hosts) and all(host.port is not None for host in hosts)


def with_hosts(url: str, hosts: Sequence[str]) -> str:
    """`url` with other hosts; user, password, path and options stay as they were written.

    >>> with_hosts("redis://u:p%40@a:1,b:2/0?x=/@", ["127.0.0.1:7", "127.0.0.1:8"])
    'redis://u:p%40@127.0.0.1:7,127.0.0.1:8/0?x=/@'
    """
    scheme, _, rest = url.partition("://")
    end = min((rest.index(mark) for mark in "/?" if mark in rest), default=len(rest))
    user, at, _ = rest[:end].rpartition("@")
    return f"{scheme}://{user}{at}{','.join(hosts)}{rest[end:]}"
