"""The command line: `python -m integration.servers install redis ...|all` and `python -m integration.servers list`."""

from __future__ import annotations

import argparse
import sys
import time

from integration.servers.install import BESIDE, RECIPES, SERVERS, VERSIONS, install, place

#: words for several
_GROUPS = {"all": SERVERS, "versions": VERSIONS}


def main(arguments: list[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m integration.servers", description="The servers that the integration tests start on this machine."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what is installed, and where")
    getting = commands.add_parser("install", help="get servers into the user's cache; nothing where they are already")
    getting.add_argument("servers", nargs="+", choices=[*RECIPES, *_GROUPS], metavar="|".join([*RECIPES, *_GROUPS]))
    given = parser.parse_args(arguments)
    if given.command == "list":
        for name in RECIPES:
            print(f"{name:14} {place(name) or 'not installed'}")
        return 0
    named = [name for word in given.servers for name in _GROUPS.get(word, (word,))]
    wanted = dict.fromkeys(each for name in named for each in (name, *BESIDE.get(name, ())))
    failed = [name for name in wanted if not _install(name)]
    if failed:
        print(f"not installed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _install(name: str) -> bool:
    before = place(name)
    if before is not None:
        print(f"{name}: is there: {before}", flush=True)
        return True
    print(f"{name}: installing{'; this takes some minutes' if name == 'consul' else ''} ...", flush=True)
    started = time.monotonic()
    try:
        found = install(name)
    except Exception as error:  # one server that fails must not keep the others away
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return False
    print(f"{name}: {found} ({time.monotonic() - started:.0f} s)", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
