"""What the kit needs to know about a backend under test. For most it is derived from the URL alone.

    class Mine(Harness):
        def residue(self, namespace): return count_my_keys(namespace)

    test_mine = suite(Mine("mine://localhost"))

A harness gives a URL for each fresh namespace, says which halves (locks, messages) the URL has, which faults it can
bring about, and how to look at a lock from outside. A server's harness overrides `faults` and the method of each fault
that it has; a fault that nobody brings about is reported as "not exercised", never as a pass.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

from narrowboat import registry
from narrowboat.capabilities import BrokerCapabilities, LockCapabilities, Scope
from narrowboat.conformance.catalogue import Fault
from narrowboat.contract import LockProvider
from narrowboat.dsn import Url

_count = itertools.count(1)


class Harness:
    """A backend by its URL. `wrap` puts a layer in front of every driver that a scenario opens (a mutant is one)."""

    def __init__(self, url: str, *, wrap: Callable[[Any], Any] | None = None) -> None:
        self.url = url
        self.wrap = wrap
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
        process = {Fault.PROCESS} if hasattr(os, "fork") and self.claims(half).scope is not Scope.PROCESS else set()
        return frozenset({Fault.REPLY, *process})

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

    def cleanup(self, namespace: str) -> None:
        """Remove what a scenario left behind. By default nothing: scenarios delete the queues that they used."""

    # -- looking from outside -------------------------------------------------------------------------------------

    def residue(self, namespace: str) -> int | None:
        """How many things (keys, nodes, rows, sessions) the backend keeps for a lock namespace; None: cannot be counted.

        By default a second connection asks for all holders of the namespace, where `holders` is claimed.
        """
        import narrowboat
        from narrowboat.capabilities import Support

        if self.lock_claims.holders is Support.ABSENT:
            return None
        with narrowboat.locks(self.locks_url(namespace)) as locks:
            return len(locks.holders())

    # -- faults of a server: a harness that lists one in `faults` overrides its method ------------------------------

    def restart(self) -> None:
        """Stop the server in good order and start it again."""
        raise NotImplementedError

    def kill(self) -> None:
        """Kill the server with SIGKILL, and start it again."""
        raise NotImplementedError

    def pause(self, seconds: float) -> None:
        """Stop the server's process for a while (SIGSTOP, SIGCONT)."""
        raise NotImplementedError

    # -- mutants --------------------------------------------------------------------------------------------------

    def mutated(self, wrap: Callable[[Any], Any]) -> Harness:
        """The same backend behind a layer that breaks it."""
        mutant = type(self)(self.url)
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


def is_lock_driver(driver: object) -> bool:
    """Which half a driver belongs to, for layers that serve both."""
    return isinstance(driver, LockProvider)
