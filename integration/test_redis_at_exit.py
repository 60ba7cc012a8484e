"""What imports something late cannot be called at the end of the interpreter; the program ends all the same."""

from __future__ import annotations

import subprocess
import sys

from integration.servers import RedisServer

PROGRAM = """
import sys
import narrowboat

lock = narrowboat.locks(sys.argv[1]).lock("a", ttl=5)

def suspended():
    with lock:
        yield

generator = suspended()
next(generator)
"""


def test_a_generator_that_is_suspended_in_its_with_does_not_keep_the_program() -> None:
    """Python finishes it when all other threads stand still, and a thread that is started then never begins."""
    with RedisServer() as server:
        command = [sys.executable, "-c", PROGRAM, server.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    assert (done.returncode, done.stderr) == (0, "")
