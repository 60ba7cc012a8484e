"""Errors that a call or a block must raise, for scenarios, which must run without pytest.

error = await fails(LeaseLost, held.release())
with raises(LeaseLost) as caught:
    held.check()
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, TypeVar

E = TypeVar("E", bound=BaseException)


class Caught(Generic[E]):
    """The error, once the block has ended."""

    def __init__(self) -> None:
        self._error: E | None = None

    @property
    def error(self) -> E:
        """What was raised."""
        assert self._error is not None, "the block has not ended yet"
        return self._error


class raises(Generic[E]):  # read as a verb
    """The block must raise one of `kinds`, or it is an `AssertionError`; other errors pass through."""

    def __init__(self, *kinds: type[E], what: str = "") -> None:
        self._kinds = kinds
        self._what = what
        self._caught: Caught[E] = Caught()

    def __enter__(self) -> Caught[E]:
        return self._caught

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if isinstance(error, self._kinds):
            self._caught._error = error
            return True
        if error is None:
            raise AssertionError(_missing(self._kinds, self._what, "nothing was raised"))
        return False


async def fails(kinds: type[E] | tuple[type[E], ...], call: Awaitable[object] | Callable[[], object], *, what: str = "") -> E:
    """The error, one of `kinds`, that `call` must raise, at once or when it is awaited."""
    try:
        value = call() if callable(call) else call
        if inspect.isawaitable(value):
            value = await value
    except kinds as error:
        return error
    raise AssertionError(_missing(kinds if isinstance(kinds, tuple) else (kinds,), what, f"the call returned {value!r}"))


def _missing(kinds: tuple[type[BaseException], ...], what: str, seen: str) -> str:
    return f"{' or '.join(each.__name__ for each in kinds)} was owed, and {seen}{': ' + what if what else ''}"
