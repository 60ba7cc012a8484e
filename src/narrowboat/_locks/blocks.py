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

    def _entered_by(self, entry: Entry[Any]) -> None:
        """It was entered, and will be left once."""
        ...

    def _leave_behind(self) -> None:
        """Nobody has it any more, and nobody has released it. From any thread, at any moment; never blocks."""
        ...


E = TypeVar("E", bound=Entered)
F = TypeVar("F", bound=Callable[..., Any])


class Entry(Generic[E]):
    """That something was entered, by a `with` or by hand, and will be left once."""

    entered: E | None = None
    left = False
    spent = False  #: what it had entered was released in its body

    def is_in(self, held: object) -> bool:
        """Whether leaving it releases `held`."""
        return self.entered is held and not self.left and not self.spent


class Block(Entry[E]):
    """One `with` statement of one lock. Each face's own kind is called when it is left."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def by_hand(self, caller: object) -> E:
        """What is to be released by who has no block, or one that was not entered."""
        if self.left:
            raise InvalidArgument("this `with` was left before; there is nothing to release")
        blocks: Blocks[E] = self.owner._blocks
        entry = blocks.leaving(caller)
        self.entered = entry.entered
        self.spent = entry.spent
        assert entry.entered is not None  # it is in the list for what it has
        return entry.entered

    def survives(self, failure: BaseException, error: BaseException | None) -> bool:
        """Its release raised `failure`, which goes on (False) unless it became a note of the body's own `error`."""
        if self.entered is not None:
            self.entered._leave_behind()  # it may have struck before the release began
        if not isinstance(failure, Exception):
            return False  # not left: what an interrupt kept from being released is given back at the end
        self.left = True
        return noted(failure, error)

    def __del__(self) -> None:
        if self.entered is not None and not self.left and not self.spent:
            self.entered._leave_behind()


def noted(failure: Exception, error: BaseException | None) -> bool:
    """Whether what the end of a `with` met became a note of the body's own `error`, which goes on unchanged."""
    if error is not None:
        error.add_note(f"narrowboat: releasing the lock afterwards: {type(failure).__name__}: {failure}")
    return error is not None


class _PerBlock:
    """Gives each `with` a block of `kind`; on the class, the plain function that an `ExitStack` looks up."""

    def __init__(self, leave: Callable[..., Any], kind: type[Block[Any]]) -> None:
        self.leave = leave
        self.kind = kind
        self.__doc__ = leave.__doc__

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            return self.leave
        block = self.kind(owner)
        owner._blocks._opened[threading.get_ident()] = weakref.ref(block)  # this thread enters it next
        return block


def per_block(kind: type[Block[Any]]) -> Callable[[F], F]:
    """For `__exit__` or `__aexit__` of a class with `_blocks`: called by a `with`, it is a block of `kind`."""

    def made(leave: F) -> F:
        return cast("F", _PerBlock(leave, kind))

    return made


class Blocks(Generic[E]):
    """The blocks of one lock."""

    __slots__ = ("_by_hand", "_opened")

    def __init__(self) -> None:
        self._opened: dict[int, weakref.ref[Block[E]]] = {}  # by thread: looked up, and about to be entered
        self._by_hand: dict[object, list[Entry[E]]] = {}  # by thread or task: entered without a block

    def opened(self, thread: int) -> Block[E] | None:
        """The block that `thread` enters now; None when it is entered by hand."""
        reference = self._opened.pop(thread, None)
        return None if reference is None else reference()

    def enter(self, caller: object, entered: E) -> None:
        """Its body begins, and no block has it."""
        entry: Entry[E] = Entry()
        entry.entered = entered
        self._by_hand.setdefault(caller, []).append(entry)
        entered._entered_by(entry)

    def undo(self, block: Block[E] | None, caller: object, entered: E | None) -> None:
        """Its body will not begin after all; `entered` may or may not have been noted."""
        if block is not None:
            block.entered = None
        elif entered is not None:
            mine = self._by_hand.get(caller, [])
            if mine and mine[-1].entered is entered:
                mine.pop()
            if not mine:
                self._by_hand.pop(caller, None)

    def leaving(self, caller: object) -> Entry[E]:
        """What `caller` has entered last without a block; what anybody has, where that is nothing."""
        if caller not in self._by_hand:
            if not self._by_hand:
                raise InvalidArgument("left without having been entered; there is nothing to release")
            caller = next(reversed(self._by_hand))
        mine = self._by_hand[caller]
        entry = mine.pop()
        if not mine:
            del self._by_hand[caller]
        return entry
