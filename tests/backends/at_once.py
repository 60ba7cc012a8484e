"""Calls of one driver that are begun at the same moment, where nobody answers them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from bounds import upper
from narrowboat.clock import SystemClock
from narrowboat.contract import Context
from narrowboat.dsn import Url, parse_options
from narrowboat.errors import Unavailable

#: Seconds that one call has, and what it may take on top: less than that, or a call could have stood behind another one.
TIMEOUT, BEYOND = 1.5, 1.2
CONTEXT = Context(clock=SystemClock(), timeout=TIMEOUT)


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """The port of somebody who takes connections, reads nothing and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield listener.getsockname()[1]


def opened(backend: Any, text: str) -> Any:
    """What the backend opens, with its client library imported."""
    url = Url.parse(text)
    options = parse_options(url, backend.options, {})
    return backend.open(backend.prepare(url, options), options, CONTEXT)


def end_together(*calls: Callable[[], object]) -> None:
    """Begin the calls at once. Each is `Unavailable` within its own time, whatever the others wait for."""
    outcomes: list[tuple[int, float, BaseException | None]] = []
    gate = threading.Barrier(len(calls))

    def run(number: int, call: Callable[[], object]) -> None:
        gate.wait()
        begun, met = time.monotonic(), None
        try:
            call()
        except BaseException as error:
            met = error
        outcomes.append((number, time.monotonic() - begun, met))

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(upper(len(calls) * (TIMEOUT + BEYOND)))

    assert len(outcomes) == len(calls), f"only {sorted(number for number, _, _ in outcomes)} have ended"
    odd = [f"call {number}: {met!r}" for number, _, met in outcomes if not isinstance(met, Unavailable)]
    late = [f"call {number} took {took:.1f} s" for number, took, _ in outcomes if took > upper(TIMEOUT + BEYOND)]
    assert not odd + late, "\n".join(odd + late)
