"""What a `sqlite:///path` URL takes for messages, beside what it takes anyway."""

from __future__ import annotations

from dataclasses import dataclass

from narrowboat.driver.sources import Declare
from narrowboat.errors import ConfigurationError
from narrowboat_sqlite.options import SCHEME, Options


@dataclass(frozen=True, kw_only=True)
class MessageOptions(Options):
    """`sqlite:///path?durability=full&prefix=&poll=0.005&mode=0600&declare=auto&dedup=300&retention=0`."""

    declare: Declare = Declare.AUTO
    dedup: float = 300.0  #: seconds for which a second message of the same id is dropped; 0: never
    retention: float = 0.0  #: seconds for which topics keep messages for subscriptions that begin at the earliest; 0: none

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("dedup", self.dedup), ("retention", self.retention)):
            if value < 0:
                raise ConfigurationError(f"option {name}={value:g}: a number of seconds, 0 or more", backend=SCHEME)
