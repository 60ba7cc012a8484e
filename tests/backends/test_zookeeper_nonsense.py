"""ZooKeeper: whatever answers at the address, a call ends with a typed error, in time, and the next one asks anew."""

from __future__ import annotations

import struct

import pytest

import nonsense
from narrowboat.locking import Locks

URL = f"zookeeper://127.0.0.1:{{port}}?timeout={nonsense.TIMEOUT}&session_ttl=6&tick=0.5"


def connected(timeout: float = 6000, password: int = 16) -> bytes:
    """The answer to a connect, as a server gives it."""
    return struct.pack(">iiiqi", 37, 0, timeout, 5, password) + b"p" * 16 + b"\0"


def frame(*parts: bytes) -> bytes:
    """A message with its length."""
    body = b"".join(parts)
    return struct.pack(">i", len(body)) + body


def header(xid: int, error: int = 0) -> bytes:
    """That of an answer."""
    return struct.pack(">iqi", xid, 1, error)


HUGE = struct.pack(">i", 2**31 - 1)
EVENT, AUTH = -1, -4

CASES = {
    "closes": lambda connection: None,
    "says nothing": nonsense.silence,
    "garbage": nonsense.then(nonsense.NOISE[:4096]),
    "garbage without end": nonsense.endless(b"", nonsense.NOISE),
    "zeros": nonsense.then(b"\0" * 4096),
    "HTTP": nonsense.then(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "a drip": nonsense.drip(struct.pack(">i", 1000)),
    "a length of 2 GB": nonsense.endless(HUGE, nonsense.NOISE),
    "a negative length": nonsense.then(struct.pack(">i", -5) + b"x" * 100),
    "a password of 1 GB": nonsense.then(connected(password=2**30)),
    "a session of no time": nonsense.then(connected(timeout=-1)),
    "a session of weeks": nonsense.then(connected(timeout=2**31 - 1)),
    "then garbage": nonsense.then(connected(), nonsense.NOISE[:4096]),
    "then a length of 2 GB": nonsense.endless(connected() + HUGE, nonsense.NOISE),
    "then 15 MB, and no end of them": nonsense.endless(connected() + struct.pack(">i", 15 * 2**20), nonsense.NOISE[:1024]),
    "then a negative length": nonsense.then(connected(), struct.pack(">i", -1)),
    "then an empty message": nonsense.then(connected(), frame()),
    "then a short message": nonsense.then(connected(), frame(b"abc")),
    "then an answer that nobody asked for": nonsense.then(connected(), frame(header(99999))),
    "then an unknown error": nonsense.then(connected(), frame(header(1, error=12345))),
    "then an answer cut off": nonsense.then(connected(), frame(header(1))),
    "then an event cut off": nonsense.then(connected(), frame(header(EVENT))),
    "then an event elsewhere": nonsense.then(connected(), frame(header(EVENT), struct.pack(">iii", 3, 3, 2), b"\xff\xfe")),
    "then a refused login": nonsense.then(connected(), frame(header(AUTH, error=-115))),
    "then a drip": nonsense.drip(connected() + struct.pack(">i", 100_000)),
}

#: A session of weeks was granted in good order; the refusal says so, and the connection stays.
STAYS = {"says nothing", "a session of weeks"}


def call(locks: Locks) -> None:
    """A wait for a lock."""
    locks.lock("a", ttl=30).acquire(timeout=nonsense.WAIT)


@pytest.fixture(scope="module")
def found() -> nonsense.Found:
    return nonsense.outcomes(__file__)


@pytest.mark.parametrize("case", CASES)
def test_a_server_that_talks_nonsense_costs_a_typed_error_in_time(found: nonsense.Found, case: str) -> None:
    """And the next call asks anew: no thread has ended."""
    outcome = found[0][case]
    assert outcome["typed"], outcome
    assert outcome["took"] < nonsense.LONGEST, outcome
    assert outcome["anew"] or case in STAYS, outcome
    assert len(outcome["error"]) < 1000


def test_all_of_them_together_took_little_memory_and_ended_no_thread(found: nonsense.Found) -> None:
    """Lengths are looked at before anything is taken."""
    assert found[0][""]["memory"] < nonsense.MEMORY
    assert "Traceback" not in found[1], found[1]


def test_calls_that_belong_together_wait_for_one_silence_once() -> None:
    """The first has its whole time; what follows at once has little, and says so."""
    server = nonsense.Server(nonsense.then(connected()))
    took = nonsense.silences(f"zookeeper://127.0.0.1:{server.port}?session_ttl=12&tick=0.5", 3.0)
    # A busy machine may have connected anew between two calls, and that one is not known to be silent yet.
    assert server.clients > 1 or sum(took[1:]) < took[0], took  # each alone would take as long as the first


if __name__ == "__main__":
    nonsense.main(CASES, URL, call, alone=["then 15 MB, and no end of them"])
