"""What a URL leads to: a backend with its options and claims, everything but the connection. Makes no I/O.

Everything that can be refused is refused here before anything is sent: the scheme, the options, the demands of `require`, a
client library that is not installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from narrowboat.capabilities import Scope, check_required
from narrowboat.clock import Clock, LoopClock, SystemClock
from narrowboat.contract.backend import BrokerBackend, Context, LockBackend
from narrowboat.dsn import Url, convert, hidden, parse_options
from narrowboat.errors import ConfigurationError, InvalidArgument
from narrowboat.registry import BROKERS, LOCKS, missing

#: What the core takes from a URL's query itself.
CORE_OPTIONS = frozenset({"require", "timeout"})
#: Seconds that one driver call may block. Shorter breaks on a busy server, longer delays the news that it is gone.
TIMEOUT = 5.0

D = TypeVar("D", bound="Closable")
T = TypeVar("T")


class Closable(Protocol):
    """What every driver has."""

    capabilities: Any

    def close(self) -> None:
        """Give back what it has."""
        ...


class Target(Generic[D]):
    """A parsed URL with its backend, options and claims; `make` opens a driver."""

    def __init__(
        self,
        find: Callable[[str], Any],
        variable: str,
        url: str | None,
        require: str | Mapping[str, object] | None,
        clock: Clock | None,
        wrap: Callable[[D], D] | None,
        options: Mapping[str, object],
        own: Mapping[str, type[Any]] | None = None,
        *,
        doubt: Callable[[str | None], None] | None = None,
        tell: Callable[[str, str, str], None] | None = None,
        layers: Callable[[Target[D]], None] | None = None,
    ) -> None:
        """`layers` may put some in front of the driver (`wrap`), and take from its claims, before any demand is compared."""
        if url is None:
            url = hidden(os.environ.get(variable))
            if not url:
                raise ConfigurationError(
                    f"no URL was given and {variable} is not set: give one, scheme://..., or set it; "
                    "`narrowboat backends` lists the schemes"
                )
            try:
                self.url = Url.parse(url)
            except ConfigurationError as error:
                raise ConfigurationError(f"{variable}: {error}") from None
        else:
            self.url = Url.parse(url)
        if clock is not None and not (callable(clock) and callable(getattr(clock, "watch", None))):
            raise InvalidArgument(f"clock={clock!r}: expected a clock of narrowboat.clock, such as ManualClock()")
        self.clock: Clock = clock if clock is not None else SystemClock()
        backend: LockBackend | BrokerBackend = find(self.url.scheme)
        given = dict(options)
        timeout = given.pop("timeout", self.url.query.get("timeout", TIMEOUT))
        self.timeout = float(convert("timeout", timeout, float, backend=self.url.scheme))  # type: ignore[arg-type]  # a float, by its hint
        if self.timeout <= 0:
            raise ConfigurationError(f"option timeout={self.timeout:g}: expected more than 0 seconds", backend=self.url.scheme)
        own = own or {}  # options that the core takes for this half alone, with their types
        self.own: dict[str, Any] = {
            name: convert(name, {**self.url.query, **given}[name], kind, backend=self.url.scheme)
            for name, kind in own.items()
            if name in given or name in self.url.query
        }
        parsed = parse_options(self.url, backend.options, given, core=CORE_OPTIONS | own.keys())
        self.capabilities: Any = backend.capabilities(self.url, parsed)
        if isinstance(self.clock, LoopClock) and self.capabilities.scope is not Scope.PROCESS:
            raise InvalidArgument(
                f"clock=LoopClock: a call of {self.url.scheme} may block, and so the event loop; it is for the memory backend"
            )
        self.wrap = wrap
        if layers is not None:
            layers(self)
        for demand in (self.url.query.get("require"), require):
            check_required(self.capabilities, demand, backend=self.url.scheme)
        self.context = context = Context(
            clock=self.clock,
            timeout=self.timeout,
            watch=self.clock.watch,
            doubt=doubt or _unheard,
            tell=tell or _untold,
        )
        self.url = prepared = self._installed(backend, lambda: backend.prepare(self.url, parsed))

        def make() -> D:
            driver: Any = self._installed(backend, lambda: backend.open(prepared, parsed, context))
            try:
                return driver if self.wrap is None else self.wrap(driver)
            except BaseException:  # nobody has it: its threads and sockets would stay
                driver.close()
                raise

        self.make = make

    def _installed(self, backend: LockBackend | BrokerBackend, step: Callable[[], T]) -> T:
        """Do what may need the client library; where it is missing, say what to install."""
        try:
            return step()
        except ModuleNotFoundError as error:
            group = LOCKS if isinstance(backend, LockBackend) else BROKERS
            raise missing(group, self.url.scheme, error) from error


def _unheard(owner: str | None) -> None:
    """What a driver's doubts come to where there are no leases to be renewed."""


def _untold(source: str, id: str, problem: str) -> None:
    """What is told of messages where there are none."""
