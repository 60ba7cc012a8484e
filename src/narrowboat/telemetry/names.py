"""Names as labels: `invoice:42` and `invoice:43` are one time series, `invoice:{id}`, or every id would cost one for ever.

Pure but for `Names`, which counts how many it has given out.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from narrowboat import events, registry
from narrowboat.errors import ConfigurationError

#: What stands for every name beyond those that are told apart.
OTHER = "{other}"
#: How many names are told apart. A metric costs memory here and in the server for each.
MOST = 500

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_PART = re.compile(r"[^\s:./_,;=@#|-]+")
#: A part that is a number, a long hexadecimal number with a digit in it, or long and of letters and digits mixed.
_ID = re.compile(r"\d+|(?=[a-fA-F]*\d)[0-9a-fA-F]{8,}|(?=\D*\d)(?=[^a-zA-Z]*[a-zA-Z])[0-9A-Za-z]{16,}")


def template(name: str) -> str:
    """`name` with `{id}` for each part that looks like an id: a number, a UUID, a long hexadecimal or random word.

    >>> template("invoice:42"), template("user/7f3c9a10-0000-4000-8000-000000000000/cart"), template("orders.v2")
    ('invoice:{id}', 'user/{id}/cart', 'orders.v2')
    """
    return _PART.sub(lambda found: "{id}" if _ID.fullmatch(found[0]) else found[0], _UUID.sub("0", name))


class Names:
    """A name to its label. `shape` makes the template; beyond `most` different ones all are `{other}`."""

    def __init__(self, shape: Callable[[str], str] = template, most: int = MOST) -> None:
        self._shape = shape
        self._most = most
        self._known: dict[str, None] = {}  # single steps only: any thread asks

    def __call__(self, name: str) -> str:
        """The label."""
        made = self._shape(name)
        if made in self._known:
            return made
        if len(self._known) >= self._most:
            return OTHER
        self._known[made] = None
        return made


_systems: dict[str, str] = {}


def system(scheme: str) -> str:
    """What telemetry calls the backend of a scheme: the same with and without TLS, or the conventions' name of the product."""
    found = _systems.get(scheme)
    if found is None:
        found = scheme
        for find in (registry.broker_backend, registry.lock_backend):
            try:
                backend = find(scheme)
            except ConfigurationError:
                continue
            found = backend.system or backend.scheme
            break
        _systems[scheme] = found
    return found


def kind_of(error: BaseException) -> str:
    """An error's type with its module, but for Python's own and ours.

    >>> kind_of(ValueError()), kind_of(ConfigurationError(""))
    ('ValueError', 'ConfigurationError')
    """
    kind = type(error)
    known = kind.__module__ in ("builtins", "narrowboat.errors")
    return kind.__qualname__ if known else f"{kind.__module__}.{kind.__qualname__}"


#: What became of a message, where its event says it by its class.
_SETTLED = {events.DeadLettered: "dead_letter", events.Expired: "expired", events.Stale: "stale"}


def settled_as(event: events.Settled | events.DeadLettered | events.Expired | events.Stale) -> str:
    """What became of a message, in a word.

    >>> settled_as(events.Stale("memory", "orders", "1"))
    'stale'
    """
    return event.outcome if isinstance(event, events.Settled) else _SETTLED[type(event)]


_WORDS = {
    "LockTimeout": "timeout",
    "Unavailable": "unavailable",
    "CancelledError": "cancelled",
    "KeyboardInterrupt": "interrupted",
}


def outcome_of(error: BaseException | None) -> str:
    """How an acquire ended without the lock, in a word: few, for labels.

    >>> outcome_of(None), outcome_of(KeyboardInterrupt())
    ('busy', 'interrupted')
    """
    if error is None:
        return "busy"
    return _WORDS.get(type(error).__name__, "error")
