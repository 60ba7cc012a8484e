"""Which client of Kafka a broker object stands on: the one that its URL names.

`kafka://` is `kafka+python://`, which people who follow a tutorial have. `kafka+confluent://` is librdkafka, which is faster;
where it is installed and not asked for, `narrowboat backends` and one line of the log say so. A client is imported when a
broker is opened or prepared.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from narrowboat.errors import ConfigurationError
from narrowboat_kafka.options import SCHEME

if TYPE_CHECKING:
    from narrowboat.driver.endpoint import Endpoint
    from narrowboat.dsn import Url
    from narrowboat_kafka.client import Client
    from narrowboat_kafka.options import Options

log = logging.getLogger("narrowboat.kafka")


class Kind(NamedTuple):
    """A client."""

    library: str  #: the module that it stands on
    module: str  #: the one of ours that has its class
    extra: str  #: what installs it


#: By the driver that a URL names.
KINDS = {
    "python": Kind("kafka", "narrowboat_kafka.library.client", "kafka"),
    "confluent": Kind("confluent_kafka", "narrowboat_kafka.confluent.client", "kafka-confluent"),
}
_USUAL, _FAST = "python", "confluent"


def load(url: Url) -> Callable[[Endpoint, Options, float], Client]:
    """The class that opens the client that `url` names; `ConfigurationError` where its library is not installed."""
    kind = KINDS[url.driver or _USUAL]
    try:
        found: Callable[[Endpoint, Options, float], Client] = importlib.import_module(kind.module).Client
    except ModuleNotFoundError as error:
        if url.driver is None or (error.name or "").partition(".")[0] != kind.library:
            raise
        raise ConfigurationError(
            f"{url.named}:// needs {kind.library}, which is not installed: pip install --upgrade "
            f"'.[{kind.extra}]' in a clone of Narrowboat (narrowboat[{kind.extra}] once it is published)",
            backend=SCHEME,
        ) from error
    if url.driver is None and (faster := at_hand(url.scheme)):
        log.debug(faster)
    return found


def at_hand(scheme: str) -> str:
    """Where the faster client is installed, how the scheme asks for it; empty where it is not."""
    library = KINDS[_FAST].library
    if importlib.util.find_spec(library) is None:
        return ""
    return f"{library} is installed: {scheme}+{_FAST}:// is the same, and faster"
