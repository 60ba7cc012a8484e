"""What librdkafka is told: the settings that all handles of one broker object share, and those of each kind.

Addresses, TLS, user and password come from the URL. The files of TLS are read by Python first, so that a wrong one is
refused in the words that every backend has. A handle's log goes to ours, at DEBUG: what librdkafka calls an error is a
connection that it makes anew by itself. It has no secret in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from narrowboat.driver.endpoint import Endpoint
from narrowboat.driver.tls import Verify
from narrowboat_kafka.client import LARGEST
from narrowboat_kafka.options import Groups, Options, Sasl

log = logging.getLogger("narrowboat.kafka")

#: How each is called on the wire.
_SASL = {Sasl.PLAIN: "PLAIN", Sasl.SCRAM_256: "SCRAM-SHA-256", Sasl.SCRAM_512: "SCRAM-SHA-512"}
#: Bytes of each partition that are fetched at a time.
_FETCH_MAX = 1024 * 1024
#: Kilobytes that lie fetched in a member, at most, before one of its partitions is asked for more. The library needs some
#: 400 bytes beside each message, which are not counted.
_QUEUED = 4 * 1024
#: Milliseconds for which a batch waits for more: a caller that is done with handing over does not wait for that. With one
#: millisecond the library's thread spins until it is over, which costs more than all the rest.
_LINGER = 5
#: Bytes of one partition that are stored together.
_BATCH = 1024 * 1024
#: Messages, and kilobytes of them, that one producer holds. Who has more waits.
_HELD, _HELD_KB = 100_000, 256 * 1024

#: What the log calls a line about a connection that ended or was not made.
_FAIL = "FAIL"

#: Milliseconds between two polls of a member of a share group: the most that librdkafka takes.
_NEVER = 86_400_000
#: Milliseconds for which the server keeps a fetch of a share group that finds nothing.
_SHARE_WAIT = 100
#: Messages that are stored together where a share group reads: the server hands them to one member together.
_TOGETHER = 16


class Log:
    """What the library calls as a logger. `failed`: told of each line about a connection that ended or was not made."""

    def __init__(self, failed: Callable[[str], object] | None = None) -> None:
        self._failed = failed

    def log(self, level: int, text: str, *arguments: object) -> None:
        """A line of its log: what it is about, the handle's name, and the line."""
        if self._failed is not None and arguments[0] == _FAIL:
            self._failed(str(arguments[-1]))
        if level > logging.DEBUG:  # a producer has to ask for a line at each step (`debug`), and none but `failed` wants them
            log.debug(text, *arguments)


class Settings:
    """See the module's text. `timeout`: seconds of one operation."""

    def __init__(self, endpoint: Endpoint, options: Options, timeout: float) -> None:
        self.timeout = timeout
        self._options = options
        limit = int(timeout * 1000)
        self._shared: dict[str, Any] = {
            "bootstrap.servers": ",".join(map(str, endpoint.hosts)),
            "client.id": "narrowboat",
            "socket.timeout.ms": max(600, limit),
            "socket.connection.setup.timeout.ms": max(1000, limit),
            "socket.keepalive.enable": True,
            "socket.nagle.disable": True,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            "retry.backoff.ms": 50,
            "topic.metadata.refresh.interval.ms": 30_000,
            "allow.auto.create.topics": False,
            "receive.message.max.bytes": options.max_reply,
        }
        protocol = ("SASL_" if endpoint.secret is not None else "") + ("SSL" if endpoint.tls else "PLAINTEXT")
        self._shared["security.protocol"] = protocol
        if endpoint.tls:
            self._shared |= _tls(endpoint, options)
        if endpoint.secret is not None:
            self._shared |= {
                "sasl.mechanism": _SASL[options.sasl],
                "sasl.username": endpoint.user,
                "sasl.password": endpoint.secret.reveal(),
            }

    def admin(self) -> dict[str, Any]:
        """Of the administration."""
        return dict(self._shared)

    def bystander(self, group: str) -> dict[str, Any]:
        """Of the consumer that asks what a group has committed."""
        return {**self._shared, "group.id": group, "enable.auto.commit": False}

    def member(self, group: str) -> dict[str, Any]:
        """Of the consumer that is a member. It reads nothing: all of its partitions are paused."""
        session = int(self._options.session * 1000)
        return {
            **self._shared,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "latest",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session,
            # A rebalance is heard of with a heartbeat: its steps take about so long.
            "heartbeat.interval.ms": max(250, session // 20),
            # So long the others wait for a member that does not come to a rebalance.
            "max.poll.interval.ms": max(session, 10_000),
            "queued.max.messages.kbytes": 1,
        }

    def reader(self, group: str) -> dict[str, Any]:
        """Of the consumer that reads. It never joins the group; a consumer has to name one."""
        return {
            **self._shared,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # An offset that is not there: the member hears that by what comes then.
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",  # what its program took back is for nobody
            "check.crcs": True,
            "enable.partition.eof": True,
            "fetch.message.max.bytes": _FETCH_MAX,
            "fetch.max.bytes": max(1_000_000, self._options.max_reply // 2),  # a single message may be larger than that
            "queued.max.messages.kbytes": _QUEUED,
            "fetch.queue.backoff.ms": 10,
            "fetch.error.backoff.ms": 200,
        }

    def sharer(self, group: str, size: int) -> dict[str, Any]:
        """Of a member of a share group. What is said of a member in general is the server's to say there."""
        shared = {name: value for name, value in self._shared.items() if name != "allow.auto.create.topics"}
        return {
            **shared,
            "group.id": group,
            "share.acknowledgement.mode": "explicit",
            "max.poll.records": size,
            "max.poll.interval.ms": _NEVER,  # one whose handlers are all busy asks for nothing
            "check.crcs": True,
            "fetch.max.bytes": max(1_000_000, self._options.max_reply // 2),
            # What comes to a fetch that nobody waits for any more is locked for nobody: no fetch lasts for long.
            "fetch.wait.max.ms": _SHARE_WAIT,
        }

    def producer(self) -> dict[str, Any]:
        """Of a producer. Whether a message has left is asked when its time is over, so librdkafka's own time is longer."""
        limit = int(self.timeout * 1000)
        return {
            **self._shared,
            "debug": "broker",  # each connection that breaks is told of, also where it is the second one (`Troubles`)
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",  # a key's partition is the same as of other clients
            "linger.ms": _LINGER,
            "batch.size": _BATCH,
            "message.max.bytes": LARGEST,
            "message.timeout.ms": 2 * limit + 10_000,
            "socket.timeout.ms": 2 * limit + 10_000,
            "queue.buffering.max.messages": _HELD,
            "queue.buffering.max.kbytes": _HELD_KB,
            **({"batch.num.messages": _TOGETHER} if self._options.groups is Groups.SHARE else {}),
        }


def _tls(endpoint: Endpoint, options: Options) -> dict[str, Any]:
    options.context(backend=endpoint.scheme)  # refuses files that are none of what they should be
    found: dict[str, Any] = {"ssl.ca.location": options.ca or "probe"}
    if options.checks is not Verify.FULL:
        found["ssl.endpoint.identification.algorithm"] = "none"
    if options.checks is Verify.NONE:
        found["enable.ssl.certificate.verification"] = False
    if options.cert is not None:
        found |= {"ssl.certificate.location": options.cert, "ssl.key.location": options.key or options.cert}
    if options.key_password is not None:
        found["ssl.key.password"] = options.key_password.reveal()
    return found
