"""What both faces check before a message goes anywhere: names, headers, options, claims.

Everything here happens before any I/O and in the publisher's own thread: what cannot be kept is one `InvalidArgument`
that says what was given and what is allowed, what the backend does not claim is `Unsupported`, and nothing was sent.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Mapping

from narrowboat._engine.checks import TEXT_MAX, flag, seconds, text
from narrowboat.capabilities import BrokerCapabilities, LeaseNature, Support
from narrowboat.contract.messages import Nack, Properties, Reject
from narrowboat.dsn import unknown
from narrowboat.errors import InvalidArgument, Unsupported

#: Headers that begin so are ours: a publisher's would be taken for them.
RESERVED_PREFIX = "narrowboat-"
#: Endings of names under which backends keep what belongs to a source.
RESERVED = ("dead", "retry", "delayed")
#: Longest ttl, idle time or wait in seconds: ten years. What is longer is a mistake in units.
MAX_DURATION = 10 * 365 * 86400.0


def check_source_name(what: str, value: object) -> str:
    """The name of a queue or topic."""
    name = text(f"{what} name", value)
    stem, _, ending = name.rpartition(".")
    if stem and ending in RESERVED:
        instead = f"; its dead letters are queue({stem!r}).dead_letters()" if ending == "dead" else ""
        raise InvalidArgument(f"{what} name {name!r}: names that end in .{ending} are reserved{instead}")
    return name


def check_group(value: object) -> str:
    """The name of a subscription's group."""
    name = text("group name", value)
    if "." in name:
        raise InvalidArgument(
            f"group name {name!r}: no dots, they part the topic from the group; try {name.replace('.', '-')!r}"
        )
    if name in RESERVED:
        raise InvalidArgument(f"group name {name!r}: reserved, take another name")
    return name


def check_count(what: str, value: object, low: int, high: int) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{what}={value!r}: expected a whole number from {low} to {high}, got {type(value).__name__}")
    if not low <= value <= high:
        raise InvalidArgument(f"{what}={value}: allowed is {low} to {high}")
    return value


def check_wait(what: str, value: object) -> float | None:
    """Seconds to wait; None for ever."""
    if value is None:
        return None
    return seconds(what, value, low=0.0, high=MAX_DURATION, allowed="0 or more seconds, or None for ever")


def check_start(claims: BrokerCapabilities, backend: str, start: object) -> bool:
    """Whether a new subscription begins with what its topic still has."""
    if start not in ("latest", "earliest"):
        near = unknown("start", start, ["earliest", "latest"]) if isinstance(start, str) else f"start={start!r}"
        raise InvalidArgument(f"{near} Allowed is 'latest' or 'earliest'")
    if start == "earliest":
        demand(claims.replay, backend, "start='earliest'", "replay")
    return start == "earliest"


def demand(support: Support, backend: str, asked: str, claim: str) -> None:
    """`Unsupported` where the claim is not made."""
    if support is Support.ABSENT:
        raise Unsupported(
            f"{asked}: {backend} does not claim {claim}, so nothing was sent. "
            f"`narrowboat backends` shows who does; require={claim!r} finds out at the start",
            backend=backend,
        )


#: What a queue or subscription is declared with where nothing else is asked for.
DEFAULTS = Properties()


def check_properties(
    claims: BrokerCapabilities, backend: str, max_deliveries: object, lease: object, ordered: object, priorities: object
) -> Properties:
    """What a queue or subscription is declared with. None stands for the default."""
    limit = check_limit(claims, backend, DEFAULTS.max_deliveries if max_deliveries is None else max_deliveries)
    kept = check_lease(claims, DEFAULTS.lease if lease is None else lease)
    levels = priorities
    if levels != 0:
        levels = check_count("priorities", levels, 0, 1_000_000)
        demand(claims.priority, backend, f"priorities={levels}", "priority")
        levels = check_count("priorities", levels, 0, claims.priorities_max)
    if flag("ordered", ordered):
        demand(claims.order, backend, "ordered=True", "order")
        if levels:
            raise InvalidArgument(
                f"ordered=True with priorities={levels}: an order of its own and priorities exclude each other"
            )
    return Properties(lease=kept, max_deliveries=limit, ordered=bool(ordered), priorities=int(levels))


def check_limit(claims: BrokerCapabilities, backend: str, value: object) -> int:
    """How often a message is handed out."""
    limit = check_count("max_deliveries", value, 0, 1000)
    if limit:
        demand(claims.dead_letters, backend, f"max_deliveries={limit} (0 means never)", "dead_letters")
    return limit


