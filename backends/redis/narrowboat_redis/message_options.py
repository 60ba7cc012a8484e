"""What a `redis://` URL takes for messages, beside what it takes anyway."""

from __future__ import annotations

from dataclasses import dataclass

from narrowboat.driver.sources import Declare
from narrowboat.errors import ConfigurationError
from narrowboat_redis.options import SCHEME, Common, Durability

__all__ = ["Declare", "Durability", "MessageOptions"]


@dataclass(frozen=True, kw_only=True)
class MessageOptions(Common):
    """`redis://host:6379/0?prefix=&durability=memory&declare=auto&dedup=300`."""

    declare: Declare = Declare.AUTO
    dedup: float = 300.0  #: seconds for which a second message of the same id is dropped; 0: never

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dedup < 0:
            raise ConfigurationError(f"option dedup={self.dedup:g}: a number of seconds, 0 or more", backend=SCHEME)
