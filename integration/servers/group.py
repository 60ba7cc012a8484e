"""Several servers that make one service: a cluster, an ensemble, a primary with its watchers.

The verbs act on all members; each member has the same verbs for itself: `cluster.members[0].kill()`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from integration.servers.server import Controls, Server, ServerFailed


class Group(Controls):
    """A service of `members`, in the order in which they start; they stop the other way round."""

    #: seconds within which the members, which answer each alone, must have become one service
    form_bound = 30.0

    def __init__(self, members: Sequence[Server]) -> None:
        self.members = tuple(members)

    def _form(self) -> None:
        """Make one service of the members that run, and return when it is one. Called after each start of all."""

    def start(self) -> None:
        for member in self.members:
            if not member.alive:
                member.launch()
        for member in self.members:
            member.wait_ready()
        self._form()

    def stop(self) -> None:
        for member in reversed(self.members):
            member.stop()

    def kill(self) -> None:
        for member in reversed(self.members):
            member.kill()

    def pause(self) -> None:
        for member in self.members:
            member.pause()

    def resume(self) -> None:
        for member in self.members:
            member.resume()

    def log(self) -> str:
        return "".join(f"--- {member}\n{member.log()}" for member in self.members)

    def close(self) -> None:
        for member in reversed(self.members):
            member.close()

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        """Return when `holds`; `ServerFailed` when it does not within `form_bound` seconds."""
        deadline = time.monotonic() + self.form_bound
        while not holds():
            if time.monotonic() > deadline:
                logs = "\n".join(f"{member}. {member.last_lines()}" for member in self.members)
                raise ServerFailed(f"{type(self).__name__}: within {self.form_bound:g} s it did not come to {what}.\n{logs}")
            time.sleep(0.05)  # the pause between two questions
