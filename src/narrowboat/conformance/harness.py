"""What the kit needs to know about a backend under test. For most it is derived from the URL alone.

    class Mine(Harness):
        def residue(self, namespace): return count_my_keys(namespace)

    test_mine = suite(Mine("mine://localhost"))

A harness gives a URL for each fresh namespace, says which halves (locks, messages) the URL has, which faults it can
bring about, and how to look at a lock from outside. A fault that nobody brings about is reported as "not exercised", never
as a pass. Where they come from:

- lost replies, and processes that are killed, stopped and forked: the kit itself, on every backend that they can matter to;
- the network: the kit's own proxy in front of each host of the URL, when the URL gives each with its port. Override
  `network` where the server tells its clients another address than the URL's;
- a server that is restarted, killed, paused: `Harness(url, server=...)` with a `conformance.Server`;
- sessions ended, records deleted or written by others, rights taken away, a disk filled, a server's clock set: override
  the method, and the fault is there.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Callable
from typing import Any

from narrowboat import registry
from narrowboat.capabilities import BrokerCapabilities, LockCapabilities, Scope, Support
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.faults.network import Network, reachable
from narrowboat.conformance.faults.server import Server
from narrowboat.dsn import Url

_count = itertools.count(1)

#: The methods of `Harness` whose overriding means that it has the fault.
_BY_METHOD = {
    "end_session": Fault.SESSION,
    "delete": Fault.DELETE,
    "revoke": Fault.CREDENTIALS,
    "fill": Fault.FULL,
    "set_clock": Fault.SERVER_CLOCK,
    "plant_record": Fault.FOREIGN,
    "plant_entries": Fault.FOREIGN,
}


class Harness:
    """A backend by its URL.

    Args:
        url: any URL whose scheme is installed; `prefix` is appended to.
        wrap: puts a layer in front of every driver that a scenario opens (a mutant is one).
        server: what can start, stop, kill and pause the server behind `url`; the kit leaves it running.
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
        """What the URL's lock half claims."""
        import narrowboat

        return narrowboat.locks(self.url).capabilities

    @property
    def broker_claims(self) -> BrokerCapabilities:
        """What the URL's message half claims."""
        import narrowboat

        return narrowboat.broker(self.url).capabilities

    def claims(self, half: str) -> LockCapabilities | BrokerCapabilities:
        """Of one half."""
        return self.lock_claims if half == "locks" else self.broker_claims

    def faults(self, half: str) -> frozenset[Fault]:
        """The faults that this harness can bring about. Child processes can only share what is beyond one process."""
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
        """A fresh one, that no other scenario, run or process uses."""
        return f"nb{os.getpid():x}{os.urandom(3).hex()}{next(_count):x}"

    def locks_url(self, namespace: str) -> str:
        """The URL of a lock namespace; by default by the option `prefix`, which every backend has."""
        return with_option(self.url, "prefix", namespace)

    def broker_url(self, namespace: str) -> str:
        """The URL of a message namespace."""
        return with_option(self.url, "prefix", namespace)

    def fresh_url(self, half: str, namespace: str) -> str:
        """The URL of a place that nobody has ever used, for many first users at once; by default a fresh namespace.

        Override it where a first use makes what all namespaces share, such as tables or a file: give a new one.
        """
        return self.locks_url(namespace) if half == "locks" else self.broker_url(namespace)

    def cleanup(self, namespace: str) -> None:
        """Remove what a scenario left behind. By default nothing: scenarios delete the queues that they used."""

    # -- looking from outside -------------------------------------------------------------------------------------

    def residue(self, namespace: str) -> int | None:
        """How many things (keys, nodes, rows, sessions) the backend keeps for a lock namespace; None: cannot be counted.

        By default a second connection asks for all holders of the namespace, where `holders` is claimed.
        """
        import narrowboat

        if self.lock_claims.holders is Support.ABSENT:
            return None
        with narrowboat.locks(self.locks_url(namespace)) as locks:
            return len(locks.holders())

    # -- faults that only some backends have: override the method, and the fault is exercised -------------------------

    def network(self, url: str) -> Network:
        """What can break the connections of `url`, this harness's URL with a namespace; its `url` leads through it."""
        return Network(url)

    def end_session(self, driver: object) -> None:
        """Let the server end the session of `driver`, this backend's own `LockProvider`, as when its time were up."""
        raise NotImplementedError

    def delete(self, half: str, namespace: str, name: str) -> None:
        """Delete what the backend keeps of the lock, or the queue, `name` of that namespace, as an operator might."""
        raise NotImplementedError

    def plant_record(self, namespace: str, name: str, kind: int) -> bool:
        """Leave a record that Narrowboat has not written where the backend keeps the lock `name` of that namespace.

        As another program, an operator or a damaged disk might: another type, cut-off text, fields missing, numbers out of
        range. `kind` counts the kinds from 0; False, and nothing is done, when there is none of that number. Each must stand
        in the way of a grant, as a holder's record would.
        """
        raise NotImplementedError

    def revoke(self) -> None:
        """Take from the URL's user the right to do anything; `permit` gives it back."""
        raise NotImplementedError

    def permit(self) -> None:
        """Undo `revoke`. Idempotent."""
        raise NotImplementedError

    def fill(self) -> None:
        """Fill the server's disk, memory or quota, so that it takes no more; `drain` undoes it."""
        raise NotImplementedError

    def drain(self) -> None:
        """Undo `fill`. Idempotent."""
        raise NotImplementedError

    def set_clock(self, seconds: float) -> None:
        """Move the server's wall clock by so much from the true time; 0 puts it right."""
        raise NotImplementedError

    def plant_entries(self, namespace: str, name: str) -> list[tuple[str, Callable[[], object]]]:
        """What another program can leave in the queue `name` of that namespace, past us: a label and a function for each.

        Each function, called once, leaves one entry in the place where that queue keeps its messages, as the backend's own
        tools would: without our fields, with fields of ours that are garbage, empty, huge. The queue is declared, and consumed
        from. The first line of a report's complaint is the label.
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


def with_option(url: str, name: str, value: str) -> str:
    """`url` with the option `name`, appended to the one it has, so that a user's own prefix stays in front.

    >>> with_option("memory://?prefix=shop&x=1", "prefix", "a")
    'memory://?x=1&prefix=shop-a'
    """
    head, _, query = url.partition("?")
    pairs = [pair for pair in query.split("&") if pair]
    mine = [pair.partition("=")[2] for pair in pairs if pair.partition("=")[0] == name]
    rest = [pair for pair in pairs if pair.partition("=")[0] != name]
    return f"{head}?{'&'.join([*rest, f'{name}=' + '-'.join([*mine, value])])}"
