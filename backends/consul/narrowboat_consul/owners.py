"""What a provider knows of its owners: the session of their grants, and which attempts are unanswered.

An attempt whose reply was lost can land after its withdrawal, and the session then keeps its entry. So an owner that is
withdrawn before its attempt was answered is in doubt for a while. Entries that it leaves meanwhile have to be removed.

It does no I/O and knows no key. Each step is a single one of a set or a dictionary, so any thread may take it.
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
        """Note that an attempt of these owners is about to be sent."""
        self._unanswered.update(request.owner for request in requests)

    def refused(self, owner: str) -> None:
        """Note that its attempt was refused. It has left nothing, except perhaps its announcement."""
        if owner not in self._announced:
            self._unanswered.discard(owner)

    def granted(self, owner: str, session: str) -> None:
        """Note that it holds the lock, under `session`."""
        self._sessions[owner] = session
        self._announced.discard(owner)

    def announce(self, owner: str) -> None:
        """Note that it has an entry which announces that it waits."""
        self._announced.add(owner)

    def has_announced(self, owner: str) -> bool:
        """Whether it has an entry which announces that it waits."""
        return owner in self._announced

    def session(self, owner: str) -> str | None:
        """The session of its grant; None without a grant."""
        return self._sessions.get(owner)

    def may_be_there(self, owner: str) -> bool:
        """Whether an entry of it may be in Consul, or on its way there."""
        return owner in self._unanswered or owner in self._sessions

    def lost(self, owner: str) -> None:
        """Note that its grant has ended."""
        self._sessions.pop(owner, None)

    def forget(self, owner: str) -> None:
        """Drop the owner: it has no entry, and none will land."""
        self._sessions.pop(owner, None)
        self._doubts.pop(owner, None)
        self._unanswered.discard(owner)
        self._announced.discard(owner)

    def doubt(self, request: Request, now: float) -> bool:
        """Note that it was withdrawn while its attempt may be under way. True: repeat the withdrawal in a moment.

        An attempt that has not landed within one operation timeout most likely never does. The session's renewals do the rest.
        """
        _, until = self._doubts.setdefault(request.owner, (request, now + self._doubt))
        if until - self._doubt + self._patience > now:
            return True
        self._unanswered.discard(request.owner)
        self._announced.discard(request.owner)
        return False

    def in_doubt(self) -> dict[str, tuple[Request, float]]:
        """The owners whose attempts may still land, and until when."""
        return dict(self._doubts)
