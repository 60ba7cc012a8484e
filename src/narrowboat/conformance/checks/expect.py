"""Expecting an error: `with raises(LeaseLost) as caught:`, for scenarios, which must run without pytest."""

from __future__ import annotations

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
    """The block must raise one of `kinds`; anything else it raises goes on, nothing raised is an `AssertionError`."""

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
            names = " or ".join(each.__name__ for each in self._kinds)
            raise AssertionError(f"no {names}{': ' + self._what if self._what else ''}")
        return False
