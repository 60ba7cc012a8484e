"""Where the users of a history live: this process, or child processes each with a network of its own in front of the servers.

A place `p1` has one process after another: `p1.0`, and `p1.1` after the first was killed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from narrowboat.conformance.faults.network import Network
from narrowboat.conformance.harness import Harness, with_query
from narrowboat.conformance.histories.plan import Kind, User
from narrowboat.conformance.histories.programs import Program, client
from narrowboat.conformance.histories.users import Terms
from narrowboat.conformance.users.children import Child, ChildFailed
from narrowboat.conformance.watch import watch

#: Seconds in which a process that was told to end must have ended. It has calls under way, and closes its faces.
ENDING = 60.0
#: Seconds in which one that was started must have begun: a busy machine takes long for its imports.
STARTING = 60.0


class Place:
    """See the module's text. `start` it, then `end` it, with any number of kills in between."""

    def __init__(self, name: str, folder: Path, terms: Terms, users: Sequence[User], urls: dict[str, str]) -> None:
        self.name = name
        self.networks: tuple[Network, ...] = ()
        self._folder = folder
        self._terms = terms
        self._users = users
        self._urls = urls
        self._generation = 0
        self.child: Child | None = None
        self._program: Program | None = None

    @property
    def process(self) -> str:
        """The name of the process that it has now."""
        return f"{self.name}.{self._generation}"

    def connect(self, harness: Harness) -> None:
        """Put a network in front of the servers. May block."""
        found = {half: harness.network(url) for half, url in self._urls.items()}
        self._urls = {half: network.url for half, network in found.items()}
        self.networks = tuple({id(network): network for network in found.values()}.values())

    def start_here(self, wrap: Callable[[Any], Any] | None) -> None:
        """Start its users in this process, with a layer in front of each driver."""
        self._program = Program(self.process, self._folder, self._terms, self._urls, self._users, wrap=wrap)
        self._program.start()

    async def start(self) -> None:
        """Start its users in a process of their own."""
        arguments = {
            "name": self.process,
            "folder": str(self._folder),
            "terms": dataclasses.asdict(self._terms),
            "urls": self._urls,
            "users": self._users,
        }
        self.child = await Child.start(client, arguments, watch(), {}, self._urls.values())

    async def ready(self) -> None:
        """Wait until its users have begun."""
        if self.child is not None:
            await self.child.event("ready", within=STARTING)

    async def kill(self) -> float:
        """SIGKILL. The time at which it was surely dead."""
        assert self.child is not None
        self.child.kill()
        await self.child.exit()
        await self.child.close()
        return time.monotonic()

    async def again(self) -> None:
        """Start the next process."""
        self._generation += 1
        await self.start()
        await self.ready()

    def strike(self, kind: Kind, word: str, seconds: float) -> None:
        """Let a driver call of its users go wrong, or its consumers come and go."""
        if self._program is not None:
            self._program.strike(kind, word, seconds)
        elif self.child is not None:
            self.child.tell("strike", kind=kind, of=word, seconds=seconds)

    async def end(self) -> str:
        """Let its users end. What went wrong with that, or ""."""
        if self._program is not None:
            try:
                await asyncio.wait_for(self._program.end(), ENDING)
            except TimeoutError:
                return f"its users did not end within {ENDING:g} s"
            return ""
        assert self.child is not None
        self.child.tell("end")
        try:
            await self.child.event("done", within=ENDING)
        except ChildFailed as error:
            return str(error)
        return ""

    async def close(self) -> None:
        """End what is left of it."""
        if self.child is not None:
            self.child.resume()
            await self.child.close()
        for network in self.networks:
            await asyncio.to_thread(network.close)


def urls(harness: Harness, halves: Sequence[str], namespace: str, operation: float) -> dict[str, str]:
    """The URLs of a namespace by half, with calls that take so long at most."""
    makes: dict[str, Callable[[str], str]] = {"locks": harness.locks_url, "broker": harness.broker_url}
    made: dict[str, Any] = {half: makes[half](namespace) for half in halves}
    return {half: url if "timeout=" in url else with_query(url, f"timeout={operation:g}") for half, url in made.items()}
