"""Functions whose work is done after the call: what only begins something is no handler, and no work under a lock.

A coroutine or a generator that a plain call gives has run none of its body. Whoever takes the end of that call for the end of
the work releases a lock too early, or acks a message that nobody has handled.
"""

from __future__ import annotations

import inspect
from typing import Literal


def kind(function: object) -> Literal["plain", "coroutine", "generator"]:
    """What a call of `function` gives: its result, a coroutine, or a generator of either sort."""
    looks = (function, getattr(function, "__call__", None))  # noqa: B004  # asks for its kind, not whether it can be called
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in looks):
        return "generator"
    return "coroutine" if any(map(inspect.iscoroutinefunction, looks)) else "plain"


def unrun(result: object) -> bool:
    """Whether a call gave something that has not run, where no kind told it before. It is closed then."""
    if not (inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result)):
        return False
    close = getattr(result, "close", None)  # or Python complains that it was never awaited
    if close is not None:
        close()
    return True
