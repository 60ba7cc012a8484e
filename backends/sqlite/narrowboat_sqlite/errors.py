"""Translates SQLite's errors into Narrowboat's, with SQLite's own as the cause; and the refusals of this backend."""

from __future__ import annotations

import errno
import os
import sqlite3

from narrowboat.driver.sources import Refusals
from narrowboat.errors import AccessDenied, ConfigurationError, NarrowboatError, Unavailable
from narrowboat_sqlite.options import SCHEME

#: What all keepers of messages refuse in the same words.
refuse = Refusals(SCHEME)

_PRIMARY = 0xFF  #: the low byte of an extended result code is the primary one


def busy(error: sqlite3.Error) -> bool:
    """Whether another connection has locked the database, so that the same step may succeed in a moment."""
    return _primary(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}


def _primary(error: sqlite3.Error) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)  # errors of the Python module itself (a closed connection) have none
    return None if code is None else code & _PRIMARY


def translate(error: sqlite3.Error, path: str, *, waited: float | None = None) -> NarrowboatError:
    """The error to raise `from error`. `waited`: seconds spent waiting for a busy database."""
    primary = _primary(error)
    if busy(error):
        after = "" if waited is None else f" for {waited:.2g} s"
        return Unavailable(
            f"the database {path} was locked by another connection{after}. "
            "Look for a process with a long transaction on it (a backup, an open sqlite3 shell); the call may be repeated.",
            backend=SCHEME,
        )
    if primary in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
        return ConfigurationError(
            f"the file {path} is no SQLite database, or a damaged one ({error}). "
            "Nothing was changed. Name another file, or restore this one from a copy.",
            backend=SCHEME,
        )
    if primary in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}:
        return _denied(path, error)
    if primary == sqlite3.SQLITE_CANTOPEN:
        return bad_path(path) or (
            _denied(path, error)
            if not _writable(path)
            else Unavailable(
                f"the database {path} could not be opened ({error}), though its folder is there and may be written. "
                "Look whether this process has too many open files.",
                backend=SCHEME,
            )
        )
    if primary == sqlite3.SQLITE_FULL:
        return _full(path, error)
    if primary in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM}:
        return Unavailable(
            f"the database {path} could not be read or written ({error}). "
            "Look whether the disk is full or failing; the call may be repeated.",
            backend=SCHEME,
        )
    return NarrowboatError(f"SQLite refused a statement on {path} ({error}). Is it changed by another program?", backend=SCHEME)


def bad_path(path: str) -> ConfigurationError | None:
    """What is wrong with `path` as the place of a database, if anything, without touching it."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        return ConfigurationError(
            f"the folder {folder} of the database {path} does not exist. Make it: mkdir -p {folder}", backend=SCHEME
        )
    if os.path.isdir(path):
        return ConfigurationError(f"{path} is a folder. Name a file in it, such as {path}/narrowboat.db", backend=SCHEME)
    return None


def gone(path: str, what: str) -> Unavailable:
    """The answer to every call once a file was taken away from under us. `what`: what happened to it."""
    return Unavailable(
        f"the database {path} {what} while it was open here, so what is done here reaches nobody else any more. Nothing was "
        "changed. Stop all programs that use it, then start them again; take backups with sqlite3's .backup or VACUUM INTO.",
        backend=SCHEME,
        retryable=False,
    )


def not_made(path: str, error: OSError) -> NarrowboatError:
    """The error to raise `from error` when the file could not be made."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return _full(path, error.strerror)
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return Unavailable(
            f"the database {path} could not be made ({error.strerror}): this process has too many files open. "
            "The call may be repeated.",
            backend=SCHEME,
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return _denied(path, error)
    return ConfigurationError(f"the database {path} could not be made ({error.strerror}). Name another file.", backend=SCHEME)


def not_sent(error: NarrowboatError) -> bool:
    """Whether a write transaction that ended with `error` is known to have stored nothing.

    A database that was locked or full was rolled back, one that is gone was never asked. A disk that fails says nothing.
    """
    cause = error.__cause__
    if isinstance(cause, sqlite3.Error):
        return busy(cause) or _primary(cause) == sqlite3.SQLITE_FULL
    return isinstance(error, Unavailable)


def _writable(path: str) -> bool:
    # The folder counts as well: SQLite keeps its write-ahead log beside the file.
    return os.access(os.path.dirname(path), os.W_OK | os.X_OK) and (
        not os.path.exists(path) or os.access(path, os.R_OK | os.W_OK)
    )


def _full(path: str, error: object) -> Unavailable:
    return Unavailable(
        f"the disk under {path} is full ({error}). Nothing was changed. Make room; the call may be repeated.", backend=SCHEME
    )


def _denied(path: str, error: Exception) -> AccessDenied:
    return AccessDenied(
        f"the database {path} may not be written by this user ({error}). Nothing was changed. "
        "Give the user write access to the file, to the -wal and -shm files beside it and to their folder; "
        "look whether the file system is mounted read-only.",
        backend=SCHEME,
    )
