"""What a test asks for when it needs a server; `conftest.py` makes pytest fixtures of it.

A server that cannot be had is a skip on somebody's laptop and a failure where `CI=true`: there nothing may be left out
in silence.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from integration.servers.resolve import Unavailable, choose
from integration.servers.server import Controls, Server


class Servers:
    """Starts what tests ask for, and ends it all at the end of the scope that it was made for."""

    def __init__(self) -> None:
        self._made: list[Controls] = []

    def __call__(self, kind: type[Server], make: Callable[..., Controls] | None = None, **options: Any) -> Any:
        """A running server of `kind`, or what `make` makes of several, with these options; skips or fails without."""
        server = obtain(kind, make, **options)
        self._made.append(server)
        server.start()
        return server

    def close(self) -> None:
        """End them, the last first."""
        while self._made:
            self._made.pop().close()


def obtain(kind: type[Server], make: Callable[..., Controls] | None = None, **options: Any) -> Controls:
    """A server that is not started yet; skips or fails the test when this machine has none."""
    try:
        return choose(kind).server(make, **options)
    except Unavailable as error:
        missing(str(error))


def missing(reason: str) -> NoReturn:
    """Skip, and fail where `CI` says that nothing may be skipped."""
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(f"{reason} (with CI set, a missing server is a failure)", pytrace=False)
    pytest.skip(reason)
