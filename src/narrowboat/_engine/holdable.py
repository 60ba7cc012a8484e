"""What all that users hold refuses in the same words: being copied, and being entered by the other face's `with`.

A copy would share a connection, a lease or a buffer with its original, and know nothing of what becomes of it; `copy` and
`pickle` would leave a half-built object behind whose repr raises. Not for values: receipts, errors and records are copied
freely.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn


class Uncopied:
    """Cannot be copied or pickled."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        kind = type(self).__name__
        raise TypeError(
            f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind} cannot be copied or pickled: it belongs to this process and to its "
            "connection; hand it over as it is, or make one anew from the URL"
        )


class SyncOnly(Uncopied):
    """Of the sync face: `async with` says what to write."""

    __slots__ = ()

    async def __aenter__(self) -> NoReturn:
        raise TypeError(f"async with: this {type(self).__name__} is of the sync face; use `with`, or narrowboat.aio")

    async def __aexit__(self, *error: object) -> None:
        """Never reached."""


class AsyncOnly(Uncopied):
    """Of the asyncio face: `with` says what to write."""

    __slots__ = ()

    def __enter__(self) -> NoReturn:
        raise TypeError(f"with: this {type(self).__name__} is of narrowboat.aio; use `async with`, or narrowboat itself")

    def __exit__(self, *error: object) -> None:
        """Never reached."""


#: What a habit from other libraries looks for on a lock.
_HABITS = dict.fromkeys(
    ("release", "renew", "extend", "reacquire", "token"), "it is on what acquire() gives: held = lock.acquire(); held.release()"
) | dict.fromkeys(("locked", "owned"), "try_acquire() is None while others hold it; holders() of the Locks says who")


#: What `acquire` of other locks takes, with what it means.
_ACQUIRE_HABITS = dict.fromkeys(
    ("blocking", "block"), "to try once write acquire(timeout=0), or try_acquire(), which gives None where it is busy"
) | {"blocking_timeout": "write acquire(timeout=...) for the seconds to wait"}


def no_such_argument(given: Iterable[str]) -> TypeError:
    """For what `acquire` was given beside `timeout`: the habits of other libraries have an equivalent."""
    name = next(iter(given))
    hint = f": {_ACQUIRE_HABITS[name]}" if name in _ACQUIRE_HABITS else ""
    return TypeError(f"acquire() got an unexpected keyword argument {name!r}{hint}")


class Hinting:
    """A lock: what it has not, says who has it."""

    __slots__ = ()

    if not TYPE_CHECKING:  # a checker tells by itself

        def __getattr__(self, name: str) -> NoReturn:
            """A hint for who looks for a possession's methods."""
            hint = f": {_HABITS[name]}" if name in _HABITS else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")
