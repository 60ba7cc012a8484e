"""The harness: what the kit must know about a backend under test. For most backends the URL is enough.

    class Mine(Harness):
        def residue(self, namespace): return count_my_keys(namespace)

    test_mine = suite(Mine("mine://localhost"))

A harness gives a URL for each fresh namespace. It says which halves (locks, messages) the URL has and which faults it can
make, and it looks at a lock from outside. A fault that the harness cannot make is reported as "not exercised", never as a
pass. The faults and their sources:

- Lost replies, and processes that are killed, stopped and forked: the kit makes them, on every backend that they can matter to.
- The network: the kit puts its own proxy in front of each host of the URL when the URL gives each with its port. Override
  `network` where the server tells its clients another address than the URL's.
- A server that is restarted, killed, paused: `Harness(url, server=...)` with a `conformance.Server`.
- Sessions ended, records deleted or written by others, rights revoked, a disk filled, a server's clock set, a loss of power:
  override the method, and the harness has the fault.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Callable, Collection
from typing import Any

import narrowboat
from narrowboat import registry
from narrowboat._messages.core import BrokerCore
from narrowboat.capabilities import BrokerCapabilities, LockCapabilities, Scope, Support
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.faults.network import Network, reachable
from narrowboat.conformance.faults.power import Recording
from narrowboat.conformance.faults.server import Server
from narrowboat.dsn import Url

_count = itertools.count(1)

#: The fault that a harness has when it overrides the method.
_BY_METHOD = {
    "end_session": Fault.SESSION,
    "delete": Fault.DELETE,
    "revoke": Fault.CREDENTIALS,
    "fill": Fault.FULL,
    "set_clock": Fault.SERVER_CLOCK,
    "plant_record": Fault.FOREIGN,
    "plant_entries": Fault.FOREIGN,
    "recorded": Fault.POWER,
}


class Harness:
    """A backend by its URL.

    Args:
        url: any URL whose scheme is installed. The kit appends to its option `prefix`.
        wrap: puts a layer in front of every driver that a scenario opens. A mutant is one.
        server: starts, stops, kills and pauses the server behind `url`. The kit leaves it running.
    """

    def __init__(self, url: str, *, wrap: Callable[[Any], Any] | None = None, server: Server | None = None) -> None:
        self.url = url
        self.wrap = wrap
        self.server = server
        self.scheme = Url.parse(url).scheme
        groups = (("locks", registry.LOCKS), ("broker", registry.BROKERS))
        self.halves = tuple(half for half, group in groups if self.scheme in registry.schemes(group))
        if not self.halves:
            registry.lock_backend(self.scheme)  # raises, with the near miss

    # -- what the backend claims ----------------------------------------------------------------------------------

    @property
    def lock_claims(self) -> LockCapabilities:
        """The claims of the URL's lock half."""
        return narrowboat.locks(_without(self.url, BrokerCore.OWN)).capabilities

    @property
    def broker_claims(self) -> BrokerCapabilities:
        """The claims of the URL's message half."""
        return narrowboat.broker(self.url).capabilities

    def claims(self, half: str) -> LockCapabilities | BrokerCapabilities:
        """The claims of one half, "locks" or "broker"."""
        return self.lock_claims if half == "locks" else self.broker_claims

    def faults(self, half: str) -> frozenset[Fault]:
        """The faults that this harness can make for a half. Child processes cannot share a backend of `scope=process`."""
        found = {Fault.REPLY}
        if hasattr(os, "fork") and self.claims(half).scope is not Scope.PROCESS:
            found.add(Fault.PROCESS)
        if self._has("network") or reachable(self.url):
            found.add(Fault.PROXY)
        if half == "locks" and (self._has("residue") or self.lock_claims.holders is not Support.ABSENT):
            found.add(Fault.COUNT)
        if self.server is not None:
            found |= {Fault.RESTART, Fault.KILL, Fault.PAUSE}
        other = {"locks": "plant_entries", "broker": "plant_record"}[half]
        return frozenset(found | {fault for name, fault in _BY_METHOD.items() if name != other and self._has(name)})

    def _has(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(Harness, name)

    # -- namespaces -----------------------------------------------------------------------------------------------

    def namespace(self) -> str:
        """A fresh namespace that no other scenario, run or process uses."""
        return f"nb{os.getpid():x}{os.urandom(3).hex()}{next(_count):x}"

    def locks_url(self, namespace: str) -> str:
        """The URL of a lock namespace. By default it has the option `prefix`, which every backend has."""
        return with_option(_without(self.url, BrokerCore.OWN), "prefix", namespace)

    def broker_url(self, namespace: str) -> str:
        """The URL of a message namespace."""
        return with_option(self.url, "prefix", namespace)

    def fresh_url(self, half: str, namespace: str) -> str:
        """The URL of a place that nobody has used, for many first users at once. By default it is a fresh namespace.

        Override it where a first use makes tables or a file that all namespaces share: return the URL of new ones.
        """
        return self.locks_url(namespace) if half == "locks" else self.broker_url(namespace)

    def cleanup(self, namespace: str) -> None:
        """Remove what a scenario left in its namespace. By default nothing is removed."""

    # -- looking from outside -------------------------------------------------------------------------------------

    def residue(self, namespace: str) -> int | None:
        """How many keys, nodes, rows or sessions the backend keeps for a lock namespace. None: they cannot be counted.

        By default a second connection counts the holders of the namespace, where `holders` is claimed.
        """
        if self.lock_claims.holders is Support.ABSENT:
            return None
        with narrowboat.locks(self.locks_url(namespace)) as locks:
            return len(locks.holders())

    # -- faults that only some backends have: override the method, and the fault is exercised -------------------------

    def network(self, url: str) -> Network:
        """A network in front of the servers of `url`, which is this harness's URL with a namespace."""
        return Network(url)

    def end_session(self, driver: object) -> None:
        """Let the server end the session of `driver`, this backend's own `LockProvider`, as if it had expired."""
        raise NotImplementedError

    def delete(self, half: str, namespace: str, name: str) -> None:
        """Delete what the backend keeps of the lock or queue `name` of that namespace, as an operator might."""
        raise NotImplementedError

    def plant_record(self, namespace: str, name: str, kind: int) -> bool:
        """Write a foreign record where the backend keeps the lock `name` of that namespace.

        Another program, an operator or a damaged disk might leave it: another type, cut-off text, missing fields, numbers out
        of range. `kind` counts the kinds from 0. Return False, and do nothing, when there is no kind of that number. Each
        record must prevent a grant, as a holder's record does.
        """
        raise NotImplementedError

    def revoke(self) -> None:
        """Take all rights from the URL's user. `permit` gives them back."""
        raise NotImplementedError

    def permit(self) -> None:
        """Undo `revoke`. Idempotent."""
        raise NotImplementedError

    def fill(self) -> None:
        """Fill the server's disk, memory or quota until it takes no more. `drain` undoes it."""
        raise NotImplementedError

    def drain(self) -> None:
        """Undo `fill`. Idempotent."""
        raise NotImplementedError

    def set_clock(self, seconds: float) -> None:
        """Set the server's wall clock to the true time plus `seconds`. 0 puts it right."""
        raise NotImplementedError

    def recorded(self, url: str) -> Recording:
        """Another place like that of `url`, this harness's URL with a namespace, in which each write and each sync is noted.

        Of what is noted the harness makes what a loss of power leaves, at any moment. The place serves one scenario.
        """
        raise NotImplementedError

    def plant_entries(self, namespace: str, name: str) -> list[tuple[str, Callable[[], object]]]:
        """The entries that another program can leave in the queue `name` of that namespace: a label and a function for each.

        Each function is called once. It leaves one entry where the backend keeps that queue's messages, as the backend's own
        tools would: without Narrowboat's fields, or with such fields that are garbage, empty or huge. The queue is declared,
        and consumed from. The label names the entry in the report.
        """
        raise NotImplementedError

    # -- mutants --------------------------------------------------------------------------------------------------

    def mutated(self, wrap: Callable[[Any], Any]) -> Harness:
        """The same backend behind a layer that breaks it."""
        mutant = copy.copy(self)
        mutant.wrap = wrap
        return mutant

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {Url.parse(self.url)}>"


def with_query(url: str, query: str) -> str:
    """`url` with `query` behind what it asks for already.

    >>> with_query("memory://shop", "timeout=2"), with_query("memory://shop?timeout=2", "prefix=a")
    ('memory://shop?timeout=2', 'memory://shop?timeout=2&prefix=a')
    """
    return f"{url}{'&' if '?' in url else '?'}{query}"


def _without(url: str, names: Collection[str]) -> str:
    """`url` without these options: those that a broker takes, and locks do not know.

    >>> _without("memory://shop?seal=keys.json&timeout=2", ["seal"])
    'memory://shop?timeout=2'
    """
    head, _, query = url.partition("?")
    rest = [pair for pair in query.split("&") if pair.partition("=")[0] not in names]
    return f"{head}?{'&'.join(rest)}" if any(rest) else head


def with_option(url: str, name: str, value: str) -> str:
    """`url` with the option `name`. A value that it has already stays in front, so that a user's own prefix is kept.

    >>> with_option("memory://?prefix=shop&x=1", "prefix", "a")
    'memory://?x=1&prefix=shop-a'
    """
    head, _, query = url.partition("?")
    pairs = [pair for pair in query.split("&") if pair]
    mine = [pair.partition("=")[2] for pair in pairs if pair.partition("=")[0] == name]
    rest = [pair for pair in pairs if pair.partition("=")[0] != name]
    return f"{head}?{'&'.join([*rest, f'{name}=' + '-'.join([*mine, value])])}"
