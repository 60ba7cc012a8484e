"""What SQLite writes and syncs below one folder, in the order in which it does, and what a loss of power leaves of that.

SQLite asks a table of functions (a VFS) for all that it does with files. `record` puts another one in front of the usual one,
through ctypes: each write, truncation and deletion goes into a log before it is done, each sync when it is. What a caller was
told stands before the end that the log then has. So `Power.cuts` makes of any moment the files that a loss of power may leave:
what was synced is there, and of what was written since, each write is there, is cut off, or is not.

In another process: `python power_log.py LOG FOLDER MODULE ARGUMENTS`. It needs a Python whose SQLite is a shared library.
"""

from __future__ import annotations

import bisect
import ctypes
import os
import random
import runpy
import shutil
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_SECTOR = 512  #: bytes that a disk writes whole or not at all
_HEAD = struct.Struct("<cqII")  # what, offset, bytes of the path, bytes of the data

_ANY = ctypes.c_void_p
_OPEN = ctypes.CFUNCTYPE(ctypes.c_int, _ANY, _ANY, _ANY, ctypes.c_int, _ANY)  # the name as it is: SQLite keeps its address
_DELETE = ctypes.CFUNCTYPE(ctypes.c_int, _ANY, ctypes.c_char_p, ctypes.c_int)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, _ANY, _ANY, ctypes.c_int, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, _ANY, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, _ANY, ctypes.c_int)


class _Vfs(ctypes.Structure):
    """`sqlite3_vfs`, version 3."""

    _fields_ = (
        ("version", ctypes.c_int), ("size", ctypes.c_int), ("longest", ctypes.c_int), ("next", _ANY), ("name", ctypes.c_char_p),
        ("data", _ANY), ("open", _ANY), ("delete", _ANY), ("rest", _ANY * 14),
    )  # fmt: skip


class _Methods(ctypes.Structure):
    """`sqlite3_io_methods`, version 3."""

    _fields_ = (
        ("version", ctypes.c_int), ("close", _ANY), ("read", _ANY), ("write", _ANY), ("truncate", _ANY), ("sync", _ANY),
        ("rest", _ANY * 13),
    )  # fmt: skip


class _File(ctypes.Structure):
    """The head of an `sqlite3_file`."""

    _fields_ = (("methods", ctypes.POINTER(_Methods)),)


_kept: list[Any] = []  # what SQLite has pointers to, for as long as the process lives


def library() -> ctypes.CDLL | None:
    """The library that this Python's `sqlite3` uses; None where it is a part of Python itself."""
    import _sqlite3

    found = ctypes.CDLL(getattr(_sqlite3, "__file__", None))  # its own symbols, and those of the libraries that it needs
    return found if hasattr(found, "sqlite3_vfs_find") and hasattr(found, "sqlite3_vfs_register") else None


def record(log: str, folder: str) -> None:
    """Note in `log`, from now on, what SQLite does with files below `folder`. For the rest of the process's life."""
    sqlite = library()
    assert sqlite is not None, "this Python has SQLite in itself"
    sqlite.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    usual = sqlite.sqlite3_vfs_find(None)
    ours, out, below = _Vfs(), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), os.fsencode(folder)
    ctypes.memmove(ctypes.byref(ours), usual, ctypes.sizeof(_Vfs))
    opened, deleted = _OPEN(usual.contents.open), _DELETE(usual.contents.delete)
    paths: dict[int, bytes] = {}  # by the address of the file
    tables: dict[int, _Methods] = {}  # by the address of the usual one

    def note(what: bytes, path: bytes, offset: int = 0, data: bytes = b"") -> None:
        os.write(out, _HEAD.pack(what, offset, len(path), len(data)) + path + data)

    def methods(usual_ones: Any) -> _Methods:
        """The table of a file, with three functions of ours."""
        copied = _Methods()
        ctypes.memmove(ctypes.byref(copied), usual_ones, ctypes.sizeof(_Methods))
        write, truncate, sync = _WRITE(copied.write), _TRUNCATE(copied.truncate), _SYNC(copied.sync)

        def on_write(file: int, data: int, size: int, offset: int) -> int:
            note(b"w", paths[file], offset, ctypes.string_at(data, size))
            return int(write(file, data, size, offset))

        def on_truncate(file: int, size: int) -> int:
            note(b"t", paths[file], size)
            return int(truncate(file, size))

        def on_sync(file: int, flags: int) -> int:
            done = int(sync(file, flags))
            note(b"s", paths[file])
            return done

        callbacks = _WRITE(on_write), _TRUNCATE(on_truncate), _SYNC(on_sync)
        copied.write, copied.truncate, copied.sync = (ctypes.cast(each, _ANY).value for each in callbacks)
        _kept.append((copied, callbacks, write, truncate, sync))
        return copied

    def on_open(vfs: int, name: int | None, file: int, flags: int, told: int | None) -> int:
        done = int(opened(ctypes.addressof(usual.contents), name, file, flags, told))
        path = ctypes.string_at(name) if name else b""
        if done == 0 and path.startswith(below):
            there = _File.from_address(file)
            address = ctypes.addressof(there.methods.contents)
            if address not in tables:
                tables[address] = methods(there.methods)
            paths[file] = path
            there.methods = ctypes.pointer(tables[address])
        return done

    def on_delete(vfs: int, name: bytes, sync: int) -> int:
        if name.startswith(below):
            note(b"d", bytes(name))
        return int(deleted(ctypes.addressof(usual.contents), name, sync))

    callbacks = _OPEN(on_open), _DELETE(on_delete)
    ours.name = b"recorded"
    ours.open, ours.delete = (ctypes.cast(each, _ANY).value for each in callbacks)
    _kept.append((ours, callbacks, opened, deleted, usual, tables))
    assert sqlite.sqlite3_vfs_register(ctypes.byref(ours), 1) == 0


