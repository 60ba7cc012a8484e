"""`narrowboat.events`, imported when the first of its names is asked for: a program without listeners never pays for it.

Its records were a tenth of the time that `import narrowboat` took. The core makes one only where there are listeners, and
`checked` has imported the module by then, in the call that opens a face. It holds nothing of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from narrowboat import events as events  # noqa: PLC0414  # checkers take it as exported
else:

    class _Events:
        """Stands for the module."""

        def __getattr__(self, name: str) -> object:
            from narrowboat import events

            vars(self).update(vars(events))  # from now on a name of it costs what it costs in a module
            return getattr(events, name)

    events = _Events()


def checked(listeners: Sequence[events.Listener]) -> tuple[events.Listener, ...]:
    """What `events.check` says of them; nothing is imported for the default, which is none."""
    return () if listeners == () else events.check(listeners)
