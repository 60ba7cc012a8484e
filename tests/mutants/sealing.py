"""Seals that are broken on purpose. Each names the checks of `tests/test_sealed.py` that must catch it.

The kit cannot: a seal without its address in it delivers every message. What a seal promises beside the contract is proven
there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from narrowboat.capabilities import BrokerCapabilities
from narrowboat.contract import Address, Broker, Delivery, Outcome, Outgoing
from narrowboat.errors import NarrowboatError
from narrowboat.layers.changing import ChangingFeed
from narrowboat.layers.sealed import Seal
from narrowboat.layers.sealed.keys import NONCE, Key
from narrowboat.layers.sealed.layer import SealedBroker
from narrowboat.layers.sealed.window import Window


class AddressUnbound(Seal):
    """Binds a message to no address."""

    CHECKS = ("a_message_that_is_moved_is_refused",)

    def place(self, address: Address) -> bytes:
        return b""


class NonceReused(Seal):
    """Seals every message with one nonce."""

    CHECKS = ("no_two_messages_have_one_nonce",)

    def nonces(self, count: int) -> list[bytes]:
        return [bytes(NONCE)] * count


class ClearAccepted(Seal):
    """Takes what has no seal."""

    CHECKS = ("what_has_no_seal_is_refused",)

    def takes_clear(self, path: str) -> bool:
        return True


class OldKeySeals(Seal):
    """Goes on sealing with the oldest key."""

    CHECKS = ("the_newest_key_seals_and_all_open",)

    def key(self) -> Key:
        return self.keyring.keys[0]


class KeyOfTomorrowSeals(Seal):
    """Seals with a key that has not begun."""

    CHECKS = ("the_newest_key_seals_and_all_open",)

    def key(self) -> Key:
        return self.keyring.keys[-1]


class ClaimsTheWholeBody(Seal):
    """Claims as much room as the driver has without the seal."""

    CHECKS = ("the_claimed_body_fits_with_all_that_goes_inside",)

    def claims(self, inner: BrokerCapabilities) -> BrokerCapabilities:
        return inner


class Wraps(Seal):
    """Stands behind a broker of its own."""

    broker = SealedBroker

    def wrap(self, driver: Broker) -> Broker:
        return self.broker(driver, self)


class HeadersInClear(Wraps):
    """Leaves headers where the server sees them."""

    CHECKS = ("the_server_sees_no_body_header_or_reply_address",)

    class broker(SealedBroker):
        def outgoing(self, messages: Sequence[Outgoing]) -> list[Outgoing | NarrowboatError]:
            sealed: list[Any] = super().outgoing(messages)
            return [
                each._replace(headers={**message.headers, **each.headers})
                for each, message in zip(sealed, messages, strict=True)
            ]


class ReplyAddressInClear(Wraps):
    """Leaves the address for replies where the server sees it."""

    CHECKS = ("the_server_sees_no_body_header_or_reply_address",)

    class broker(SealedBroker):
        def outgoing(self, messages: Sequence[Outgoing]) -> list[Outgoing | NarrowboatError]:
            sealed: list[Any] = super().outgoing(messages)
            return [each._replace(reply_to=message.reply_to) for each, message in zip(sealed, messages, strict=True)]


class SealsARedriveOfWhatItCannotOpen(Wraps):
    """Makes a forgery genuine when an operator moves the dead letters back."""

    CHECKS = ("a_redrive_of_what_cannot_be_opened_seals_nothing",)

    class broker(SealedBroker):
        def _outgoing(self, messages: Sequence[Outgoing]) -> list[Outgoing | NarrowboatError]:
            return self.outgoing([each._replace(origin=None) for each in messages])


class SealsARedriveForAnyAddress(Wraps):
    """Makes a message genuine for another queue when an operator moves the dead letters back."""

    CHECKS = ("a_redrive_of_what_was_moved_among_the_dead_letters_seals_nothing",)

    class broker(SealedBroker):
        def is_of(self, to: Address, delivery: Delivery) -> bool:
            return True


class _Ids(Window):
    """Knows messages by their ids."""

    def check(self, source: str, message: Delivery, sealed_at: float, now: float) -> None:
        super().check(source, message._replace(published_at=None), sealed_at, now)

    def acked(self, source: str, message: Delivery, now: float) -> None:
        super().acked(source, message._replace(published_at=None), now)


class RemembersIdsAlone(Seal):
    """Takes each message of an id that was acknowledged for a copy."""

    CHECKS = ("within_the_window_an_id_may_be_published_again",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.window is not None:
            self.window = _Ids(self.window._seconds)


class EnlistsInClear(Wraps):
    """Stores in the caller's transaction what it was given."""

    CHECKS = ("what_is_stored_in_a_transaction_is_sealed",)

    class broker(SealedBroker):
        def enlist(self, connection: Any, message: Outgoing) -> Awaitable[object] | None:
            return self.inner.enlist(connection, message)


class ForgetsAcknowledged(Wraps):
    """Remembers nothing of what was acknowledged."""

    CHECKS = ("within_the_window_a_copy_of_what_was_acknowledged_is_refused",)

    class broker(SealedBroker):
        def settled(self, *told: Any) -> None:
            """Nothing."""


class OpensAnySize(Wraps):
    """Opens a body whatever its size."""

    CHECKS = ("a_body_beyond_the_limit_is_not_opened",)

    class broker(SealedBroker):
        def __init__(self, inner: Broker, seal: Seal) -> None:
            super().__init__(inner, seal)
            self._limit = 2**40


class HandsOutWhatItCannotOpen(Wraps):
    """Lets a handler have what it cannot open."""

    CHECKS = ("what_cannot_be_opened_is_a_dead_letter_and_its_neighbours_are_handled",)

    class broker(SealedBroker):
        def arrived(self, source: Address, delivery: Delivery) -> Delivery:
            return super().arrived(source, delivery)._replace(refused="")


class TellsItsPublisherWhy(Wraps):
    """Writes what it found into the dead letter, where whoever forged it can read it."""

    CHECKS = ("what_cannot_be_opened_is_a_dead_letter_and_its_neighbours_are_handled",)

    class broker(SealedBroker):
        def arrived(self, source: Address, delivery: Delivery) -> Delivery:
            found = super().arrived(source, delivery)
            return found._replace(refused=found.malformed) if found.refused else found


class SettlesWhatWasOpened(Wraps):
    """Hands the driver the opened message to settle, and one that publishes its body again would publish it in clear."""

    CHECKS = ("a_driver_settles_what_it_handed_out",)

    class broker(SealedBroker):
        def open(self, *source: Any, **options: Any) -> Any:
            return _SettlesOpened(self.inner.open(*source, **options), self, source[0].address)


class _SettlesOpened(ChangingFeed):
    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        return self.inner.settle([(each._replace(tag=_tag(each)), outcome) for each, outcome in settlements])


def _tag(delivery: Any) -> object:
    return delivery.tag.delivery.tag


def all_mutants() -> list[type[Any]]:
    """Each class here that names checks."""
    return [each for each in globals().values() if isinstance(each, type) and hasattr(each, "CHECKS")]


def name_of(mutant: type[Any]) -> str:
    """For a test's id."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in mutant.__name__).strip()
