"""Seals messages on their way out, and opens them on their way in.

    broker = narrowboat.broker("redis://cache?seal=keyring.json")
    broker = narrowboat.broker("redis://cache", wrap=Seal(Keyring.file("keyring.json")).wrap)  # the same

What a seal protects, and what it does not, is in `docs/how-to/sealing.md`.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Collection, Sequence

from narrowboat._engine.log import log
from narrowboat.capabilities import BrokerCapabilities
from narrowboat.contract import Ack, Address, Broker, Delivery, Kind, Outcome, Outgoing
from narrowboat.contract.messages import DEAD_PREFIX
from narrowboat.errors import InvalidArgument, NarrowboatError
from narrowboat.layers.changing import ChangingBroker, Unopened, origin_of
from narrowboat.layers.sealed.format import MARKER, OVERHEAD, Sealer, milliseconds, place_of, read_marker, sealer
from narrowboat.layers.sealed.keyring import Keyring
from narrowboat.layers.sealed.keys import GCM, NONCE, Key
from narrowboat.layers.sealed.window import Window

#: Messages of one process to one address with one key, after which the log asks for a rotation. With random nonces a key may
#: seal 2**32 messages for an address; a fleet of 64 busy processes reaches that together.
ROTATE_AT = 2**26
#: Addresses whose bound form is remembered, as in `format`.
_REMEMBERED = 1024


class Seal:
    """What is sealed, and what is taken. One serves any number of brokers, and of threads.

    Args:
        keyring: the keys.
        clear: paths of the sources (`orders`, `prices.g`) from which messages without a seal are taken, while publishers are
            moved to sealing; "*" means all, with replies. What has a seal must open all the same.
        window: seconds; what was sealed longer ago, or further in the future, is refused, and so is a copy of what was
            acknowledged here. None: neither.
        limit: bytes; a larger body is refused unopened. None: what the backend takes.
        wall: seconds since the epoch.
        random: that many random bytes.
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        clear: Collection[str] = (),
        window: float | None = None,
        limit: int | None = None,
        wall: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if isinstance(clear, str):
            raise InvalidArgument(f"clear={clear!r}: expected a collection of paths, such as [{clear!r}]")
        if window is not None and not window > 0:
            raise InvalidArgument(f"window={window!r}: expected more than 0 seconds, or None")
        self.keyring = keyring
        self.limit = limit
        self.wall = wall
        self.window = None if window is None else Window(window)
        self._clear = frozenset(clear)
        self._random = random
        self._places: dict[Address, bytes] = {}
        self._counted: dict[tuple[str, bytes], int] = {}

    def wrap(self, driver: Broker) -> Broker:
        """`driver` behind this: hand it over as `wrap=`."""
        return SealedBroker(driver, self)

    def claims(self, inner: BrokerCapabilities) -> BrokerCapabilities:
        """What is left of a driver's claims: headers and the seal itself take their room out of the body."""
        return dataclasses.replace(inner, body_max=max(inner.body_max - inner.headers_max - OVERHEAD, 0))

    def key(self) -> Key:
        """The key that seals now."""
        return self.keyring.sealing()

    def place(self, address: Address) -> bytes:
        """What an address is bound as."""
        place = self._places.get(address)
        if place is None:
            if len(self._places) >= _REMEMBERED:
                self._places.clear()
            place = self._places[address] = place_of(address)
        return place

    def nonces(self, count: int) -> list[bytes]:
        """That many, none of which was or will be used."""
        drawn = self._random(NONCE * count)
        return [drawn[start : start + NONCE] for start in range(0, len(drawn), NONCE)]

    def takes_clear(self, path: str) -> bool:
        """Whether messages without a seal are taken from a source."""
        return path in self._clear or "*" in self._clear

    def count(self, key: Key, place: bytes, number: int) -> None:
        """Tell the log, once, when a key has sealed so much for an address that it should be rotated."""
        before = self._counted.get((key.id, place), 0)
        self._counted[key.id, place] = before + number
        if before < ROTATE_AT <= before + number and key.kind == GCM:
            log(
                "WARNING",
                "the key %r has sealed %d messages for one address in this process, and may seal 2**32 in all: rotate it, "
                "narrowboat keys rotate FILE",
                key.id,
                before + number,
                event="keyring",
            )


