"""The options of a `cassandra://` URL, and what its parts mean. Nothing here imports a client library."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from narrowboat.driver.endpoint import Endpoint
from narrowboat.driver.options import check_ranges
from narrowboat.driver.tls import TlsOptions
from narrowboat.dsn import Url
from narrowboat.errors import ConfigurationError

SCHEME = "cassandra"
TLS_SCHEME = "cassandras"

#: What Cassandra takes as the name of a keyspace or table, without quotes.
_NAME = re.compile("[A-Za-z][A-Za-z0-9_]{0,47}")


class Consistency(enum.Enum):
    """Which replicas agree on a grant."""

    SERIAL = "serial"  #: a majority of all replicas, in all data centres
    LOCAL_SERIAL = "local_serial"  #: a majority in the data centre of `dc`: locks exclude each other within it alone


class Durability(enum.Enum):
    """How durable each node has to be. The driver checks the nodes' settings when it connects."""

    MEMORY = "memory"  #: no check, and no claim: a node that is killed may forget the grants of the last seconds
    DISK = "disk"  #: commitlog_sync is batch or group: a node answers when its disk has what was written


@dataclass(frozen=True, kw_only=True)
class Options(TlsOptions):
    """`cassandra://user:password@a:9042,b/keyspace?prefix=&consistency=serial&durability=memory&create=false`."""

    prefix: str = ""  #: a namespace of its own in the same table; two prefixes never meet
    table: str = "narrowboat_locks"  #: of the keyspace
    consistency: Consistency = Consistency.SERIAL
    dc: str | None = None  #: the data centre whose nodes are asked; None: all nodes. `local_serial` needs it
    durability: Durability = Durability.MEMORY
    create: bool = False  #: whether to make the keyspace and the table where they do not exist
    replication: int = 3  #: nodes that keep a keyspace which `create` makes, in each data centre
    max_skew: float = 0.1  #: seconds by which the clocks of two nodes may differ: each holder gives up this much earlier
    poll: float = 0.5  #: seconds: the longest pause between two looks of one who waits

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            SCHEME,
            ("replication", 1, 16, "1 to 16 nodes"),
            ("max_skew", 0.0, 60.0, "0 to 60 seconds"),
            ("poll", 0.05, 60.0, "0.05 to 60 seconds"),
        )
        if not _NAME.fullmatch(self.table):
            raise ConfigurationError(
                "option table: a table's name is a letter and up to 47 letters, digits and underscores", backend=SCHEME
            )
        if self.consistency is Consistency.LOCAL_SERIAL and not self.dc:
            raise ConfigurationError(
                "option consistency=local_serial needs dc=, the data centre in which all programs take the lock", backend=SCHEME
            )


@dataclass(frozen=True, kw_only=True, repr=False)
class Ring(Endpoint):
    """The nodes by which we enter, and the table."""

    options: Options

    @classmethod
    def of(cls, url: Url, options: Options) -> Ring:
        """The ring that `url` names; `ConfigurationError` where Cassandra does not take such a URL."""
        ring = cls.read(url, options, plain=SCHEME, port=9042, host="127.0.0.1", pair=True, options=options)
        if not _NAME.fullmatch(ring.keyspace):
            raise ConfigurationError(
                f"{ring.scheme}:// needs a keyspace, as in {ring.scheme}://host/keyspace: a letter and up to 47 letters, "
                "digits and underscores",
                backend=ring.scheme,
            )
        if len({host.port for host in ring.hosts}) > 1:
            raise ConfigurationError(
                f"{ring.scheme}:// takes one port for all hosts: every node of a ring listens on the same one",
                backend=ring.scheme,
            )
        return ring

    @property
    def keyspace(self) -> str:
        """The keyspace, as Cassandra folds it."""
        return self.database.strip("/").lower()

    @property
    def table(self) -> str:
        """The table with its keyspace, as statements name it."""
        return f"{self.keyspace}.{self.options.table.lower()}"
