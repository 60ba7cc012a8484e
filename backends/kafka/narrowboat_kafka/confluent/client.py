"""All that one broker object has open on confluent-kafka. See `client.Client`.

The library says why a connection was not made in words of its own, and not all of it. So where the first one fails, one of
the servers is asked directly (`probe.py`), and what that meets is told.
"""

from __future__ import annotations

import threading
import time
import weakref

from confluent_kafka import version

from narrowboat.driver.endpoint import Endpoint
from narrowboat.errors import ConfigurationError
from narrowboat_kafka.client import SOON, Code, Ear, KafkaError, Unconnected
from narrowboat_kafka.confluent import LOWEST, LOWEST_SHARE
from narrowboat_kafka.confluent.admin import Admin
from narrowboat_kafka.confluent.errors import border
from narrowboat_kafka.confluent.loop import Loop
from narrowboat_kafka.confluent.member import Member
from narrowboat_kafka.confluent.probe import probe
from narrowboat_kafka.confluent.producer import Producer
from narrowboat_kafka.confluent.settings import Settings
from narrowboat_kafka.confluent.sharing import Sharing
from narrowboat_kafka.options import SCHEME, Groups, Options

#: Errors of a connection that the next try meets again.
_FINAL = frozenset({Code.SASL_AUTHENTICATION_FAILED, Code.UNSUPPORTED_SASL_MECHANISM, Code.TLS_FAILED})


def check_version(found: str, groups: Groups = Groups.CLASSIC) -> None:
    """Raise `ConfigurationError` for a library that is too old for such groups."""
    share = groups is Groups.SHARE
    numbers, lowest = tuple(int(part) for part in found.split(".")[:3] if part.isdigit()), LOWEST_SHARE if share else LOWEST
    if numbers < lowest:
        raise ConfigurationError(
            f"{'option groups=share: ' if share else ''}confluent-kafka {found} is installed, and "
            f"{'.'.join(map(str, lowest))} or later is needed: "
            "pip install --upgrade '.[kafka-confluent]' in a clone of Narrowboat",
            backend=SCHEME,
        )


class Client:
    """See the module's text. `timeout`: seconds of one operation."""

    def __init__(self, endpoint: Endpoint, options: Options, timeout: float) -> None:
        said = version()
        check_version(said if isinstance(said, str) else said[0], options.groups)
        self._endpoint = endpoint
        self._options = options
        self._settings = Settings(endpoint, options, timeout)
        # Those that have ended are not kept: a broker may open and close as many consumers as it likes.
        self._members: weakref.WeakSet[Member] = weakref.WeakSet()
        self._producers: weakref.WeakSet[Producer] = weakref.WeakSet()
        self.loop = Loop()
        try:
            self.admin = Admin(self._settings, self.loop)
        except BaseException:  # an interrupt included: nobody else would end the thread
            self.loop.close(SOON)
            raise
        try:
            self._connect(timeout)
        except BaseException:  # the same, and its connections
            self.close(0.0)
            raise

    def _connect(self, seconds: float) -> None:
        """Wait for the first answer; `Unconnected` where it does not come."""
        until = time.monotonic() + seconds
        asked = self.admin.ask_who(seconds)
        while not asked.done() and time.monotonic() < until:
            self.admin.poll(min(0.05, max(0.0, until - time.monotonic())))
            last = self.admin.troubles.last
            if last is not None and last.code in _FINAL:
                raise self._unconnected(last, until)
        try:
            with border():
                asked.result(0)
        except KafkaError as error:
            raise self._unconnected(self.admin.troubles.last or error, until) from error

    def _unconnected(self, last: KafkaError, until: float) -> KafkaError:
        if last.code in (Code.SASL_AUTHENTICATION_FAILED, Code.UNSUPPORTED_SASL_MECHANISM):
            return last
        met = probe(self._endpoint, self._options, max(1.0, until - time.monotonic()))
        return Unconnected(Code.UNREACHABLE, "no server could be reached in time", met=met or last)

    def member(self, group: str, ear: Ear) -> Member:
        """A member that has subscribed to nothing yet."""
        made = Member(group, ear, self._settings, self.loop, self.admin)
        self._members.add(made)
        return made

    def producer(self) -> Producer:
        """A producer that has sent nothing yet."""
        made = Producer(self._settings.producer())
        self._producers.add(made)
        return made

    def sharing(self) -> Sharing:
        """Share groups, where the URL asks for them."""
        return Sharing(self._settings, self.admin)

    def close(self, within: float) -> None:
        """End what is still open and the loop, within so many seconds if the server does not answer."""
        until = time.monotonic() + within + SOON
        for member in list(self._members):
            member.end()
        for producer in list(self._producers):
            producer.end(0.0)
        ending = threading.Thread(target=self.admin.end, name="narrowboat-kafka-closing", daemon=True)
        ending.start()
        ending.join(max(0.0, until - time.monotonic()))
        self.loop.close(max(0.0, until - time.monotonic()))

    def disown(self) -> None:
        """In a forked child: threads and connections are the parent's, and nothing here may touch them any more."""
        for producer in list(self._producers):
            producer.disown()
        self.loop.disown()
