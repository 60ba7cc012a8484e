"""Luacheck over the Lua of the Redis backend, as the server gets it: each script behind the files that it stands on.

    python -m tools.check_lua               print what is wrong, file by file; exit 1 where there is something

A file of helpers is in several scripts, and few use all of it. So what says that something is not used counts only where no
script uses it. `.luacheckrc` says what is allowed, with its reason. `python -m integration.servers install luacheck` gets
Luacheck without root.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from integration.servers import cache, programs
from narrowboat_redis import scripts

ROOT = Path(__file__).resolve().parent.parent
BACKEND = ROOT / "backends" / "redis" / "narrowboat_redis"
#: `--formatter plain --codes`: file, line, column, code, text
_WARNING = re.compile(r"^(?P<script>[^:]+):(?P<line>\d+):\d+: \((?P<code>[EW]\d+)\) (?P<text>.*)$")
#: codes of what is not used: a variable, a function, an argument, a loop's variable, a field
_UNUSED = re.compile(r"W(2[1-4]|13)\d")


class Warned(NamedTuple):
    """A warning at its place in a file of the folder."""

    file: str
    line: int
    code: str
    text: str


def composed() -> list[tuple[str, ...]]:
    """The files of each script, in their order, as the backend's modules put them together."""
    found: list[tuple[str, ...]] = []
    put_together = scripts.script

    def noted(*files: str) -> scripts.Script:
        found.append(files)
        return put_together(*files)

    # Each module is read once more, and says what it asks for: by itself, or by a function of another one.
    modules = [importlib.import_module(f"narrowboat_redis.{path.stem}") for path in sorted(BACKEND.glob("[!_]*.py"))]
    for module in modules:
        if vars(module).get("script") is put_together:
            vars(module)["script"] = noted
    for module in modules:
        if module is not scripts:
            importlib.reload(module)
    return sorted(set(found))


def main() -> int:
    """Check them all; the exit code."""
    wanted = composed()
    uses = Counter(file for files in wanted for file in files)
    missed = {path.name for path in (BACKEND / "lua").glob("*.lua")} - set(uses)
    seen: Counter[Warned] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for files in wanted:
            seen.update(_warnings(files, Path(folder)))
    wrong = sorted(each for each, times in seen.items() if not _UNUSED.match(each.code) or times == uses[each.file])
    for each in wrong:
        print(f"{each.file}:{each.line}: {each.code} {each.text}")
    for file in sorted(missed):
        print(f"{file}: no script has it")
    print(f"{len(wanted)} scripts of {len(uses)} files: {len(wrong)} warnings")
    return 1 if wrong or missed else 0


def _warnings(files: tuple[str, ...], folder: Path) -> set[Warned]:
    parts = [(BACKEND / "lua" / file).read_text(encoding="utf-8") for file in files]
    script = folder / files[-1]
    script.write_text("\n".join(parts), encoding="utf-8")  # as `Script` gets it
    command = [_luacheck(), "--config", str(ROOT / ".luacheckrc"), "--formatter", "plain", "--codes", script.name]
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)  # noqa: S603  # our own words
    if done.returncode > 2:  # 1 says warnings, 2 errors, more that it could not do its work
        sys.exit(f"luacheck failed on {'+'.join(files)}: {done.stdout}{done.stderr}")
    return {_placed(match, files, parts) for match in map(_WARNING.match, done.stdout.splitlines()) if match}


def _placed(match: re.Match[str], files: tuple[str, ...], parts: list[str]) -> Warned:
    line = int(match["line"])
    for file, part in zip(files, parts, strict=True):
        length = part.count("\n") + 1
        if line <= length:
            return Warned(file, line, match["code"], match["text"])
        line -= length
    raise AssertionError(f"no file has the line of {match[0]}")


def _luacheck() -> str:
    try:
        return str(programs.find("luacheck", "luacheck").path)
    except programs.NotInstalled as error:
        sys.exit(str(error))


def _environment() -> dict[str, str]:
    """With the unpacked interpreter and libraries before the system's; two semicolons stand for the usual places."""
    root = cache.folder("luacheck")
    lua = root / "usr" / "share" / "lua" / "5.1"
    libraries = "".join(f"{folder}/?.so;" for folder in root.glob("usr/lib/*-linux-gnu*/lua/5.1"))
    path = os.pathsep.join([str(root / "usr" / "bin"), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "LUA_PATH": f"{lua}/?.lua;{lua}/?/init.lua;;", "LUA_CPATH": f"{libraries};"}


if __name__ == "__main__":
    sys.exit(main())
