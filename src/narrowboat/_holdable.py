"""What all that users hold refuses in the same words: being copied, and being entered by the other face's `with`.

A copy would share a connection, a lease or a buffer with its original, and know nothing of what becomes of it; `copy` and
`pickle` would leave a half-built object behind whose repr raises. Not for values: receipts, errors and records are copied
freely.
"""

from __future__ import annotations

from typing import NoReturn


class Uncopied:
    """Cannot be copied or pickled."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        kind = type(self)
        raise TypeError(
            f"a {kind.__name__} cannot be copied or pickled: it belongs to this process and to its connection; hand it "
            "over as it is, or make one anew from the URL"
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
