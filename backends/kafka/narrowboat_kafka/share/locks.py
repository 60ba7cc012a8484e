"""How the server is told to lock the messages of a group: for how long, from which message on, how often.

These are settings of the group, which anybody with the right may change, so they are looked at whenever a consumer is opened.
They stay when the group has no member.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from narrowboat.driver.sources import Declare
from narrowboat.errors import ConfigurationError, Conflict, Unavailable
from narrowboat_kafka.client import Code, KafkaError
from narrowboat_kafka.options import LOCK_HEAD, SCHEME, Options
from narrowboat_kafka.share.seam import Sharing

_LOCK = "share.record.lock.duration.ms"
_COUNT = "share.delivery.count.limit"
_BEGIN = "share.auto.offset.reset"
_AGREED = "share.assignment.interval.ms"
#: What we can do without, where the server allows less or does not know it.
_WISHES = frozenset({_COUNT, _AGREED})
#: Seconds in which every server of a cluster has heard of a setting that the first has.
_SPREAD = 0.5
_BEAT = "share.heartbeat.interval.ms"
#: As often as the server lets a message be handed out, unless it is set up for more; and what it does unless it is told.
_COUNT_MAX, _COUNT_USUAL = 10, 5
_BEAT_USUAL = 5000


class Terms(NamedTuple):
    """What the server does for a group."""

    limit: int  #: it hands a message out so often, and then drops it
    beat: float  #: seconds between two heartbeats: a new group has its partitions with the second
    lock: float  #: seconds of a lock that are a lease


class Locks:
    """See the module's text."""

    def __init__(self, sharing: Sharing, options: Options, timeout: float) -> None:
        self._sharing = sharing
        self._timeout = timeout
        self._options = options

    def ensure(self, group: str, path: str, lease: float) -> Terms:
        """Let its locks be as long as the lease of the queue `path` asks for. `ConfigurationError` where they cannot be."""
        found = self._known(group, path)
        wanted = {
            _LOCK: str(int((lease + LOCK_HEAD) * 1000)),
            _COUNT: str(_COUNT_MAX),
            _BEGIN: "earliest",  # a queue keeps what was published before its first consumer
            "share.isolation.level": "read_committed",  # what its program took back is for nobody
            _AGREED: "0",
        }
        wanted = {name: value for name, value in wanted.items() if found.get(name, value) != value}
        if _COUNT in wanted and int(found[_COUNT]) >= _COUNT_MAX:
            del wanted[_COUNT]
        if wanted:
            self._change(group, path, wanted)
            self._await(group, path, wanted)
        return self.look(group, path)

    def _await(self, group: str, path: str, wanted: dict[str, str]) -> None:
        """Wait until it is in force: a group that begins without would begin at the end, and never see what lies there."""
        until = time.monotonic() + self._timeout
        while True:
            found = self._known(group, path)
            if all(found.get(name, value) == value for name, value in wanted.items() if name not in _WISHES):
                break
            if time.monotonic() >= until:
                raise Unavailable(f"the settings of the group {group!r} did not come into force in time", backend=SCHEME)
            time.sleep(0.02)
        if _BEGIN in wanted:
            time.sleep(_SPREAD)

    def look(self, group: str, path: str) -> Terms:
        """What is in force."""
        found = self._known(group, path)
        lock = int(found[_LOCK]) / 1000 - LOCK_HEAD
        return Terms(int(found.get(_COUNT, _COUNT_USUAL)), int(found.get(_BEAT, _BEAT_USUAL)) / 1000, lock)

    def _known(self, group: str, path: str) -> dict[str, str]:
        found = self._sharing.settings(group)
        if _LOCK not in found:
            raise too_old(path)
        return found

    def _change(self, group: str, path: str, wanted: dict[str, str]) -> None:
        if self._options.declare is Declare.NEVER and _LOCK in wanted:
            raise Conflict(
                f"the group {group!r} of {path!r} is not set up for it, and the URL says declare=never. Consume it once with a "
                f"URL with declare=auto, or: kafka-configs.sh --alter --entity-type groups --entity-name {group} --add-config "
                + ",".join(f"{name}={value}" for name, value in wanted.items()),
                backend=SCHEME,
            )
        required = {name: value for name, value in wanted.items() if name not in _WISHES}
        for values in (wanted, required):
            try:
                if values:
                    self._sharing.configure(group, values)
            except KafkaError as error:
                if error.code != Code.INVALID_CONFIG:
                    raise
                refused = error
            else:
                return
        raise ConfigurationError(
            f"consuming {path!r}: the server refuses locks of {required.get(_LOCK, '?')} ms ({refused}). Its "
            "group.share.min.record.lock.duration.ms and group.share.max.record.lock.duration.ms say which it allows: "
            f"give the queue another lease (a lock is {LOCK_HEAD:g} s longer), and write what they are as ?lock_min= and "
            "?lock_max=",
            backend=SCHEME,
        ) from refused


def too_old(path: str) -> ConfigurationError:
    """The answer of a cluster without share groups."""
    return ConfigurationError(
        f"consuming {path!r}: the cluster has no share groups, which Kafka 4.2 and later have (the feature share.version is 1, "
        "and group.coordinator.rebalance.protocols has share in it). Write groups=classic, or upgrade it",
        backend=SCHEME,
    )
