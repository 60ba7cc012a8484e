"""What is sold in one run, to whom, and under which names."""

from __future__ import annotations

import dataclasses
import json
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Order:
    """One buyer's order. A `poison` one fails whenever it is handled."""

    id: str
    item: int
    poison: bool = False

    def to_bytes(self) -> bytes:
        """As a message's body."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def from_bytes(cls, body: bytes) -> Order:
        """From a message's body."""
        return cls(**json.loads(body))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run. `run` is part of every name on the backend, so that two runs on one server never meet."""

    run: str
    locks: str  #: URL
    broker: str  #: URL
    folder: str  #: for the stock record and the journals
    buyers: int = 400
    items: int = 8
    stock: int = 20  #: of each item
    workers: int = 4
    seed: int = 0
    lock: bool = True  #: False: the workers do without, and the audit must fail
    faults: bool = True  #: kill one worker, and stop another for longer than its lease
    ttl: float = 2.0  #: seconds, of a lock
    lease: float | None = 2.0  #: seconds, of a delivery; None where the backend's leases hang on something else
    think: float = 0.008  #: seconds between reading the stock and writing it
    max_deliveries: int = 4
    wait: float = 30.0  #: seconds without any progress after which the sale is over

    @property
    def queue(self) -> str:
        """The name of the queue of orders."""
        return f"flash-sale-{self.run}"

    def lock_name(self, item: int) -> str:
        """The name of an item's lock."""
        return f"flash-sale-{self.run}:item:{item}"

    def to_line(self) -> str:
        """As one line, for a worker's standard input: a command line would show the URLs' passwords to everybody."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Plan:
        """From that line."""
        return cls(**json.loads(line))


def orders(plan: Plan) -> list[Order]:
    """Every buyer's order, the same for the same seed; one in fifty, and at least one, is poison.

    >>> [order.poison for order in orders(Plan(run="", locks="", broker="", folder="", buyers=3, seed=1))].count(True)
    1
    """
    chance = random.Random(plan.seed)
    poison = set(chance.sample(range(plan.buyers), max(1, plan.buyers // 50)))
    return [
        Order(id=f"{plan.run}-{number:05d}", item=chance.randrange(plan.items), poison=number in poison)
        for number in range(plan.buyers)
    ]
