"""Opening the backend that a command works on: one that this process shares with others.

A backend that lives inside one process would take every command and do nothing: a lock without contenders, messages
that are gone with the command. That is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator

import click

import narrowboat
from narrowboat.capabilities import Capabilities, Scope, Support
from narrowboat.cli.options import BROKER_URL
from narrowboat.cli.source import no_such, source_of
from narrowboat.dsn import Url
from narrowboat.errors import NotFound, Unsupported
from narrowboat.locking import Locks
from narrowboat.messaging import Messaging
from narrowboat.registry import broker_backend


@contextlib.contextmanager
def open_locks(url: str | None) -> Iterator[Locks]:
    """The locks behind `url`; None reads NARROWBOAT_LOCKS_URL."""
    with narrowboat.locks(url) as locks:
        check_reach(locks.capabilities)
        yield locks


@contextlib.contextmanager
def open_broker(url: str | None) -> Iterator[Messaging]:
    """The messages behind `url`; None reads NARROWBOAT_BROKER_URL."""
    with narrowboat.broker(url) as broker:
        check_reach(broker.capabilities)
        yield broker


def check_there(url: str | None, broker: Messaging, queue: str, group: str | None) -> None:
    """Raise `click.ClickException` where what looks empty is not there at all, as far as the backend can tell."""
    if is_missing(url, broker, queue, group):
        raise click.ClickException(no_such(broker, queue, group))


def is_missing(url: str | None, broker: Messaging, queue: str, group: str | None) -> bool:
    """Whether what looks empty is not there at all, as far as the backend can tell.

    Most backends count a name that was never made as empty. One that lists what there is knows; another whose URL may say that
    nothing is made on the way is asked again so.
    """
    if broker.capabilities.listing is not Support.ABSENT:
        path = source_of(broker, queue, group).name
        return all(address.path != path for address in broker.sources())
    text = os.environ[BROKER_URL] if url is None else url
    options = broker_backend(Url.parse(text).scheme).options
    if "declare" not in {field.name for field in dataclasses.fields(options)}:
        return False
    try:
        with narrowboat.broker(text, declare="never") as again:
            source_of(again, queue, group).depth()
    except NotFound:
        return True
    return False


def check_reach(capabilities: Capabilities) -> None:
    """Raise `Unsupported` for a backend that no other process can reach."""
    if capabilities.scope is Scope.PROCESS:
        raise Unsupported(
            "this backend lives inside one process, so no other process could ever meet what this command does there: "
            "take another, such as sqlite:///shop.db"
        )
