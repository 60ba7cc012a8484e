"""What both halves do alike: read the URL, name the keys, say who we are, and claim what a server of SQLite keeps."""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from narrowboat.capabilities import Survives
from narrowboat.contract.backend import Context
from narrowboat.dsn import Url
from narrowboat_zeromq import keys
from narrowboat_zeromq.client.link import Link
from narrowboat_zeromq.options import Durability, MessageOptions, Options, endpoint


def prepare(url: Url, options: Options) -> Url:
    """Refuse what cannot be meant, and import pyzmq while that is sure to work."""
    endpoint(url, options)
    importlib.import_module("narrowboat_zeromq.library")
    _pair(options)
    return url


def survives(options: Options) -> Survives:
    """What a message or a lock outlives: one node, so never its loss."""
    return Survives.POWER if options.durability is Durability.FULL else Survives.CRASH


def link(half: str, url: Url, options: Options, context: Context, woken: Callable[[Sequence[Any] | None], None]) -> Link:
    """The way to the server that `url` names. Nothing is sent before the first call."""
    where = endpoint(url, options)
    asked: dict[str, Any] = {"prefix": options.prefix}
    if isinstance(options, MessageOptions):
        asked |= {"declare": options.declare.value, "dedup": options.dedup, "retention": options.retention}
    greeting = {
        "session": secrets.token_hex(16),
        "half": half,
        "namespace": where.database,
        "options": asked,
        "survives": survives(options).value,
    }
    return Link(where, _pair(options), greeting, context.timeout, woken)


def _pair(options: Options) -> tuple[str, keys.Pair] | None:
    if options.server_key is None or options.key is None:
        return None
    return keys.read_public(options.server_key, "option server_key"), keys.read_pair(options.key, "option key")
