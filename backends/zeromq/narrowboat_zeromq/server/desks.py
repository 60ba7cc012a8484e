"""The open drivers: one for each namespace and choice of options, for as long as a session is there that uses it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from narrowboat.capabilities import Survives
from narrowboat.driver.serving import Served
from narrowboat.errors import ConfigurationError, NarrowboatError, Unavailable
from narrowboat_zeromq.options import NAMESPACE, PREFIX_MAX
from narrowboat_zeromq.protocol import fields
from narrowboat_zeromq.protocol.frames import Malformed
from narrowboat_zeromq.server.desk import Desk, LockDesk, MessageDesk

logger = logging.getLogger("narrowboat.zeromq")

#: Drivers that are open at once: each has files of its own.
DESKS_MAX = 256
_HALVES = ("locks", "messages")
_SECONDS_MAX = 10 * 365 * 86400.0


class Desks:
    """See the module's text."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._open: dict[tuple[Any, ...], Desk] = {}

    def __len__(self) -> int:
        return len(self._open)

    def take(self, greeting: Mapping[str, Any]) -> Desk:
        """The driver that a client asks for, opened if need be. Raises what refuses it."""
        half, options = self._asked(greeting)
        key = (half, *options.items())
        desk = self._open.get(key)
        if desk is None:
            if len(self._open) >= DESKS_MAX:
                raise Unavailable(
                    f"the server has {DESKS_MAX} namespaces open, as many as it may have; use fewer, or a second server"
                )
            served = self._served
            desk = LockDesk(served.open_locks(options)) if half == "locks" else MessageDesk(served.open_broker(options), served)
            self._open[key] = desk
        desk.users += 1
        return desk

    def look(self, now: float) -> None:
        """Look for the consumers that found nothing, where the time has come."""
        for desk in self._open.values():
            desk.idle.look(now)

    @property
    def next(self) -> float:
        """When the next look is due; infinite while nobody waits."""
        return min([desk.idle.next for desk in self._open.values()], default=math.inf)

    def leave(self, desk: Desk) -> None:
        """A session of its has ended; with the last one it is closed."""
        desk.users -= 1
        if desk.users == 0:
            for key in [key for key, each in self._open.items() if each is desk]:
                del self._open[key]
            _close(desk)

    def _asked(self, greeting: Mapping[str, Any]) -> tuple[str, dict[str, object]]:
        half = fields.one_of("half", greeting.get("half"), {each: each for each in _HALVES})
        namespace = fields.words("namespace", greeting.get("namespace"), 64)
        if NAMESPACE.fullmatch(namespace) is None:
            raise Malformed("namespace: up to 64 letters, digits and . _ - are allowed")
        asked = greeting.get("options")
        if not isinstance(asked, dict) or not asked.keys() <= {"prefix", "declare", "dedup", "retention"}:
            raise Malformed("options: an object with prefix, declare, dedup and retention is allowed")
        self._stands(half, greeting.get("survives"))
        prefix = fields.words("prefix", asked.get("prefix", ""), PREFIX_MAX)
        options: dict[str, object] = {"prefix": f"{namespace}/{prefix}" if prefix else namespace}
        if half == "messages":
            options["declare"] = fields.one_of("declare", asked.get("declare", "auto"), {"auto": "auto", "never": "never"})
            for name, usual in (("dedup", 300.0), ("retention", 0.0)):
                options[name] = fields.number(name, asked.get(name, usual), 0.0, _SECONDS_MAX)
        return half, options

    def _stands(self, half: str, survives: object) -> None:
        """Refuse a client that stands on more than what is served keeps."""
        kept = (self._served.locks if half == "locks" else self._served.messages).survives
        order = list(Survives)
        asked = fields.one_of("survives", survives, {each.value: each for each in order})
        if order.index(kept) < order.index(asked):
            raise ConfigurationError(
                f"the client's URL stands on what outlives {asked.value}, and this server serves what outlives {kept.value}: "
                "write ?durability=normal in the client's URL, or serve with durability=full"
            )


def _close(desk: Desk) -> None:
    try:
        desk.close()
    except NarrowboatError as error:
        logger.warning("a driver did not close in order: %s", error)
