"""What each `with` of a lock has entered, so that leaving it releases just that: in any thread, task or loop.

A `with` looks up `__exit__` (`__aexit__`) before it enters, and keeps what it found until it is left. `per_block` makes that
lookup give a `Block` of its own to each `with`, which is filled on entering. So nobody has to guess who leaves: a generator
may be finished by another thread, a fixture be torn down in another task. And a block whose frame has gone without leaving it
(an interrupt struck on the very first step of `__exit__`) goes with it, and what it had entered is given back.

Where somebody calls `__enter__` and `__exit__` by themselves (an `ExitStack` does), what was entered is kept by thread or task;
who has entered nothing leaves what was entered last.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, cast

from narrowboat.errors import InvalidArgument


class Entered(Protocol):
    """What a block has: one possession, or several as one."""

    def _leave_behind(self) -> None:
        """Nobody has it any more, and nobody has released it. From any thread, at any moment; never blocks."""
        ...


E = TypeVar("E", bound=Entered)
F = TypeVar("F", bound=Callable[..., Any])


class Block(Generic[E]):
    """One `with` statement of one lock. Called when it is left."""

    __slots__ = ("__weakref__", "_leave", "_owner", "entered", "left")

    def __init__(self, owner: Any, leave: Callable[..., Any]) -> None:
        self._owner = owner
        self._leave = leave
        self.entered: E | None = None
        self.left = False

    def __call__(self, kind: Any = None, error: Any = None, trace: Any = None) -> Any:
        """Leave it."""
        return self._leave(self._owner, kind, error, trace, self)

    def __del__(self) -> None:
        if self.entered is not None and not self.left:
            self.entered._leave_behind()


class _PerBlock:
    """Gives each `with` a `Block`; on the class, the plain function that an `ExitStack` looks up."""

    def __init__(self, leave: Callable[..., Any]) -> None:
        self.leave = leave
        self.__doc__ = leave.__doc__

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            return self.leave
        block: Block[Any] = Block(owner, self.leave)
        owner._blocks._opened[threading.get_ident()] = weakref.ref(block)  # this thread enters it next
        return block


def per_block(leave: F) -> F:
    """For `__exit__` or `__aexit__` of a class with `_blocks`. It is handed its block as one more argument, or None."""
    return cast("F", _PerBlock(leave))


class Blocks(Generic[E]):
    """The blocks of one lock."""

    __slots__ = ("_by_hand", "_opened")

    def __init__(self) -> None:
        self._opened: dict[int, weakref.ref[Block[E]]] = {}  # by thread: looked up, and about to be entered
        self._by_hand: dict[object, list[E]] = {}  # by thread or task: entered without a block

    def opened(self, thread: int) -> Block[E] | None:
        """The block that `thread` enters now; None when it is entered by hand."""
        reference = self._opened.pop(thread, None)
        return None if reference is None else reference()

    def enter(self, caller: object, entered: E) -> None:
        """Its body begins, and no block has it."""
        self._by_hand.setdefault(caller, []).append(entered)

    def undo(self, block: Block[E] | None, caller: object, entered: E | None) -> None:
        """Its body will not begin after all; `entered` may or may not have been noted."""
        if block is not None:
            block.entered = None
        elif entered is not None:
            mine = self._by_hand.get(caller, [])
            if entered in mine:
                mine.remove(entered)
            if not mine:
                self._by_hand.pop(caller, None)

    def leaving(self, block: Block[E] | None, caller: object) -> E:
        """What is to be released by who has no block, or one that was not entered."""
        if block is not None and block.left:
            raise InvalidArgument("this `with` was left before; there is nothing to release")
        if caller not in self._by_hand:
            if not self._by_hand:
                raise InvalidArgument("left without having been entered; there is nothing to release")
            caller = next(reversed(self._by_hand))
        mine = self._by_hand[caller]
        entered = mine.pop()
        if not mine:
            del self._by_hand[caller]
        return entered
