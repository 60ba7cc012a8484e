"""Elections for asyncio: the twin of `narrowboat.electing`."""

from narrowboat.aio.electing.election import Election, Term

__all__ = ["Election", "Term"]
