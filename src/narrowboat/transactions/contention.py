"""Whether a statement failed because of another transaction: then the whole of it may succeed when it is begun again."""

from __future__ import annotations

#: PostgreSQL: serialization failure, deadlock, lock not available (`lock_timeout`, NOWAIT).
_CODES = {"40001", "40P01", "55P03"}


def contended(error: BaseException | None) -> bool:
    """Whether the client's error, or one that it was made of, says so."""
    while error is not None:
        code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        if code in _CODES or str(getattr(error, "sqlite_errorname", "")).startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return True
        error = error.__cause__
    return False
