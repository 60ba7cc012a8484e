"""`narrowboat lock URL NAME -- COMMAND...`: run a command while holding a lock."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time

import click

from narrowboat.cli.child import Child
from narrowboat.cli.command import Command
from narrowboat.cli.deadline import DEFAULT_GRACE, longest_grace
from narrowboat.cli.exits import Exit, code_of_status
from narrowboat.cli.guard import Guard
from narrowboat.cli.options import Seconds, environment, keep_urls, locks_url
from narrowboat.cli.output import complain
from narrowboat.cli.reach import open_locks
from narrowboat.cli.relay import Relay
from narrowboat.cli.terminal import Terminal
from narrowboat.errors import ConfigurationError, LeaseLost, LockTimeout, NarrowboatError
from narrowboat.locking import Held, Lock, Mode


class LockCommand(Command):
    """The command with a hint for who forgot the two dashes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; an unknown option probably belongs to COMMAND."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            hint = "" if "--" in args else " If it belongs to the command that is to run, write -- before the command."
            raise click.UsageError(f"{error.format_message()}{hint}", ctx) from error


@click.command("lock", cls=LockCommand)
@locks_url
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.option(
    "--ttl", type=Seconds(0.05), default=30.0, show_default=True, help="Seconds after which a dead holder's lock is free."
)
@click.option(
    "--at-least",
    type=Seconds(),
    default=0.0,
    help="Seconds for which the name stays taken after its grant, also when the command has ended before.  [default: 0]",
)
@click.option("--timeout", type=Seconds(), help="Seconds to wait for the lock; 0 tries once.  [default: for ever]")
@click.option("--shared", is_flag=True, help="Hold it together with other shared holders.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="A semaphore: up to N hold it together.")
@click.option("--label", help="Who we are, for the people who read `narrowboat holders`.  [default: host and process]")
@click.option(
    "--grace",
    type=Seconds(),
    help="Seconds that the command has to end, after SIGTERM, when the lock is lost; at most a third of the ttl.  "
    "[default: 5, less with a short ttl]",
)
@keep_urls
@click.option("-v", "--verbose", is_flag=True, help="Say on standard error when the lock is waited for, held and released.")
def lock(
    url: str | None,
    name: str,
    command: tuple[str, ...],
    ttl: float,
    at_least: float,
    timeout: float | None,
    shared: bool,
    limit: int | None,
    label: str | None,
    grace: float | None,
    keep_urls: bool,
    verbose: bool,
) -> int:
    """Run COMMAND while holding the lock NAME.

    The exit code is the command's own, 128+N when signal N ended it, 127 when it was not found, 126 when it cannot be
    executed; 75 when the lock was still busy after --timeout; 79 when the lock was lost while the command ran.

    The command sees NARROWBOAT_LOCK, the name, and NARROWBOAT_TOKEN, the fencing token: a number that grows with every
    holder; it does not see NARROWBOAT_LOCKS_URL and NARROWBOAT_BROKER_URL, unless --keep-urls says so. It runs in a
    process group of its own, which gets the signals TERM, INT, HUP, USR1, USR2, QUIT and WINCH that we get, and the
    terminal if standard input is one. It cannot be suspended with Ctrl-Z while it holds the lock.

    When the lock cannot be renewed, the group gets SIGTERM early enough to leave it the grace time before the lock can
    be over, and SIGKILL before it is. When the lock is taken from us before its time (narrowboat evict), it gets SIGTERM
    at once and SIGKILL after the grace time. When we are killed with SIGKILL, Linux kills the command as well (not what
    it has started itself); elsewhere it goes on, and the token is what protects your data.
    """
    if shared and limit is not None:
        raise click.UsageError("--shared and --limit exclude each other: a semaphore is shared by up to N holders already")
    grace = _grace(grace, ttl)
    if (code := _missing(command[0])) is not None:
        return code
    child = Child(command)
    started = ended = None
    try:
        with Relay() as relay, open_locks(url) as locks:
            mode: Mode = "shared" if shared else "exclusive"
            wanted = locks.lock(name, ttl=ttl, at_least=at_least, mode=mode, limit=limit, label=label)
            held = _acquire(wanted, name, timeout, verbose=verbose)
            if held is None:
                return Exit.BUSY
            relay.collect()
            _check_grace(grace, held.ttl)
            held.on_lost(lambda *_: relay.wake())
            terminal = Terminal()
            terminal.hand_over(child.pid)
            try:
                seen = environment(keep_urls=keep_urls, NARROWBOAT_LOCK=name, NARROWBOAT_TOKEN=str(held.token))
                started = child
                child.start(seen)
                ended = Guard(child, held, relay, terminal, grace=grace).watch()
            except OSError as error:
                return _cannot_execute(command[0], error)
            finally:
                terminal.take_back()
            return _finish(held, ended.status, told=ended.told, at_least=at_least, verbose=verbose)
    finally:
        if started is None:
            child.abandon()
        elif ended is None:  # the guard is gone
            child.signal(signal.SIGKILL)


def _grace(grace: float | None, ttl: float) -> float:
    if grace is None:
        return min(DEFAULT_GRACE, longest_grace(ttl))
    if grace > longest_grace(ttl):
        raise click.UsageError(
            f"--grace {grace:g} does not fit into --ttl {ttl:g}: it may be at most {longest_grace(ttl):g} s, a third of the "
            "ttl, so that a failed renewal can be tried again before the command must be told to end; "
            f"take --ttl {grace * 3:g} or more"
        )
    return grace


def _check_grace(grace: float, ttl: float) -> None:
    """The backend may keep a shorter lease than was asked for, where its session is the lease."""
    if grace > longest_grace(ttl):
        raise ConfigurationError(
            f"--grace {grace:g} does not fit into this backend's lease of {ttl:g} s: it may be at most {longest_grace(ttl):g} s"
        )


def _missing(program: str) -> int | None:
    """The exit code when the command cannot be there: better said now than after an hour of waiting for the lock."""
    if shutil.which(program) is not None:
        return None
    path = program if os.sep in program else None
    if path and os.path.exists(path):
        complain(f"{program}: cannot be executed")
        return Exit.NOT_EXECUTABLE
    complain(f"{program}: command not found")
    return Exit.NOT_FOUND


def _cannot_execute(program: str, error: OSError) -> int:
    complain(f"{program}: {error.strerror or error}")
    return Exit.NOT_FOUND if error.errno == errno.ENOENT else Exit.NOT_EXECUTABLE


def _acquire(wanted: Lock, name: str, timeout: float | None, *, verbose: bool) -> Held | None:
    if verbose:
        complain(f"waiting for the lock {name!r}")
    try:
        held = wanted.acquire(timeout=timeout)
    except LockTimeout as error:
        complain(str(error))
        return None
    if verbose:
        complain(f"holding the lock {name!r}, token {held.token}")
    return held


def _finish(held: Held, status: int, *, told: bool, at_least: float, verbose: bool) -> int:
    """Release, and the exit code."""
    code = code_of_status(status)
    try:
        held.release()
    except LeaseLost as error:
        complain(f"{error} The command ended with exit code {code}.")
        return Exit.LEASE_LOST
    except NarrowboatError as error:
        complain(f"the command ended, but its lock could not be released and stays until its lease ends: {error}")
        return Exit.LEASE_LOST if told else code
    if verbose:
        left = ", whose name stays taken" if time.time() < held.acquired_at + at_least else ""
        complain(f"released the lock {held.name!r}{left}")
    return Exit.LEASE_LOST if told else code