class Power:
    """The files below `folder`, their log, and what a loss of power leaves of them. `url`: of a file there, with options."""

    def __init__(self, url: str, log: Path, folder: Path, spare: Path) -> None:
        self.url = url
        self._query = url.partition("?")[2]
        self._log = log
        self._folder = folder
        self._spare = spare

    def now(self) -> int:
        """This moment."""
        return self._log.stat().st_size if self._log.exists() else 0

    def cuts(self, moments: Iterable[int], more: int, seed: int) -> Iterator[tuple[int, str]]:
        """Each of `moments` and up to `more` others, and for each the URL of a copy of what a loss of power then leaves.

        At the given moments all is lost that was not synced, at the others a part of it. The copy goes with the next one.
        """
        chance = random.Random(seed)
        records = list(_records(self._log))
        ends = [end for end, *_ in records]
        told = {bisect.bisect_right(ends, moment) - 1 for moment in moments} - {-1}
        others = chance.sample(range(len(records)), min(more, len(records)))
        files: dict[str, _Kept] = {}
        done = 0
        for place in sorted(told.union(others)):
            for _, what, path, offset, data in records[done : place + 1]:
                if what == b"d":
                    files.pop(path, None)
                else:
                    files.setdefault(path, _Kept()).do(what, offset, data)
            done = place + 1
            shutil.rmtree(self._spare, ignore_errors=True)
            self._spare.mkdir()
            for path, kept in files.items():
                left = kept.left(None if place in told else chance)
                if left is not None:
                    (self._spare / Path(path).relative_to(self._folder)).write_bytes(left)
            yield ends[place], self.url_of_the_copy()

    def url_of_the_copy(self) -> str:
        """Where the files are that are left."""
        return f"sqlite:///{self._spare / 'kit.db'}{'?' * bool(self._query)}{self._query}"


class _Kept:
    """One file: what is on the disk for sure, and what was done since."""

    def __init__(self) -> None:
        self._synced: bytes | None = None  # None: not even its name
        self._since: list[tuple[bytes, int, bytes]] = []

    def do(self, what: bytes, offset: int, data: bytes) -> None:
        if what == b"s":
            self._synced = _done(self._synced or b"", self._since)
            self._since = []
        else:
            self._since.append((what, offset, data))

    def left(self, chance: random.Random | None) -> bytes | None:
        """What is there after a loss of power: of what was done since the last sync nothing, or a part by `chance`."""
        if chance is None or not self._since:
            return self._synced
        some = []
        for what, offset, data in self._since:
            luck = chance.random()
            if luck < 0.4:
                some.append((what, offset, data))
            elif luck < 0.6 and what == b"w":
                some.append((what, offset, data[: chance.randrange(0, len(data) + 1, _SECTOR)]))
        return _done(self._synced or b"", some)


def _done(content: bytes, changes: list[tuple[bytes, int, bytes]]) -> bytes:
    held = bytearray(content)
    for what, offset, data in changes:
        if what == b"t":
            del held[offset:]
        elif data:
            held += bytes(max(0, offset + len(data) - len(held)))
            held[offset : offset + len(data)] = data
    return bytes(held)


def _records(log: Path) -> Iterator[tuple[int, bytes, str, int, bytes]]:
    """Where each ends in the log, what it is, the path, the offset or size, the data."""
    held, at = log.read_bytes(), 0
    while at + _HEAD.size <= len(held):
        what, offset, named, size = _HEAD.unpack_from(held, at)
        start = at + _HEAD.size
        at = start + named + size
        yield at, what, os.fsdecode(held[start : start + named]), offset, held[start + named : at]


if __name__ == "__main__":
    record(sys.argv[1], sys.argv[2])
    sys.argv = sys.argv[3:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
