"""The asyncio face's files that say nothing but `await` where the sync face waits: made from the sync files, never written.

    python tools/generate_aio.py            write each of them
    python tools/generate_aio.py --check    exit 1 and name those that are not what the sync files make

A function that calls `run(...)` or `straight(...)`, which wait for a loop, or closes a face, becomes a coroutine function that
awaits it; so does whatever calls such a method of its own object. What the two faces do differently (handlers in threads or in
tasks, opening a consumer, iterating) is written by hand in the files that are not listed here. Needs ruff, which sorts imports
and breaks lines.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

SYNC = Path(__file__).resolve().parent.parent / "src" / "narrowboat"
ASYNC = SYNC / "aio"
FILES = (
    "fencing/table",
    *(f"messaging/{name}" for name in ("alterable", "dead_letters", "message", "messaging", "publishing", "queue", "topic")),
    "outbox/outbox",
    *(f"working/{name}" for name in ("scheduling", "testing", "worker")),
)
HEAD = "# Made from narrowboat/{}.py by tools/generate_aio.py: change that file, and run this script.\n"

#: What differs in words, in order.
WORDS = {
    r'\A"""(.*?)\."""': r'"""\1, for asyncio."""',
    r"from narrowboat\._engine\.runtime.*\n": "",
    r"from narrowboat\.(messaging\.|locking\b|electing\b)": r"from narrowboat.aio.\1",
    r"from narrowboat\.(working\.(?:intake|scheduling|testing|waiting)\b)": r"from narrowboat.aio.\1",
    r"from narrowboat\.working import posting": "from narrowboat.aio.working import posting",
    r"\bblocking\((\w+)\)": r"\1",
    r"\bSyncOnly\b": "AsyncOnly",
    r"\bBlocking\b": "Asyncio",
    r"^(from narrowboat\._engine\.later_events import events\n)": r"\1from narrowboat.aio._runtime import Asyncio\n"
    r"from narrowboat.aio._threads import finish\n",
    r"await (self\._core)\.finish_close\(\)": r"await finish(\1)",
    r"between threads": "between tasks, threads and loops",
    r"in a `with`": "in an `async with`",
    r"(?:async )?def __(enter|exit)__": r"async def __a\1__",
}


def awaited(source: str) -> str:
    """`source` with `await` for `run`, and `async` before every function that has come to await."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    coroutines: set[str] = set()
    while True:
        found = {function.name for function in functions if any(waits(node, coroutines) for node in ast.walk(function))}
        if found == coroutines:
            break
        coroutines = found
    edits: list[tuple[int, int, int, str]] = []  # line, from column, to column, what stands there instead
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(waits(inner, coroutines) for inner in ast.walk(node)):
            edits.append((node.lineno, node.col_offset, node.col_offset, "async "))
        elif isinstance(node, ast.Call) and waits(node, coroutines):
            loop = node.args[0] if isinstance(node.func, ast.Name) else node
            edits.append((node.lineno, node.col_offset, loop.col_offset, "await "))
            if loop is not node:
                edits.append((loop.end_lineno or 0, loop.end_col_offset or 0, node.end_col_offset or 0, ""))
    lines = source.splitlines(keepends=True)
    for line, first, last, text in sorted(edits, reverse=True):
        lines[line - 1] = lines[line - 1][:first] + text + lines[line - 1][last:]
    return "".join(lines)


def waits(node: ast.AST, coroutines: set[str]) -> bool:
    """Whether it is a call that blocks, or of a method of the same object that is a coroutine function by now."""
    match node:
        case ast.Call(func=ast.Name(id="run" | "straight") | ast.Attribute(attr="finish_close" | "close")):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
            return name in coroutines
    return False


def made(name: str) -> str:
    """The asyncio twin of a file."""
    text = awaited((SYNC / f"{name}.py").read_text(encoding="utf-8"))
    for pattern, instead in WORDS.items():
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    for step in (("check", "--quiet", "--fix-only", "--select", "I,F401"), ("format", "--quiet")):
        command = ["ruff", *step, "--stdin-filename", str(ASYNC / f"{name}.py"), "-"]
        text = subprocess.run(command, input=text, check=True, capture_output=True, encoding="utf-8").stdout  # noqa: S603  # our own words
    return HEAD.format(name) + text


def same(path: Path, text: str) -> bool:
    """Whether the file is there, and says that."""
    return path.exists() and path.read_text(encoding="utf-8") == text


def main(check: bool) -> int:
    """Write them, or compare them."""
    wrong = [name for name in FILES if not same(ASYNC / f"{name}.py", made(name))]
    for name in wrong:
        if check:
            print(f"aio/{name}.py is not what {name}.py makes: run python tools/generate_aio.py")
        else:
            (ASYNC / f"{name}.py").write_text(made(name), encoding="utf-8")
    return int(check and bool(wrong))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
