"""Fencing tokens in HTTP requests: the header, how a client sets it, and what a server answers to one that it refuses.

    requests.put(url, data=report, headers=fencing.headers(held))

`WSGIFence` and `ASGIFence` are the servers' side. This file decides, and does no I/O.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from narrowboat.errors import InvalidArgument, LockError, StaleWrite
from narrowboat.fencing import decision

HEADER = "Fencing-Token"
#: Where an application finds the token, in WSGI's environ and in ASGI's scope.
KEY = "narrowboat.token"
#: Methods that change nothing (RFC 9110, 9.2.1): they pass without a token.
SAFE = {"GET", "HEAD", "OPTIONS", "TRACE"}


class Holding(Protocol):
    """What has a token: a `Held`, or a `Term` of an election."""

    @property
    def token(self) -> int:
        """The fencing token."""
        ...


def headers(held: Holding | int) -> dict[str, str]:
    """The header that carries the token of what is held, or a token, for any HTTP client.

    >>> headers(17)
    {'Fencing-Token': '17'}
    """
    _, token = decision.asked("a request", getattr(held, "token", held))
    return {HEADER: str(token)}


@dataclass(frozen=True)
class Problem:
    """A refusal: a status, and a text by RFC 9457 that says what to do."""

    status: int
    title: str
    detail: str

    @property
    def body(self) -> bytes:
        """The response's body."""
        return json.dumps({"title": self.title, "status": self.status, "detail": self.detail}).encode()

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The response's header."""
        found = [("Content-Type", "application/problem+json"), ("Content-Length", str(len(self.body)))]
        return [*found, ("Retry-After", "1")] if self.status == 503 else found


def decide(method: str, name: str | None, values: Iterable[str], *, required: bool) -> tuple[str, int] | Problem | None:
    """What a request asks of a fence: its name and token, a refusal, or None where it passes without."""
    if name is None or method in SAFE:
        return None
    found = list(values)
    if not found:
        if not required:
            return None
        return Problem(
            428,
            "Precondition Required",
            f"{method} needs the header {HEADER} with the token of the lock that the client holds; nothing was done",
        )
    token = decision.parse(found[0]) if len(found) == 1 else None
    if token is None:
        return Problem(
            400, "Bad Request", f"the header {HEADER} must be there once, as a number from 0 to 2**63 - 1; nothing was done"
        )
    try:
        return decision.asked(name, token)
    except InvalidArgument as error:
        return Problem(400, "Bad Request", str(error))


def refusal(error: LockError) -> Problem:
    """The answer to a `StaleWrite`, or to a `LockTimeout` because the one before is still at work."""
    if isinstance(error, StaleWrite):
        return Problem(412, "Precondition Failed", str(error))
    return Problem(503, "Service Unavailable", str(error))