class SealedBroker(ChangingBroker):
    """A message driver in front of `inner`, behind `seal`."""

    def __init__(self, inner: Broker, seal: Seal) -> None:
        super().__init__(inner)
        self.seal = seal
        self.capabilities = seal.claims(inner.capabilities)
        self._most = inner.capabilities.body_max
        self._limit = self._most if seal.limit is None else seal.limit

    def outgoing(self, messages: Sequence[Outgoing]) -> list[Outgoing | NarrowboatError]:
        """Sealed."""
        rules = self.seal
        try:
            key = rules.key()
        except NarrowboatError as error:
            return [error for _ in messages]
        now, most = milliseconds(rules.wall()), self._most
        sealers: dict[Address, Sealer] = {}
        answers: list[Outgoing | NarrowboatError] = []
        for message, nonce in zip(messages, rules.nonces(len(messages)), strict=True):
            found = sealers.get(message.to)
            if found is None:
                place = rules.place(message.to)
                found = sealers[message.to] = sealer(key, place)
                if message.to.kind is not Kind.INBOX:  # there is no end to them, and none takes many
                    rules.count(key, place, len(messages))
            if not found.suite.conceals and MARKER in message.headers:
                answers.append(_sealed_twice(message, key))
                continue
            sealed = found.seal(message, now, nonce)
            answers.append(sealed if len(sealed.body) <= most else _too_large(message, len(sealed.body), most))
        return answers

    def incoming(self, source: Address, delivery: Delivery) -> Delivery:
        """Opened. `Unopened` for what has no seal, unless it is taken so."""
        rules, origin = self.seal, origin_of(source)
        text = delivery.headers.get(MARKER)
        if text is None:
            if rules.takes_clear(source.path if origin is None else origin):
                return delivery
            raise Unopened("it has no seal, and clear messages are not taken here")
        if len(delivery.body) > self._limit:
            raise Unopened(f"it has {len(delivery.body)} bytes, and up to {self._limit} are opened")
        marker = read_marker(text)
        key = rules.keyring.find(marker.key_id)
        if key is None:
            raise Unopened(f"its key {marker.key_id!r} is not in the {rules.keyring.where}")
        for address in (source,) if origin is None else sealed_for(origin):
            opened = sealer(key, rules.place(address)).open(delivery, marker)
            if opened is not None:
                break
        else:
            raise Unopened(
                f"the key {key.id!r} does not open it: it was changed, sealed for another queue, or with another key of that id"
            )
        if origin is not None:  # why it is dead, which its driver wrote in clear
            dead = {name: value for name, value in delivery.headers.items() if name.startswith(DEAD_PREFIX)}
            return opened._replace(headers={**opened.headers, **dead})
        if rules.window is not None:
            rules.window.check(source.path, opened, marker.sealed_at, rules.wall())
        return opened

    def is_of(self, to: Address, delivery: Delivery) -> bool:
        """Whether it was sealed for `to`: the dead letters of a queue `prices.g` have the name of a subscription's."""
        text = delivery.headers.get(MARKER)
        if text is None:
            return True  # it was taken in clear
        marker = read_marker(text)
        key = self.seal.keyring.find(marker.key_id)
        return key is not None and sealer(key, self.seal.place(to)).open(delivery, marker) is not None

    def settled(
        self, source: Address, settlements: Sequence[tuple[Delivery, Outcome]], answers: Sequence[NarrowboatError | None]
    ) -> None:
        """Remember what was acknowledged, for the window."""
        window = self.seal.window
        if window is None:
            return
        now = self.seal.wall()
        for (delivery, outcome), answer in zip(settlements, answers, strict=True):
            if answer is None and isinstance(outcome, Ack):
                window.acked(source.path, delivery, now)


def sealed_for(origin: str) -> list[Address]:
    """Which addresses a dead letter of `origin` may have been sealed for: the queue of that path, or a subscription's topic.

    >>> [f"{each.kind} {each.name}" for each in sealed_for("prices.g")]
    ['queue prices.g', 'topic prices']
    """
    topic = origin.rpartition(".")[0]
    return [Address(Kind.QUEUE, origin), *([Address(Kind.TOPIC, topic)] if topic else [])]


def _sealed_twice(message: Outgoing, key: Key) -> InvalidArgument:
    return InvalidArgument(
        f"message {message.id!r} to {message.to.path!r}: a seal in front has its header {MARKER} already, and the key "
        f"{key.id!r} ({key.kind}) signs headers in clear, where one fits. Nothing was sent. Let the key that signs "
        "be the one in front"
    )


def _too_large(message: Outgoing, size: int, most: int) -> InvalidArgument:
    return InvalidArgument(
        f"message {message.id!r} to {message.to.path!r}: sealed, with its headers, it has {size} bytes, and the backend takes "
        f"up to {most}. Nothing was sent. Store the body elsewhere and send where it is"
    )
