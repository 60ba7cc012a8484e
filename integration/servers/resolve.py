"""Which server a test runs against: a given URL, then Docker, then a program of this machine, then none.

choice = choose(RedisServer)       # raises Unavailable, with everything that was looked for
choice.server()                    # a GivenServer, or a RedisServer, not started
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from integration.servers import docker
from integration.servers.given import GivenServer, variable
from integration.servers.programs import NotInstalled
from integration.servers.server import Controls, Server


class Unavailable(RuntimeError):
    """No such server can run on this machine; the text says what was looked for and what to do."""


@dataclass(frozen=True)
class Choice:
    """How a server is had."""

    kind: type[Server]
    given: bool = False
    image: str | None = None

    def server(self, make: Callable[..., Controls] | None = None, **options: Any) -> Controls:
        """One that is not started yet: of `make`, or of the plain kind, with its options.

        A test that needs a server of its own (`make` or `options` given) cannot have a given one: `Unavailable`.
        """
        if self.given:
            if make is not None or options:
                raise Unavailable(f"{variable(self.kind.name)} names one server, and this test has to start its own")
            return GivenServer(self.kind.name)
        return (make or self.kind)(image=self.image, **options)


def choose(kind: type[Server]) -> Choice:
    """The first way that works on this machine; `Unavailable` when none does."""
    if os.environ.get(variable(kind.name)) and not kind.edition:  # nobody said of which version the given one is
        return Choice(kind, given=True)
    image = image_of(kind)
    no_docker = docker.refusal(image) if image else "it is this very code, and runs here"
    if no_docker is None:
        return Choice(kind, image=image)
    try:
        kind.check_installed()
    except NotInstalled as error:
        raise Unavailable(
            f"no {kind.installation()} to test with: {variable(kind.name)} is not set; Docker: {no_docker}; {error}"
        ) from error
    return Choice(kind)


def image_of(kind: type[Server]) -> str:
    """The image's name: `NARROWBOAT_TEST_<NAME>_IMAGE`, or the server's usual one."""
    told = None if kind.edition else os.environ.get(f"NARROWBOAT_TEST_{kind.name.upper()}_IMAGE")
    return told or kind.image_name
