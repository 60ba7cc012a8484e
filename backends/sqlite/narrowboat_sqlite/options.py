"""What a `sqlite:///path` URL takes beside its path: the options of both halves, and those of messages alone."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from narrowboat.driver.options import check_ranges, check_spans
from narrowboat.driver.sources import Declare
from narrowboat.errors import ConfigurationError

SCHEME = "sqlite"

#: Seconds between two looks below which a waiting process only burns CPU: 1 ms already costs about 3 % of a core.
POLL_MIN = 0.001
#: Seconds between two looks above which a hand-over to another process feels stuck, and `wake_bound` could not be kept.
POLL_MAX = 0.25


_MODE = re.compile("0?[67][0-7][0-7]", re.ASCII)


class Durability(enum.Enum):
    """The worst event that what was answered outlives."""

    FULL = "full"  #: loss of power: each commit is synced to the disk
    NORMAL = "normal"  #: a crash of any process; a loss of power may take back the last commits, never the order of them


@dataclass(frozen=True, kw_only=True)
class Options:
    """`sqlite:///path?durability=full&prefix=&poll=0.005&mode=0600`."""

    durability: Durability = Durability.FULL
    prefix: str = ""  #: a namespace of its own in the same file; two prefixes never meet
    poll: float = 0.005  #: seconds between two looks for another process's commit, while this process has a waiter
    mode: str = "0600"  #: who may read and write the file, as chmod has it, when it is made here; -wal and -shm follow it

    @property
    def permissions(self) -> int:
        """`mode` as a number."""
        return int(self.mode, 8)

    def __post_init__(self) -> None:
        if not _MODE.fullmatch(self.mode):
            raise ConfigurationError(
                "option mode: three octal digits as chmod takes them, the first one 6 (our own user must read and "
                "write): 0600 for this user alone, 0660 for the group as well",
                backend=SCHEME,
            )
        why = "(a shorter one burns CPU in every waiting process, a longer one delays hand-overs)"
        check_ranges(self, SCHEME, ("poll", POLL_MIN, POLL_MAX, f"{POLL_MIN:g} to {POLL_MAX:g} seconds {why}"))


@dataclass(frozen=True, kw_only=True)
class MessageOptions(Options):
    """`sqlite:///path?durability=full&prefix=&poll=0.005&mode=0600&declare=auto&dedup=300&retention=0`."""

    declare: Declare = Declare.AUTO
    dedup: float = 300.0  #: seconds for which a second message of the same id is dropped; 0: never
    retention: float = 0.0  #: seconds for which topics keep messages for subscriptions that begin at the earliest; 0: none

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spans(SCHEME, dedup=self.dedup, retention=self.retention)
