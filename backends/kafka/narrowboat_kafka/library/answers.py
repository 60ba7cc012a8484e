"""Answers that are the first of their kind are read by one thread at a time; and none that tells a secret is logged.

The library makes the class and the decoder of each version of an answer at its first use. Where two threads do so at once, it
may keep the one class and know the other, weakly, as that of all such answers: when the collector has come, no answer of that
kind can be read in this process any more. And a decoder that two versions make at once may be kept, and fail for ever.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from narrowboat.driver.quiet import quiet

#: Held while an answer is read whose kind nobody has read yet.
_first = threading.RLock()
_known: set[bytes] = set()


def _free() -> None:
    global _first
    _first = threading.RLock()  # in a forked child nobody is left who could give the old one back


os.register_at_fork(after_in_child=_free)


def in_turn(kind: bytes, read: Callable[[Any], object], answer: Any) -> None:
    """Let the library read that. `kind`: the number and the version of what was asked; empty where it is not to be kept."""
    if kind in _known:
        read(answer)
        return
    with _first:
        read(answer)
    if kind:
        _known.add(kind)


def _no_secret(record: logging.LogRecord) -> bool:
    """The library's debugging output shows all that it sends, as bytes and as text, and the first of that is the password."""
    arguments = record.args.values() if isinstance(record.args, dict) else record.args or ()
    if any(isinstance(each, (bytes, bytearray, memoryview)) for each in arguments):
        return False
    text = record.getMessage()
    return "SaslAuthenticate" not in text and "SaslBytes" not in text


for _name in ("kafka.net.connection", "kafka.protocol.parser"):
    logging.getLogger(_name).addFilter(_no_secret)
quiet("kafka")
