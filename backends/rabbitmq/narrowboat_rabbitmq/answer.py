"""What one thread waits for and the I/O thread gives: a value or an error, once."""

from __future__ import annotations

import _thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Answer(Generic[T]):
    """Given at most once; the first wins. One thread waits."""

    __slots__ = ("_gate", "error", "given", "value")

    def __init__(self) -> None:
        self._gate = _thread.allocate_lock()
        self._gate.acquire()
        self.given = False
        self.value: T | None = None
        self.error: BaseException | None = None

    def give(self, value: T) -> None:
        """It is this."""
        if not self.given:
            self.value = value
            self.given = True
            self._gate.release()

    def fail(self, error: BaseException) -> None:
        """It is an error."""
        if not self.given:
            self.error = error
            self.given = True
            self._gate.release()

    def wait(self, seconds: float) -> bool:
        """Whether it was given within so many seconds."""
        if self.given:
            return True
        if self._gate.acquire(timeout=max(0.0, seconds)):
            self._gate.release()
        return self.given
