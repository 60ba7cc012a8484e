"""What a provider knows of the owners that its calls named: the session of their grants, and what of them is unanswered.

An attempt whose reply was lost can land after its withdrawal, and the session keeps it for as long as it lives. So whoever is
withdrawn without having been answered is in doubt for a while: what comes to be of it is to be removed.

It does no I/O and knows no key. Each step is one of a set or a dictionary, so that any thread may take it.
"""

from __future__ import annotations

from collections.abc import Iterable

from narrowboat.contract.locks import Request


class Owners:
    """See the module's text. `patience`: seconds for which a withdrawal is to be repeated; `doubt`: those of the doubt."""

    def __init__(self, patience: float, doubt: float) -> None:
        self._patience = patience
        self._doubt = doubt
        self._sessions: dict[str, str] = {}  # the session under which each owner's grant was made
        self._unanswered: set[str] = set()  # those whose last attempt has not been answered with a clear no
        self._announced: set[str] = set()  # those that have told who shares a lock that they wait
        self._doubts: dict[str, tuple[Request, float]] = {}  # withdrawn, and may land yet: until when

    def asked(self, requests: Iterable[Request]) -> None:
        """An attempt for them is about to be sent."""
        self._unanswered.update(request.owner for request in requests)

    def refused(self, owner: str) -> None:
        """It was answered with a clear no, and has left nothing but, perhaps, its announcement."""
        if owner not in self._announced:
            self._unanswered.discard(owner)

    def granted(self, owner: str, session: str) -> None:
        """It holds the lock, under `session`."""
        self._sessions[owner] = session
        self._announced.discard(owner)

    def announce(self, owner: str) -> None:
        """It has an entry that says that it waits."""
        self._announced.add(owner)

    def has_announced(self, owner: str) -> bool:
        """Whether there is an entry that says that it waits."""
        return owner in self._announced

    def session(self, owner: str) -> str | None:
        """That of its grant; None without one."""
        return self._sessions.get(owner)

    def may_be_there(self, owner: str) -> bool:
        """Whether anything of it may be in Consul, or on its way there."""
        return owner in self._unanswered or owner in self._sessions

    def lost(self, owner: str) -> None:
        """Its grant is over."""
        self._sessions.pop(owner, None)

    def forget(self, owner: str) -> None:
        """Nothing of it is left, and nothing will come."""
        self._sessions.pop(owner, None)
        self._doubts.pop(owner, None)
        self._unanswered.discard(owner)
        self._announced.discard(owner)

    def doubt(self, request: Request, now: float) -> bool:
        """It was withdrawn, and its attempt may be under way. Whether the withdrawal is to be repeated in a moment.

        After one operation timeout nothing comes that did not fail, so the rest is left to the renewals of the session.
        """
        _, until = self._doubts.setdefault(request.owner, (request, now + self._doubt))
        if until - self._doubt + self._patience > now:
            return True
        self._unanswered.discard(request.owner)
        self._announced.discard(request.owner)
        return False

    def in_doubt(self) -> dict[str, tuple[Request, float]]:
        """Those that may land yet, and until when."""
        return dict(self._doubts)
