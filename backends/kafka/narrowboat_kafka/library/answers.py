"""What the library knows of answers, made ready for threads, and kept out of the log.

It looks up the class of an answer, and no more: what is in one is the library's.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

#: Held while the class of an answer is looked up, see `prepare`.
_classes = threading.Lock()


def _free_classes() -> None:
    global _classes
    _classes = threading.Lock()  # in a forked child nobody is left who could give the old one back


os.register_at_fork(after_in_child=_free_classes)


def prepare(header: Any) -> Any:
    """The class of the answer to a request. The library makes that of a version at its first use.

    Where two threads do so at once, it may keep the one class and know the other, weakly, as that of all such answers. When
    the collector has come, no answer of that kind can be read in this process any more.

    The library also knows the class weakly where it makes the decoder of a version, and puts the class itself there meanwhile.
    A second thread, with another version, could find the weak one there again, and its decoder, which is kept, would fail for
    ever. So the class itself stands there from the beginning.
    """
    with _classes:
        kind = header.get_response_class()
        schema = getattr(kind, "_struct", None)  # what comes for a password has none
        if schema is not None:
            schema._data_class = kind[None]
        return kind


def _no_secret(record: logging.LogRecord) -> bool:
    """The library's debugging output shows all that it sends, as bytes and as text, and the first of that is the password."""
    arguments = record.args.values() if isinstance(record.args, dict) else record.args or ()
    if any(isinstance(each, (bytes, bytearray, memoryview)) for each in arguments):
        return False
    text = record.getMessage()
    return "SaslAuthenticate" not in text and "SaslBytes" not in text


for _name in ("kafka.net.connection", "kafka.protocol.parser"):
    logging.getLogger(_name).addFilter(_no_secret)
