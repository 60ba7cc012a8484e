"""Dead letters as they are shown: looked at and left where they are, each as an object for programs."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from narrowboat.cli.records import to_json
from narrowboat.contract.messages import DEAD_PREFIX
from narrowboat.messaging import DeadLetters, Message

#: Seconds without a further dead letter after which the list is complete. Less, and a slow server shows half of it.
_IDLE = 1.0


def peek(letters: DeadLetters[bytes], count: int, id: str | None = None) -> list[Message[bytes]]:
    """Up to `count` letters, or with `id` that one. Leaving the block settles none of them, so all go back."""
    ready = letters.depth().ready  # where the backend knows it, there is no wait for a letter that does not come
    count = count if ready is None else min(count, ready)
    if count == 0:
        return []
    with letters.consume(prefetch=count, idle=_IDLE) as messages:
        some = itertools.islice(messages, count)
        return list(some) if id is None else list(itertools.islice((each for each in some if each.id == id), 1))


def describe(message: Message[bytes]) -> dict[str, Any]:
    """A dead letter for programs: as published, and why it is here."""
    fields = to_json(message)
    del fields["attempt"]  # it counts the looks at the dead letter, not the deliveries of the message
    headers = {name: value for name, value in message.headers.items() if not name.startswith(DEAD_PREFIX)}
    fields.pop("headers", None)
    dead = dataclasses.asdict(message.dead) if message.dead else {"reason": None, "attempts": None, "origin": None}
    return {**fields, **({"headers": headers} if headers else {}), **dead}
