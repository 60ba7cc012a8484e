"""From a scheme to the backend that serves it, by entry point.

Built-in backends are found like every other one: by entry points in the groups `narrowboat.locks` and
`narrowboat.brokers`, named by URL scheme. Listing what there is imports nothing; a scheme whose extra is missing says
which command installs it. This file knows no scheme by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from narrowboat.contract.backend import BrokerBackend, LockBackend
from narrowboat.dsn import unknown
from narrowboat.errors import ConfigurationError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from narrowboat.driver.serving import ServerProgram

LOCKS = "narrowboat.locks"
BROKERS = "narrowboat.brokers"
SERVERS = "narrowboat.servers"

Backend = TypeVar("Backend", LockBackend, BrokerBackend, "ServerProgram")

_found: dict[str, dict[str, EntryPoint]] = {}
#: What several distributions register under one name: whichever was taken would be handed the URL with its password.
_contested: dict[tuple[str, str], set[str]] = {}
_loaded: dict[tuple[str, str], object] = {}


def schemes(group: str) -> list[str]:
    """Every scheme that an installed distribution registers in `group`, sorted."""
    return sorted(_entry_points(group))


def lock_backend(scheme: str) -> LockBackend:
    """The lock backend for `scheme`; `ConfigurationError` says the near miss, or what to install."""
    return _load(LOCKS, scheme, LockBackend)


def broker_backend(scheme: str) -> BrokerBackend:
    """The message backend for `scheme`; `ConfigurationError` says the near miss, or what to install."""
    return _load(BROKERS, scheme, BrokerBackend)


def server_program(scheme: str) -> ServerProgram:
    """The server that `narrowboat serve` binds at addresses of `scheme`; `ConfigurationError` as for backends."""
    from narrowboat.driver.serving import ServerProgram  # for whoever serves

    return _load(SERVERS, scheme, ServerProgram)


def _entry_points(group: str) -> dict[str, EntryPoint]:
    if group not in _found:
        from importlib.metadata import entry_points  # slow to import, and only needed once a scheme is asked for

        points: dict[str, EntryPoint] = {}
        for point in entry_points(group=group):
            other = points.setdefault(point.name, point)
            if _distribution(other) != _distribution(point):
                _contested.setdefault((group, point.name), {_distribution(other)}).add(_distribution(point))
        _found[group] = points
    return _found[group]


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "a distribution without a name"


def _load(group: str, scheme: str, kind: type[Backend]) -> Backend:
    loaded = _loaded.get((group, scheme))
    if isinstance(loaded, kind):
        return loaded
    points = _entry_points(group)
    if (group, scheme) in _contested:
        names = " and ".join(sorted(_contested[group, scheme]))
        raise ConfigurationError(
            f"{scheme}:// is registered by {names}: which one is meant is unknown, and it would be given the URL with its "
            "password. Uninstall all but one."
        )
    if scheme not in points:
        other = BROKERS if group == LOCKS else LOCKS
        beside, half = _entry_points(other), other.partition(".")[2]
        elsewhere = f" {scheme}:// is known for {half} only." if scheme in beside else _at(scheme, beside, f", for {half} only")
        hint = _at(scheme, points) or elsewhere
        raise ConfigurationError(unknown("scheme", scheme, sorted(points), of=group) + hint)
    point = points[scheme]
    try:
        backend = point.load()
    except ImportError as error:
        raise missing(group, scheme, error) from error
    except AttributeError as error:
        raise ConfigurationError(
            f"the entry point {group}:{scheme} names {point.value}, which is not there: {error}"
        ) from error
    if not isinstance(backend, kind):
        raise ConfigurationError(f"the entry point {group}:{scheme} gives {type(backend).__name__}, not {kind.__name__}")
    _loaded[(group, scheme)] = backend
    return backend


def _at(name: str, points: dict[str, EntryPoint], only: str = "") -> str:
    """Where the backend is whose package has a part of that name; nothing where there is none."""
    named = sorted((scheme for scheme, point in points.items() if name in point.module), key=len)
    return f" The backend {name!r} is at {named[0]}://{only}." if named and len(name) > 2 else ""


def missing(group: str, scheme: str, error: ImportError) -> ConfigurationError:
    """The error for a backend that is there and whose client library is not: it says which command installs that."""
    point = _entry_points(group)[scheme]
    backend = _loaded.get((group, scheme))
    distribution = point.dist.name if point.dist else "its distribution"
    extra = point.extras[0] if point.extras else backend.extra if isinstance(backend, (LockBackend, BrokerBackend)) else None
    if isinstance(error, ModuleNotFoundError):
        text = f"{scheme}:// needs {error.name or 'a module'}, which is not installed: "
    else:  # it is there, and lacks what is asked of it
        text = f"{scheme}:// cannot use the installed {error.name or 'module'} ({error}): "
    return ConfigurationError(text + how_to_install(distribution, extra), backend=scheme)


def how_to_install(distribution: str, extra: str | None) -> str:
    """The command that brings an extra. Ours is not published: pip finds it in a clone only."""
    brackets = f"[{extra}]" if extra else ""
    if distribution != "narrowboat":
        return f"pip install --upgrade '{distribution}{brackets}'"
    return f"pip install --upgrade '.{brackets}' in a clone of Narrowboat (narrowboat{brackets} once it is published)"
