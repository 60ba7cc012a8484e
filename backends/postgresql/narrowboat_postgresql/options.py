"""The options of a `postgresql://` URL, for locks and for messages, and what names become in the tables.

`Common` has the options that both halves share.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from narrowboat.driver.names import digest, escape_all
from narrowboat.driver.options import check_spans
from narrowboat.driver.sources import Declare
from narrowboat.driver.tls import TlsOptions
from narrowboat.errors import ConfigurationError

SCHEME = "postgresql"
PORT = 5432

#: A schema's name as PostgreSQL takes it unquoted. A channel has it as a part, and a channel has 63 bytes.
_SCHEMA = re.compile("[a-z_][a-z0-9_]{0,31}", re.ASCII)
#: Bytes of a name that stand in an index as they are. A row of an index holds 2,700 bytes, and has more than the name.
_PLAIN = 600


@dataclass(frozen=True, kw_only=True)
class Common(TlsOptions):
    """The options of both halves."""

    prefix: str = ""  #: a namespace of its own in the same tables; two prefixes never meet
    schema: str = "narrowboat"  #: where the tables are; it is made when it is not there

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _SCHEMA.fullmatch(self.schema) or self.schema.startswith("pg_"):
            raise ConfigurationError(
                "option schema: 1 to 32 lower-case letters, digits and underscores, not beginning with a digit or pg_",
                backend=SCHEME,
            )

    @property
    def space(self) -> str:
        """The prefix as it stands in the tables."""
        return fit(escape_all(self.prefix, "-_.~@+=,/:"))


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """`postgresql://user:password@host:5432/database?prefix=&schema=narrowboat`."""


@dataclass(frozen=True, kw_only=True)
class MessageOptions(Common):
    """`postgresql://user:password@host:5432/database?prefix=&schema=narrowboat&declare=auto&dedup=300&retention=0`."""

    declare: Declare = Declare.AUTO
    dedup: float = 300.0  #: seconds for which a second message of the same id is dropped; 0: never
    retention: float = 0.0  #: seconds for which topics keep messages for subscriptions that begin at the earliest; 0: none

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spans(SCHEME, dedup=self.dedup, retention=self.retention)


def fit(name: str) -> str:
    """`name` as a key of an index: itself, or its hash where it is long or could be taken for one.

    >>> fit("invoice:42"), len(fit("x" * 1000)), fit("#1")[:3]
    ('invoice:42', 65, '#0b')
    """
    return name if len(name.encode()) <= _PLAIN and not name.startswith("#") else f"#{digest(name)}"
