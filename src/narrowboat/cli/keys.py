"""`narrowboat keys`: makes, rotates, lists and cleans the keyring that `?seal=` names. It opens no backend."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator

import click

from narrowboat.cli.command import Command
from narrowboat.cli.options import Seconds, as_json
from narrowboat.cli.output import print_json, print_table
from narrowboat.errors import ConfigurationError, InvalidArgument
from narrowboat.layers.sealed.keyring import document_of, newest, parse, read_file
from narrowboat.layers.sealed.keys import ED25519, GCM, KINDS, SIZE, Key, public_half

#: Seconds until a new key may begin at most. A time that no keyring can have would make the whole file unreadable.
AFTER_MAX = 10 * 365 * 86400.0

_file = click.argument("file", type=click.Path(dir_okay=False))


@click.group("keys")
def keys() -> None:
    """Keyrings for ?seal= of a broker's URL: new, rotate, revoke, list."""


@keys.command("new", cls=Command)
@_file
@click.option("--kind", type=click.Choice(KINDS), default=GCM, show_default=True, help="What its key does.")
def new(file: str, kind: str) -> None:
    """Make FILE, with one key that seals at once. Only its owner may read it. A file that is there stays as it is.

    aes-256-gcm: the server can neither read nor change messages. hmac-sha256: it can read them, and everybody who verifies can
    sign as well. ed25519: it can read them, and who has the public half alone (list --public) can only verify.
    """
    now = time.time()
    write(file, [made(kind, since=now, now=now)], fresh=True)
    click.echo(f"made {file}")


@keys.command("rotate", cls=Command)
@_file
@click.option("--after", type=Seconds(), default=0.0, metavar="SECONDS", help="When the new key begins to seal; 0: at once.")
@click.option(
    "--keep", type=click.IntRange(1), metavar="N", help="Drop all but the N newest keys: what they sealed opens no more."
)
def rotate(file: str, after: float, keep: int | None) -> None:
    """Add a key of the same kind to FILE. It seals from now on, and the others open what they have sealed.

    Processes that read FILE follow within seconds. Where consumers have copies of it, let the new key begin later than the
    copies arrive, with --after: what is sealed with a key that a consumer does not have yet becomes a dead letter there.
    """
    if after > AFTER_MAX:
        raise InvalidArgument(f"--after {after:g}: allowed are up to {AFTER_MAX:.0f} seconds, ten years. {file} is as it was")
    with locked(file):
        now = time.time()
        found = sorted(parse(read_file(file), f"keyring {file}"), key=lambda key: key.since)
        if newest(found, now) is None:
            raise InvalidArgument(
                f"{file}: it has public halves alone, and a new key would have its secret here. Rotate the keyring that seals, "
                "and copy what narrowboat keys list --public prints of it"
            )
        newer = made(found[-1].kind, since=max(now, found[-1].since + 0.001) + after, now=now)
        kept = [*found, newer][-keep if keep else 0 :]
        current = newest([*found, newer], now)
        if current not in kept:
            raise InvalidArgument(
                f"--keep {keep} drops the key {current.id if current else ''!r}, which seals until the new one begins"
            )
        write(file, kept)
    click.echo(f"{newer.id} seals {'now' if newer.since <= now else f'in {newer.since - now:.0f} s'}; {len(kept)} keys open")


@keys.command("revoke", cls=Command)
@_file
@click.argument("key")
def revoke(file: str, key: str) -> None:
    """Drop KEY from FILE, because others have got hold of it. What it has sealed opens no more.

    Where it seals now, a new key begins at once, also when a rotation has planned one for later. Copies of FILE that consumers
    have must follow at once: until then, what is sealed with the new key becomes a dead letter there.
    """
    with locked(file):
        now = time.time()
        found = parse(read_file(file), f"keyring {file}")
        left = [each for each in found if each.id != key]
        if len(left) == len(found):
            raise InvalidArgument(f"{file} has no key {key!r}, and is as it was; see narrowboat keys list {file}")
        current = newest(found, now)
        if current is not None and current.id == key:
            left.append(made(current.kind, since=max(now, current.since + 0.001), now=now))
        if not left:
            raise InvalidArgument(f"{key!r} is the only key of {file}, which is as it was; leave off ?seal= instead")
        write(file, left)
    click.echo(f"{key} is dropped{'' if left[-1] in found else f'; {left[-1].id} seals now'}; {len(left)} keys open")


@keys.command("list", cls=Command)
@_file
@click.option("--public", is_flag=True, help="Print a keyring of the public halves, for those who only verify.")
@as_json
def list_keys(file: str, public: bool, as_json: bool) -> None:
    """Show which keys FILE has, and which of them seals now. No secret is shown."""
    found = sorted(parse(read_file(file), f"keyring {file}"), key=lambda key: key.since)
    if public:
        if any(key.kind != ED25519 for key in found):
            raise InvalidArgument(f"{file}: --public is for {ED25519} keys; the others have one secret, for both sides")
        click.echo(document_of(found, public=True), nl=False)
        return
    current = newest(found, time.time())
    rows = [{"id": key.id, "kind": key.kind, "since": key.since, "seals": key is current} for key in found]
    if as_json:
        print_json(rows)
    else:
        since = [time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(key.since)) for key in found]
        print_table(
            ("key", "kind", "since", "seals"),
            [(row["id"], row["kind"], when, "yes" if row["seals"] else "") for row, when in zip(rows, since, strict=True)],
        )


def made(kind: str, *, since: float, now: float) -> Key:
    """A new key. Its id tells the day on which it was made."""
    secret = secrets.token_bytes(SIZE)
    name = f"{time.strftime('%Y-%m-%d', time.gmtime(now))}-{secrets.token_hex(3)}"
    return Key(name, kind, round(since, 3), secret, public_half(secret) if kind == ED25519 else None)


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Alone among those who rotate the keyring at `path`: of two that read the same one, the later would drop the other's key.

    That key may have sealed by then. A file that cannot be opened is not locked: reading it says why.
    """
    import fcntl  # for those who rotate

    with contextlib.ExitStack() as stack:
        while True:
            try:
                file = stack.enter_context(open(path, "rb"))
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):  # else it was replaced while we waited
                    break
            except OSError:
                break
        yield


def write(path: str, keys: Iterable[Key], *, fresh: bool = False) -> None:
    """Put a keyring into a file, whole or not at all. `fresh`: `ConfigurationError` where it is there already."""
    whole = os.path.realpath(path)
    if not os.path.isdir(os.path.dirname(whole)):
        raise ConfigurationError(f"{path} cannot be made: there is no folder {os.path.dirname(path)!r}; make it first")
    handle, beside = tempfile.mkstemp(dir=os.path.dirname(whole), prefix=".keyring-")  # for its owner alone
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(document_of(keys))
            file.flush()
            os.fsync(file.fileno())
        if not fresh and (owner := os.stat(whole).st_uid) != os.geteuid():
            os.chown(beside, owner, -1)  # its programs shall read it, also when root has rotated it for them
        if fresh:
            os.link(beside, whole)
            os.unlink(beside)
        else:
            os.replace(beside, whole)
    except FileExistsError:
        os.unlink(beside)
        raise ConfigurationError(
            f"{path} is there already, and was left as it is. To add a key to it: narrowboat keys rotate {path}"
        ) from None
    except BaseException:  # an interrupt included: it has secrets, and nobody else knows of it
        os.unlink(beside)
        raise
