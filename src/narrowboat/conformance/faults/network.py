"""The network between a scenario and the servers of a URL: a proxy in front of each host, and a URL that leads through them.

    network = kit.network()
    locks = kit.locks(url=network.url)
    network.reset()

Its methods are those of `Proxy`, on all of them at once. A network can stand in front of a server whose address and port are
in the URL, and which does not send its clients to another address.
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
        """How many connections were opened, ever."""
        return sum(proxy.accepted for proxy in self.proxies)

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return sum(proxy.connections for proxy in self.proxies)

    @property
    def dropped(self) -> int:
        """How many requests and replies were lost on demand."""
        return sum(proxy.dropped for proxy in self.proxies)

    def _on_each(self, work: Callable[[Proxy], object]) -> None:
        for proxy in self.proxies:
            work(proxy)

    def reset(self) -> int:
        """Send a RST on every connection. Returns how many there were."""
        return sum(proxy.reset() for proxy in self.proxies)

    def refuse(self) -> None:
        """Refuse new connections until `heal`."""
        self._on_each(lambda proxy: proxy.refuse())

    def cut(self) -> None:
        """Reset open connections and refuse new ones, as if no server were there."""
        self.refuse()
        self.reset()

    def black_hole(self, *, up: bool = True, down: bool = True) -> None:
        """Let nothing pass until `heal`. No end is told."""
        self._on_each(lambda proxy: proxy.black_hole(up=up, down=down))

    def slow(self, *, latency: float = 0.0, piece: int = 0, rate: float = 0.0) -> None:
        """See `Proxy.slow`."""
        self._on_each(lambda proxy: proxy.slow(latency=latency, piece=piece, rate=rate))

    def drop_request(self) -> None:
        """On each proxy the next request is lost."""
        self._on_each(lambda proxy: proxy.drop_request())

    def drop_reply(self, *, keep: int = 0) -> None:
        """On each proxy the next request's reply is lost but for `keep` bytes."""
        self._on_each(lambda proxy: proxy.drop_reply(keep=keep))

    def heal(self) -> None:
        """End all faults."""
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
