"""Whose clock a row's times were read from.

Two processes may compare times only when they read the same clock. The boot clock is shared by all processes of one boot
and one time namespace, so its id is made of both: the kernel's boot id, and the inode of `/proc/self/ns/time`, because
containers with a time namespace of their own keep the host's boot id and read other times. A host and a guest that share
a folder have different boot ids. Where the system has no such ids, every process is a clock of its own.

A test's own clock has an id for each clock object in each process, so no other process shares it.
Times under a foreign id are never compared with ours; `tables/locks.sql` says how such rows end instead.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
import weakref
from collections.abc import Callable

from narrowboat.clock import SystemClock

#: A forked child inherits this, and rightly: it goes on reading its parent's clock.
_process = os.urandom(16).hex()
_serial = itertools.count(1)
_owned: weakref.WeakKeyDictionary[Callable[[], float], int] = weakref.WeakKeyDictionary()


def boot_id() -> str:
    """The id of this boot of the kernel, or of this process where the system has none.

    What was committed without a sync can only be missing under another boot id.
    """
    if sys.platform == "darwin":
        return _sysctl(b"kern.bootsessionuuid") or _process
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return _process


def clock_id(clock: Callable[[], float]) -> str:
    """The id of `clock`: two processes that find the same id read the same time."""
    if not isinstance(clock, SystemClock):
        # The process id is part of it, because a child's copy of the object goes its own way after a fork.
        return f"owned:{_process}:{os.getpid()}:{_owned.setdefault(clock, next(_serial))}"
    try:
        namespace = str(os.stat("/proc/self/ns/time").st_ino)
    except OSError:
        namespace = ""  # a kernel before 5.6 has no time namespaces, other systems neither
    return f"boot:{boot_id()}:{namespace}"


def _sysctl(name: bytes) -> str:
    libc = ctypes.CDLL(None)
    size = ctypes.c_size_t(128)
    buffer = ctypes.create_string_buffer(size.value)
    if libc.sysctlbyname(name, buffer, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return ""
    return buffer.value.decode("ascii", "replace")
