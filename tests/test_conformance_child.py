"""The kit's child processes: what they are given, and who can see it."""

import asyncio
import os
import sys
from typing import Any

from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.children import Child
from narrowboat.conformance.watch import watch


def echo(link: Link, url: str, number: int) -> None:
    """Tell what came, then wait."""
    link.tell("got", url=url, number=number)
    link.tell("told", value=link.wait("go")["value"])


def test_a_childs_arguments_are_not_on_its_command_line() -> None:
    """Every user of the machine can read that, and a URL has a password. What is said later comes in order behind them."""

    async def talk() -> Any:
        child = await Child.start(
            echo, {"url": "redis://:hunter2@h/0", "number": 7}, watch(), {"PYTHONPATH": os.pathsep.join(sys.path)}
        )
        try:
            child.tell("go", value="x")
            got = await child.event("got")
            with open(f"/proc/{child.pid}/cmdline", "rb") as file:
                line = file.read()
            return got, await child.event("told"), line, await child.exit()
        finally:
            await child.close()

    got, told, line, code = asyncio.run(talk())

    assert (got["url"], got["number"], told["value"], code) == ("redis://:hunter2@h/0", 7, "x", 0)
    assert b"narrowboat.conformance.users.child" in line
    assert b"hunter2" not in line
