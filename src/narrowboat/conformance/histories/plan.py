"""The plan of a history: which users there are, and what goes wrong when. A pure function of the seed and of what can be done.

The same seed, seconds and means give the same plan, on any machine. What the users do next is decided in `steps`, from the seed
of each. How calls interleave is the machine's affair, and so a replay repeats the plan and not each single event.
"""

from __future__ import annotations

import enum
import random
from typing import NamedTuple

from narrowboat.conformance.scenario import FACES


class Kind(enum.StrEnum):
    """What can go wrong."""

    KILL = "kill -9"  #: of a client's process, which is started anew
    STOP = "stop"  #: SIGSTOP of a client's process, past its leases
    RESET = "reset"  #: of every connection of a process
    HOLE = "black hole"
    HOLE_UP = "black hole to the server"
    HOLE_DOWN = "black hole to the client"
    SLOW = "slow"  #: latency, in small pieces
    DROP_REQUEST = "request dropped"  #: and its connection
    DROP_REPLY = "reply dropped"
    CUT = "cut at a byte"  #: of the next reply, and its connection
    LOST_REQUEST = "call not made"  #: by a layer in front of the driver
    LOST_REPLY = "answer lost"
    DELAY = "call delayed"
    SERVER_KILL = "server killed"
    SERVER_RESTART = "server restarted"
    SERVER_PAUSE = "server paused"
    DELETE = "record deleted"  #: of a lock, by an operator
    STORM = "membership storm"  #: consumers of one process that come and go


#: Those that reach a client's process, those of the network, those of a layer, and those of the server.
PROCESS = frozenset({Kind.KILL, Kind.STOP})
NETWORK = frozenset(
    {Kind.RESET, Kind.HOLE, Kind.HOLE_UP, Kind.HOLE_DOWN, Kind.SLOW, Kind.DROP_REQUEST, Kind.DROP_REPLY, Kind.CUT}
)
LAYER = frozenset({Kind.LOST_REQUEST, Kind.LOST_REPLY, Kind.DELAY})
SERVER = frozenset({Kind.SERVER_KILL, Kind.SERVER_RESTART, Kind.SERVER_PAUSE})

#: The driver calls that a layer breaks, by half.
CALLS = {"locks": ("attempt", "renew", "release", "withdraw"), "broker": ("send", "receive", "settle", "extend")}
#: Seconds between two faults of a server at least. Clients must have time to do something in between.
SERVER_PAUSES = 12.0
#: The share of the time, at its end, in which nothing goes wrong.
CALM = 0.1


class Role(enum.StrEnum):
    """What a user does."""

    CONTENDER = "contender"  #: takes locks
    PUBLISHER = "publisher"
    CONSUMER = "consumer"
    GUEST = "guest"  #: a consumer that comes and goes


class User(NamedTuple):
    """One client: a task, or on the sync face a thread. `number` is its place in its process."""

    number: int
    role: Role
    face: str
    ordered: bool = False  #: of the ordered queue


class Strike(NamedTuple):
    """Something that goes wrong `at` seconds after the beginning, for `seconds`."""

    at: float
    kind: Kind
    process: int  #: which process it is for; of no meaning for a server's
    seconds: float
    word: str = ""  #: the driver's call, or the lock
    keep: int = 0  #: bytes of a reply that arrive


class Means(NamedTuple):
    """What a backend and its harness allow."""

    halves: tuple[str, ...]
    kinds: frozenset[Kind]
    processes: int  #: 0: everything happens in this process
    locks: tuple[str, ...]  #: names of locks; see `steps.TERMS`
    ordered: bool
    past: float  #: seconds of a stop that outlasts the leases


class Plan(NamedTuple):
    """See the module's text."""

    seed: int
    seconds: float
    programs: tuple[tuple[User, ...], ...]  #: the users of each process
    strikes: tuple[Strike, ...]


def plan(seed: int, seconds: float, means: Means) -> Plan:
    """The plan of `seconds` seconds."""
    draw = random.Random(f"narrowboat history {seed}")
    programs = tuple(_users(draw, means) for _ in range(max(1, means.processes)))
    return Plan(seed, seconds, programs, tuple(_strikes(draw, seconds, means)))


def _users(draw: random.Random, means: Means) -> tuple[User, ...]:
    """Of each half, on both faces in any mixture."""
    roles: list[tuple[Role, bool]] = []
    if "locks" in means.halves:
        roles += [(Role.CONTENDER, False)] * draw.randint(3, 6)
    if "broker" in means.halves:
        roles += [(Role.PUBLISHER, False), (Role.CONSUMER, False), (Role.CONSUMER, False), (Role.GUEST, False)]
        if means.ordered:
            roles += [(Role.PUBLISHER, True), (Role.CONSUMER, True)]
    return tuple(User(number, role, draw.choice(FACES), ordered) for number, (role, ordered) in enumerate(roles))


def _strikes(draw: random.Random, seconds: float, means: Means) -> list[Strike]:
    """One after another; now and then the next one comes at once."""
    kinds = sorted(means.kinds)
    strikes: list[Strike] = []
    at, served = draw.uniform(0.5, 1.5), 0.0
    while kinds:
        kind = draw.choice(kinds)
        if kind in SERVER and at < served + SERVER_PAUSES:
            kind = draw.choice([each for each in kinds if each not in SERVER] or kinds)
        strike = _strike(draw, at, kind, means)
        if strike.at + strike.seconds > seconds * (1 - CALM):
            break
        if kind in SERVER:
            served = at + strike.seconds
        strikes.append(strike)
        at += strike.seconds + draw.choice((0.05, 0.5, 1.5, 3.0))
    return strikes


def _strike(draw: random.Random, at: float, kind: Kind, means: Means) -> Strike:
    process = draw.randrange(max(1, means.processes))
    seconds, word, keep = 0.0, "", 0
    if kind is Kind.STOP:
        seconds = means.past * draw.choice((0.3, 1.0, 1.5))
    elif kind is Kind.DELAY:
        seconds, word = draw.choice((0.05, 0.5)), _call(draw, means)
    elif kind in LAYER:
        word = _call(draw, means)
    elif kind is Kind.DELETE:
        word = draw.choice(means.locks)
    elif kind is Kind.CUT:
        keep = draw.randint(1, 60)
    elif kind in (Kind.KILL, Kind.STORM, *SERVER):
        seconds = draw.uniform(0.2, 3.0)
    elif kind in (Kind.HOLE, Kind.HOLE_UP, Kind.HOLE_DOWN, Kind.SLOW):
        seconds = draw.uniform(0.3, means.past)
    return Strike(round(at, 3), kind, process, round(seconds, 3), word, keep)


def _call(draw: random.Random, means: Means) -> str:
    return draw.choice([call for half in means.halves for call in CALLS[half]])
