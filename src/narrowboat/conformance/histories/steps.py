"""What a user does next: endless, and decided by its seed alone, not by what its calls answer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

#: The locks of a history: whether one has readers, and its permits where it is a semaphore.
TERMS: dict[str, tuple[bool, int | None]] = {"x0": (False, None), "x1": (False, None), "rw": (True, None), "sem": (False, 2)}
#: Keys of ordered messages. Few, so that a blocked key is noticed.
KEYS = ("a", "b", "c")


class Visit(NamedTuple):
    """One acquire and what follows."""

    name: str
    mode: str
    limit: int | None
    timeout: float  #: 0: a try
    renew: bool  #: whether its lease is renewed
    looks: int  #: how often the holder looks whether it holds, and writes what the lock guards
    pause: float  #: seconds before each look
    leaves: bool  #: by a release; else the holder lets its lease end


class Sending(NamedTuple):
    """One publish of so many `messages`."""

    messages: int
    key: str | None
    pause: float


class Stay(NamedTuple):
    """One consumer, from its opening to its end."""

    prefetch: int
    most: int  #: messages of a batch
    turns: tuple[tuple[str, float], ...]  #: what to do with each batch, and the seconds of work before


def visits(seed: str, locks: tuple[str, ...]) -> Iterator[Visit]:
    """Of a contender."""
    draw = random.Random(seed)
    while True:
        name = draw.choice(locks)
        readers, limit = TERMS[name]
        mode = draw.choice(("shared", "shared", "exclusive")) if readers else "exclusive"
        renew = draw.random() < 0.98
        yield Visit(
            name=name,
            mode=mode,
            limit=limit,
            timeout=draw.choice((0.0, 0.05, 1.0, 20.0, 20.0)),
            renew=renew,
            looks=draw.choice((1, 1, 1, 1, 2, 10)),
            pause=draw.choice((0.0, 0.0, 0.0, 0.001, 0.01)),
            leaves=renew or draw.random() < 0.5,
        )


def sendings(seed: str, *, ordered: bool) -> Iterator[Sending]:
    """Of a publisher."""
    draw = random.Random(seed)
    while True:
        if ordered:
            yield Sending(1, draw.choice(KEYS), draw.uniform(0.005, 0.03))
        else:
            yield Sending(draw.choice((1, 1, 5, 20, 50, 100)), None, draw.uniform(0.0, 0.03))


def stays(seed: str, outcomes: tuple[str, ...], *, guest: bool, ordered: bool) -> Iterator[Stay]:
    """Of a consumer. Mostly it acks; `outcomes` are what else it may do."""
    draw = random.Random(seed)
    while True:
        most = 1 if ordered else draw.choice((1, 10, 50, 100))
        count = draw.randint(1, 4) if guest else draw.randint(100, 1000)
        turns = tuple(
            (draw.choice(outcomes) if draw.random() < 0.1 else "ack", draw.choice((0.0, 0.0, 0.002, 0.05)))
            for _ in range(count)
        )
        yield Stay(prefetch=draw.choice((1, 20, 200)), most=most, turns=turns)
