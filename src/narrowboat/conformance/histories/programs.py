"""The processes of a history: each opens its faces, runs its users, and ends when it is told to.

`client` is the program of a child process; `Program` is the same within a process that has an event loop. Only what is
embedded has the layer of faults in front of its driver: a server's connections are broken by the proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import narrowboat
import narrowboat.aio
from narrowboat.conformance.histories.journal import Effects, Journal
from narrowboat.conformance.histories.plan import Kind, Role, User
from narrowboat.conformance.histories.users import Company, Faces, Terms
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.faces import wrap
from narrowboat.conformance.users.opening import opened
from narrowboat.layers.faults import Faults


class Program:
    """One process's users. `start`, then `end`; `strike` breaks driver calls meanwhile."""

    def __init__(
        self,
        name: str,
        folder: Path,
        terms: Terms,
        urls: dict[str, str],
        users: Sequence[User],
        *,
        wrap: Callable[[Any], Any] | None = None,
    ) -> None:
        self.journal = Journal(folder, name)
        self._effects = Effects(folder)
        self._company = Company(terms, self.journal, self._effects)
        self._faults = Faults()
        self._inner = wrap
        self._urls = urls
        self._users = users
        self._opened: list[Any] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Let the users begin."""
        faces = {face: self._open(face) for face in {user.face for user in self._users}}
        self._tasks = [asyncio.create_task(self._company.act(user, faces[user.face])) for user in self._users]

    def _open(self, face: str) -> Faces:
        locks = broker = None
        if "locks" in self._urls:
            entry = narrowboat if face == "sync" else narrowboat.aio
            locks = wrap(entry.locks(self._urls["locks"], wrap=self._wrap))
        if "broker" in self._urls:
            broker = wrap(opened(self._urls["broker"], face, wrap=self._wrap))
        self._opened += [each for each in (locks, broker) if each is not None]
        return Faces(locks, broker)

    def _wrap(self, driver: Any) -> Any:
        """The faults are outside of a layer that the harness puts in front of the driver."""
        return self._faults.wrap(driver if self._inner is None else self._inner(driver))

    def strike(self, kind: Kind, word: str, seconds: float) -> None:
        """Let the next driver call `word` go wrong, or consumers come and go for so long."""
        if kind is Kind.LOST_REPLY:
            self._faults.drop_reply(word)
        elif kind is Kind.LOST_REQUEST:
            self._faults.drop_request(word)
        elif kind is Kind.DELAY:
            self._faults.delay(word, seconds)
        elif kind is Kind.STORM:
            self._company.storm = time.monotonic() + seconds

    async def end(self) -> None:
        """Let the users end, and close what they used."""
        self._company.ended.set()
        await asyncio.gather(*self._tasks)
        self._faults.clear()
        for each in self._opened:
            await each.close()
        self.journal.tell("ended", killed=False)
        self.journal.close()
        self._effects.close()


async def client(
    link: Link, name: str, folder: str, terms: dict[str, Any], urls: dict[str, str], users: Sequence[Sequence[Any]]
) -> None:
    """The program of a child: it hears `strike`, and `end`."""
    known = [User(number, Role(role), face, ordered) for number, role, face, ordered in users]
    program = Program(name, Path(folder), Terms(**_tuples(terms)), urls, known)
    program.start()
    link.tell("ready")

    async def hear() -> None:
        while True:
            said = await link.heard("strike")
            program.strike(Kind(said["kind"]), said["of"], said["seconds"])

    hearing = asyncio.create_task(hear())
    await link.heard("end")
    hearing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await hearing
    await program.end()


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
