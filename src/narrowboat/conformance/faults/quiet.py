"""Silence for what scenarios provoke on purpose: errors that the core logs, and interrupts that CPython swallows.

The runner keeps quiet while a scenario runs, and `sweep` while it cuts off a call.
"""

from __future__ import annotations

import logging
import sys
import threading


class _Quiet:
    """A context that any number of threads may be in at once. The first one in switches, the last one out switches back."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._inside = 0
        self._handler = logging.NullHandler()  # without a handler the last resort prints; those of others are told as always
        self._hook = sys.unraisablehook

    def __enter__(self) -> None:
        with self._mutex:
            self._inside += 1
            if self._inside == 1:
                logging.getLogger("narrowboat").addHandler(self._handler)
                self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable

    def __exit__(self, *error: object) -> None:
        with self._mutex:
            self._inside -= 1
            if self._inside == 0:
                logging.getLogger("narrowboat").removeHandler(self._handler)
                sys.unraisablehook = self._hook

    def _unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """An interrupt that strikes in a weak reference's callback is swallowed by CPython with a complaint: no failure."""
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            self._hook(unraisable)


quiet = _Quiet()