def check_lease(claims: BrokerCapabilities, value: object) -> float:
    """Seconds of a lease."""
    allowed = f"{claims.lease_min:g} to {claims.lease_max:g} seconds, as a number or a timedelta"
    return seconds("lease", value, low=claims.lease_min, high=claims.lease_max, allowed=allowed)


def check_change(
    claims: BrokerCapabilities,
    backend: str,
    path: str,
    max_deliveries: object,
    lease: object,
    ordered: object,
    priorities: object,
) -> tuple[float | None, int | None]:
    """What `alter` asks for: lease and limit, None for what stays."""
    for name, value in (("ordered", ordered), ("priorities", priorities)):
        if value is not None:
            raise Unsupported(
                f"alter({name}={value!r}) of {path!r}: {name} says how the messages of a queue lie, and stays as it is for as "
                "long as the queue is there, on every backend. Nothing was sent. Declare another queue with it, publish there, "
                "and consume this one until it is empty",
                backend=backend,
            )
    demand(claims.alter, backend, "alter()", "alter")
    if max_deliveries is None and lease is None:
        raise InvalidArgument(f"alter() of {path!r}: say what: max_deliveries=, lease= or both")
    return (
        None if lease is None else check_lease(claims, lease),
        None if max_deliveries is None else check_limit(claims, backend, max_deliveries),
    )


def check_extension(claims: BrokerCapabilities, backend: str, value: object) -> float:
    """Seconds for `extend`."""
    if claims.lease is not LeaseNature.MESSAGE:
        raise Unsupported(
            f"extend: on {backend} a delivery's lease hangs on the {claims.lease.value}, it cannot be extended on its own; "
            "it is kept for as long as this consumer lives",
            backend=backend,
        )
    if claims.extension is Support.ABSENT:
        raise Unsupported(
            f"extend: with this URL a lease on {backend} cannot be extended. Give the source a longer one (up to "
            f"{claims.lease_max:g} seconds), or do the work in shorter steps",
            backend=backend,
        )
    allowed = f"{claims.lease_min:g} to {claims.lease_max:g} seconds, as a number or a timedelta"
    return seconds("seconds", value, low=claims.lease_min, high=claims.lease_max, allowed=allowed)


def check_delay(claims: BrokerCapabilities, backend: str, delay: object, call: str) -> float:
    """Seconds of a delay; `call` is how errors show it."""
    length = seconds("delay", delay, low=0.0, high=sys.float_info.max, allowed="0 or more seconds, as a number or a timedelta")
    asked = call % f"{length:.15g}"
    if length > 0:
        demand(claims.delay, backend, asked, "delay")
    if length > claims.delay_max:
        raise InvalidArgument(f"{asked}: {backend} takes up to {claims.delay_max:.15g} seconds")
    return length


def check_nack(claims: BrokerCapabilities, backend: str, delay: object) -> Nack:
    """What `nack` asks for."""
    if delay == 0:
        return Nack(0.0)
    length = check_delay(claims, backend, delay, "nack(delay=%s)")
    return Nack(length)


def check_reject(claims: BrokerCapabilities, backend: str, reason: object) -> Reject:
    """What `reject` asks for; how often it was handed out is filled in later."""
    demand(claims.dead_letters, backend, "reject()", "dead_letters")
    return Reject(check_reason(reason), 0)


def check_reason(value: object) -> str:
    """Why a message is rejected: any text; what no header can carry is replaced, and the end is cut."""
    if not isinstance(value, str) or not value:
        raise InvalidArgument(f"reason={value!r}: expected text that says why")
    clean = "".join(" " if unicodedata.category(character) in ("Cc", "Cs") else character for character in value)
    return clean if len(clean) <= TEXT_MAX else clean[: TEXT_MAX - 3] + "..."


def check_headers(headers: object, most: int) -> dict[str, str]:
    """Text to text, within the backend's limit, none of ours. A copy: the caller's may change afterwards."""
    if not isinstance(headers, Mapping):
        raise InvalidArgument(f"headers={headers!r}: expected a mapping of text to text, got {type(headers).__name__}")
    size = 0
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            wrong = name if not isinstance(name, str) else value
            raise InvalidArgument(
                f"header {name!r}: {value!r}: names and values are text, got {type(wrong).__name__}; write {str(wrong)!r}"
            )
        if not name:
            raise InvalidArgument(f"header '': {value!r}: a name is not empty")
        if name.lower().startswith(RESERVED_PREFIX):
            raise InvalidArgument(f"header {name!r}: names that begin with {RESERVED_PREFIX!r} are reserved")
        try:
            size += len(name.encode()) + len(value.encode())
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"header {name!r}: {value!r}: lone surrogates are no text ({error.reason})") from None
    if size > most:
        raise InvalidArgument(f"headers of {size} bytes: allowed are {most} bytes, names and values together")
    return dict(headers)
