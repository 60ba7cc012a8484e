"""A child process of a scenario: runs one plain function and talks with its parent in JSON lines.

    python -m narrowboat.conformance.users.child package.module:function

Without the function it is a fork server, and each of its forks is such a child.

The function, plain or `async def`, gets a `Link` and keyword arguments. The arguments are the first line on standard input:
every user of the machine can read a command line, and a URL has a password. The function tells its parent what has happened
(`link.tell("held", token=7)`) and waits for what the parent says (`link.wait("release")`); neither sleeps. Standard output
belongs to the link. When the parent goes away the child ends at once, and so a killed run leaves no process behind.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from narrowboat.conformance.checks.explain import explain


class Link:
    """The child's end."""

    def __init__(self) -> None:
        self._mutex = threading.RLock()  # a signal's handler may tell something in the middle of telling
        self._said: dict[str, queue.SimpleQueue[dict[str, Any]]] = {}
        self._out = os.dup(1)
        os.dup2(2, 1)  # a backend that prints must not break the protocol
        self.arguments: dict[str, Any] = json.loads(sys.stdin.readline() or "{}")
        threading.Thread(target=self._read, name="conformance-link", daemon=True).start()

    def tell(self, event: str, **values: Any) -> None:
        """Tell the parent. `at` is the boot-wide monotonic clock, comparable between processes of one machine."""
        line = json.dumps({"event": event, "at": time.monotonic(), **values}) + "\n"
        with self._mutex:
            os.write(self._out, line.encode())

    def wait(self, word: str) -> dict[str, Any]:
        """The values with which the parent says `word`, once it does."""
        return self._queue(word).get()

    async def heard(self, word: str) -> dict[str, Any]:
        """`wait` for programs that are coroutine functions."""
        said = self._queue(word)
        while said.empty():  # noqa: ASYNC110  # the words come on a thread, and a program may be cancelled here
            await asyncio.sleep(0.002)
        return said.get()

    def fork(self, work: Callable[[], object]) -> int:
        """Run `work` in a fork of the child: its process id. Its exit code is 1 if `work` raised, which the parent is told."""
        if pid := os.fork():
            return pid
        self._mutex = threading.RLock()  # a thread that the fork does not have may hold the copied one
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            self.failed(error)
        finally:
            os._exit(code)

    def failed(self, error: BaseException) -> None:
        """Tell the parent, which raises this error instead of any event that it waits for."""
        self.tell("failed", error=f"{type(error).__name__}: {error}", trace=traceback.format_exc())

    def _queue(self, word: str) -> queue.SimpleQueue[dict[str, Any]]:
        with self._mutex:
            return self._said.setdefault(word, queue.SimpleQueue())

    def _read(self) -> None:
        for line in sys.stdin:
            said = json.loads(line)
            self._queue(said.pop("word")).put(said)
        os._exit(3)  # the parent is gone


def main(argv: list[str]) -> int:
    """Run the function that `argv` names. 0: it returned; 1: it raised, and the parent was told."""
    module, _, name = argv[1].partition(":")
    link = Link()
    try:
        function = getattr(importlib.import_module(module), name)
        if inspect.iscoroutinefunction(function):
            asyncio.run(function(link, **link.arguments))
        else:
            function(link, **link.arguments)
    except Exception as error:
        if isinstance(error, AssertionError):
            explain(error)
        link.failed(error)
        return 1
    link.tell("done")
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 1:
        from narrowboat.conformance.users.fork_server import serve

        serve()  # returns in each child
    sys.exit(main(sys.argv))
