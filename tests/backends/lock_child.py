"""A process of its own with the SQLite lock driver: reads one command a line, answers each with one line of JSON.

`take NAME TTL` waits for the lock and gives its token; `renew` and `release` act on what was taken last; `try NAME TTL`
does not wait; `cpu` gives the CPU seconds that this process has used. Ends when its input ends.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from lock_rules import acquire, request
from narrowboat.clock import SystemClock
from narrowboat.contract.backend import Context
from narrowboat.contract.locks import Grant, LockProvider
from narrowboat.dsn import Url, parse_options
from narrowboat_sqlite.locks import locks
from narrowboat_sqlite.options import Options


def main() -> None:
    url = Url.parse(sys.argv[1])
    provider = locks.open(url, parse_options(url, Options, {}), Context(clock=SystemClock(), timeout=5.0))
    grant: Any = None  # until one was taken
    said: dict[str, object]
    for line in sys.stdin:
        command, *rest = line.split()
        if command == "take":
            grant = acquire(provider, request(rest[0], ttl=float(rest[1])))
            said = {"token": grant.token, "at": time.clock_gettime(time.CLOCK_MONOTONIC_RAW)}
        elif command == "try":
            (answer,) = provider.attempt([request(rest[0], ttl=float(rest[1]), wait=False)])
            grant = answer if isinstance(answer, Grant) else grant
            said = {"token": answer.token if isinstance(answer, Grant) else None}
        elif command == "renew":
            said = {"renewed": isinstance(provider.renew([grant])[0], Grant)}
        elif command == "keep":  # renews until its input ends, or it is killed
            seconds = float(rest[0])
            threading.Thread(target=keep, args=(provider, grant, seconds), daemon=True).start()
            said = {}
        elif command == "release":
            at = time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
            said = {"released": provider.release([grant])[0].value, "at": at}
        elif command == "cpu":
            said = {"cpu": time.process_time(), "at": time.monotonic()}
        else:
            raise ValueError(command)
        print(json.dumps(said), flush=True)


def keep(provider: LockProvider, grant: Grant, seconds: float) -> None:
    pause = threading.Event()
    while not pause.wait(seconds):
        provider.renew([grant])


if __name__ == "__main__":
    main()
