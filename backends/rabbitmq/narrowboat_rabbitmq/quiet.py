"""Keeps pika's warnings about our own channels out of people's logs.

The server refuses a call by closing the channel, and pika warns of that at once: also where we asked about a queue that need
not be there (`depth()` of one without dead letters does so every time), and where the refusal is raised as an error of
ours a moment later. Channels that a program opens with pika by itself warn as ever.
"""

from __future__ import annotations

import logging
import weakref
from typing import Any

_ours: weakref.WeakSet[Any] = weakref.WeakSet()


def hush(raw: Any) -> None:
    """Say nothing of what the server closes on this channel of pika's."""
    _ours.add(raw)


def _is_news(record: logging.LogRecord) -> bool:
    closed = isinstance(record.msg, str) and record.msg.startswith("Received remote Channel.Close")
    return not (closed and isinstance(record.args, tuple) and any(raw in _ours for raw in record.args[-1:]))


logging.getLogger("pika.channel").addFilter(_is_news)
