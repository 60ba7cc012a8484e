"""What a `kafka://` URL takes beside its address, and what cannot work refused before anything is sent."""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass

from narrowboat.driver.endpoint import Endpoint
from narrowboat.driver.options import check_ranges
from narrowboat.driver.sources import Declare
from narrowboat.driver.tls import TlsOptions
from narrowboat.dsn import Url
from narrowboat.errors import ConfigurationError

SCHEME = "kafka"
#: Which client: `kafka+confluent://`. Without one it is the first.
DRIVERS = ("python", "confluent")
#: The one on librdkafka, which alone has share groups, and threads for each consumer that it shares with none.
SHARING = "confluent"
#: Where a server listens unless the URL says otherwise.
PORT = 9092

#: Seconds that a session may last: a shorter one ends by itself on a loaded machine, a longer one servers refuse.
SESSION_MIN, SESSION_MAX = 1.0, 1800.0
#: Seconds of the longest delay that can be asked for: every factor of 4 is one more partition of each retry topic.
DELAY_MIN, DELAY_MAX = 1.0, 30 * 86400.0
#: Bytes of the least that an answer may have: what is fetched of one partition at a time, and more for the rest of it.
REPLY_MIN = 4 * 1024 * 1024

#: Partitions of a topic that classic groups read.
PARTITIONS = 8
#: Seconds of the longest lock that a server can be set up for.
LOCK_MAX = 3600.0
#: Seconds by which a lock is longer than the lease of its message: it begins when the server sends the message.
LOCK_HEAD = 3.0

#: No `_`: the server takes `a_b` and `a.b` for the same. No `--`: it stands between a namespace and a name.
_PREFIX = re.compile(r"[A-Za-z0-9.]+(-[A-Za-z0-9.]+)*")
_PREFIX_MAX = 60


class Sasl(enum.Enum):
    """How the URL's user and password are shown to the server."""

    PLAIN = "plain"
    SCRAM_256 = "scram-sha-256"
    SCRAM_512 = "scram-sha-512"


class Groups(enum.Enum):
    """Who shares out the messages of a queue."""

    CLASSIC = "classic"  #: the members: each partition belongs to one of them at a time
    SHARE = "share"  #: the server: each message to whoever asks


@dataclass(frozen=True, kw_only=True)
class Options(TlsOptions):
    """`kafka://user:password@a:9092,b:9092/?prefix=&partitions=8&session=10`."""

    prefix: str = ""  #: a namespace of its own on the same server; two prefixes never meet
    declare: Declare = Declare.AUTO
    partitions: int | None = None  #: of topics that we create; None: 8, and 1 with share groups (see `spread`)
    replication: int = 0  #: copies of topics that we create; 0: as the server is set up
    retention: float = 0.0  #: seconds for which topics that we create keep messages, for replay; 0: for ever, without replay
    session: float = 10.0  #: seconds after which a consumer that has died gives its messages back
    delay_max: float = 86400.0  #: seconds of the longest delay; fixes how many partitions a retry topic has
    sasl: Sasl = Sasl.PLAIN
    max_reply: int = 64 * 1024 * 1024  #: bytes of one answer of a server, at most; a message that is larger cannot be read

    groups: Groups = Groups.CLASSIC
    lock_min: float = 15.0  #: seconds of the shortest and the longest lock that the server gives a message of a share group
    lock_max: float = 60.0

    @property
    def spread(self) -> int:
        """Partitions of topics that we create.

        So many members of a classic group work side by side. A share group needs one: with more, the server gives each member
        its own as long as there are enough, and what lies in one waits while the handlers of that member are busy.
        """
        return self.partitions or (1 if self.groups is Groups.SHARE else PARTITIONS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prefix and (len(self.prefix) > _PREFIX_MAX or not _PREFIX.fullmatch(self.prefix)):
            raise ConfigurationError(
                f"option prefix: allowed are up to {_PREFIX_MAX} letters, digits, dots and single dashes between them",
                backend=SCHEME,
            )
        if self.partitions is not None:
            check_ranges(self, SCHEME, ("partitions", 1, 1000, "1 to 1000"))
        check_ranges(
            self,
            SCHEME,
            ("lock_min", 1.0, LOCK_MAX, f"1 to {LOCK_MAX:g} seconds"),
            ("lock_max", self.lock_min + LOCK_HEAD, LOCK_MAX, f"lock_min and {LOCK_HEAD:g} to {LOCK_MAX:g} seconds"),
            ("replication", 0, 100, "0 (as the server is set up) to 100"),
            ("retention", 0, math.inf, "a number of seconds, 0 or more"),
            ("session", SESSION_MIN, SESSION_MAX, f"{SESSION_MIN:g} to {SESSION_MAX:g} seconds"),
            ("max_reply", REPLY_MIN, 2**31 - 1, f"{REPLY_MIN} to {2**31 - 1} bytes"),
            ("delay_max", DELAY_MIN, DELAY_MAX, f"{DELAY_MIN:g} to {DELAY_MAX:g} seconds"),
        )


def endpoint(url: Url, options: Options) -> Endpoint:
    """Where the servers are; `ConfigurationError` for what this URL cannot mean."""
    if options.groups is Groups.SHARE and url.driver != SHARING:
        raise ConfigurationError(
            f"option groups=share: kafka-python has no share groups. Write {SCHEME}+{SHARING}:// "
            "(pip install '.[kafka-confluent]' in a clone of Narrowboat), or groups=classic",
            backend=SCHEME,
        )
    return Endpoint.read(url, options, plain=SCHEME, port=PORT, host=None, drivers=DRIVERS, pair=True, path=False)
