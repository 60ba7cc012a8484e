"""The thread that speaks the sync face for a scenario: to look whether it may be interrupted stops nobody."""

from __future__ import annotations

import subprocess
import sys

#: Threads begin all the while, and each look sets off a collection that calls back into Python.
_LOOKS = """
import gc, sys, threading, weakref
from narrowboat.conformance.users.faces import _starts_a_thread

class Circle:
    pass

def begin():
    while not over.is_set():
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()

def look():
    for _ in range(2000):
        for _ in range(20):
            circle = Circle()
            circle.itself = circle
            circles.add(circle)
        assert not _starts_a_thread(threading.get_ident())

circles, over = weakref.WeakSet(), threading.Event()
gc.set_threshold(5, 1, 1)
sys.setswitchinterval(1e-6)
others = [threading.Thread(target=begin) for _ in range(6)]
lookers = [threading.Thread(target=look) for _ in range(2)]
for thread in (*others, *lookers):
    thread.start()
for thread in lookers:
    thread.join()
over.set()
for thread in others:
    thread.join()
assert gc.isenabled()
"""


def test_to_look_for_a_thread_that_starts_another_never_stops_the_process() -> None:
    subprocess.run([sys.executable, "-c", _LOOKS], check=True, timeout=120)
