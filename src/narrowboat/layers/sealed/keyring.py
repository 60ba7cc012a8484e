"""A keyring: the keys that open, and the one that seals now.

It is a document in JSON, from a file, an environment variable or a key management service:

    {"narrowboat-keyring": 1,
     "keys": [{"id": "2026-11-30-7d1f", "kind": "aes-256-gcm", "since": 1796040000, "secret": "<32 bytes in base64>"}]}

The newest key that has begun seals, all of them open. Where the document has changed it is read again: at once when a message
names a key that is not known, and after `REFRESH` seconds otherwise. So a rotation needs no restart. A document that cannot be
read again leaves the keys as they are, and the log says so. It is tried again once it changes, and after a minute.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from narrowboat._engine.forks import watch_forks
from narrowboat._engine.log import log
from narrowboat.dsn import hidden, unknown
from narrowboat.errors import ConfigurationError
from narrowboat.layers.sealed.format import KEY_ID
from narrowboat.layers.sealed.keys import ED25519, HMAC, KINDS, SIZE, Key, primitives

#: Entry points of functions that give the document for the text after `name:`.
GROUP = "narrowboat.keyrings"
#: Seconds after which a keyring looks whether its document has changed. Longer delays a rotation, shorter asks more often.
REFRESH = 5.0
#: Seconds after which a document from an entry point is asked for again, as that is a call of a service, and one that could not
#: be read is tried again.
_SERVICE_REFRESH = 60.0
_MARK = "narrowboat-keyring"
#: What is no name: a document, or 32 bytes in base64. Its text would stand in the error as a path.
_SECRET = re.compile(r"""[{"]|^[A-Za-z0-9+/_-]{43}=$""")
_NAMED = re.compile(r"([a-z][a-z0-9_-]+):(.*)", re.DOTALL)


class Keyring:
    """Keys by their ids. Thread-safe; it may be shared by any number of brokers."""

    def __init__(
        self,
        read: Callable[[], str],
        where: str = "keyring",
        *,
        stamp: Callable[[], object] = lambda: None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read` gives the document, `stamp` something that differs once it may have changed.

        Raises `ConfigurationError`, which repeats nothing of the document.
        """
        self.where = where
        self._read = read
        self._stamp = stamp
        self._wall = wall
        self._clock = clock
        self._mutex = threading.Lock()
        self._keys: Mapping[str, Key] = {}  # shown, also where the next lines raise
        self._looked = clock()
        self._again = math.inf  #: when a document that could not be read is read again although it looks the same
        self._seen = stamp()
        self._keys = self._load()
        watch_forks(self)

    @classmethod
    def named(cls, name: str) -> Keyring:
        """The keyring that an option names: a path, `file:path`, `env:VARIABLE`, or `name:text` of an entry point."""
        name = hidden(name)
        if _SECRET.search(name):
            raise ConfigurationError(
                "seal= names a keyring, and what was given looks like one, or like a key. Give a path, or env:VARIABLE for a "
                "keyring in a variable; and rotate the keys if the text has gone to a log"
            )
        found = _NAMED.fullmatch(name)
        scheme, rest = found.groups() if found else ("file", name)
        if scheme == "file":
            return cls.file(rest)
        if scheme == "env":
            return cls(lambda: _variable(rest), f"keyring in the variable {rest}")
        load = _service(scheme)
        return cls(lambda: load(rest), f"keyring {scheme}:", stamp=lambda: time.monotonic() // _SERVICE_REFRESH)

    @classmethod
    def file(cls, path: str | os.PathLike[str]) -> Keyring:
        """The keyring in a file, which nobody else may read."""
        whole = os.path.abspath(path)
        return cls(lambda: read_file(whole), f"keyring {whole}", stamp=lambda: _stamp_of(whole))

    @property
    def keys(self) -> list[Key]:
        """All of them, the oldest first."""
        return sorted(self._keys.values(), key=lambda key: key.since)

    def find(self, id: str) -> Key | None:
        """The key of that id; None where there is none, in the document as it is now."""
        key = self._keys.get(id)
        if key is None or self._clock() - self._looked >= REFRESH:  # a key that was dropped opens no more
            self._refresh()
            key = self._keys.get(id)
        return key

    def sealing(self) -> Key:
        """The key that seals now. `ConfigurationError` where none can."""
        if self._clock() - self._looked >= REFRESH:
            self._refresh()
        key = newest(self._keys.values(), self._wall())
        if key is None:
            raise ConfigurationError(
                f"{self.where}: it has no key that can seal, only public halves, which verify. Nothing was sent. Give the "
                "publisher the keyring with the secrets"
            )
        return key

    def forked(self) -> None:
        """In a forked child a thread that does not exist here may hold the mutex."""
        self._mutex = threading.Lock()

    def _refresh(self) -> None:
        with self._mutex:
            self._looked = self._clock()
            try:
                stamp = self._stamp()
                if stamp != self._seen or self._looked >= self._again:
                    self._seen, self._again = stamp, self._looked + _SERVICE_REFRESH
                    self._keys = self._load()
                    self._again = math.inf
            except Exception as error:
                log("WARNING", "the keys stay as they are: %s", error, event="keyring")

    def _load(self) -> Mapping[str, Key]:
        return {key.id: key for key in parse(self._read(), self.where)}

    def __repr__(self) -> str:
        return f"<Keyring {self.where}: {', '.join(key.id for key in self.keys)}>"


def newest(keys: Iterable[Key], now: float) -> Key | None:
    """The key that seals at `now`. Where the clock is before all of them, the one that begins first."""
    able = [key for key in keys if key.seals]
    begun = [key for key in able if key.since <= now]
    if begun:
        return max(begun, key=lambda key: key.since)
    return min(able, key=lambda key: key.since, default=None)


def parse(document: str, where: str) -> list[Key]:
    """The keys in a document. `ConfigurationError` says what is wrong, and repeats no secret."""
    document = hidden(document)
    try:
        return _parse(document, where)
    except ConfigurationError as error:
        wrong = error.with_traceback(None)
    raise wrong  # outside, so without the frames that have the document's parts in their variables


def _parse(document: str, where: str) -> list[Key]:
    try:
        found = json.loads(document)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get(_MARK) != 1 or not isinstance(found.get("keys"), list) or not found["keys"]:
        raise ConfigurationError(
            f'{where}: that is no keyring, which is {{"{_MARK}": 1, "keys": [...]}} with one key at least. '
            "`narrowboat keys new FILE` makes one"
        )
    keys = [_key(each, f"{where}: key {position}") for position, each in enumerate(found["keys"])]
    if len({key.id for key in keys}) < len(keys):
        raise ConfigurationError(f"{where}: two keys have one id")
    return keys


def document_of(keys: Iterable[Key], *, public: bool = False) -> str:
    """The reverse of `parse`. `public`: for those who verify only, with Ed25519 keys alone and without their secrets."""
    entries = []
    for key in keys:
        entry: dict[str, object] = {"id": key.id, "kind": key.kind, "since": key.since}
        if key.public is not None:
            entry["public"] = base64.b64encode(key.public).decode()
        if key.secret is not None and not public:
            entry["secret"] = base64.b64encode(key.secret).decode()
        if key.kind == ED25519 or not public:
            entries.append(entry)
    return json.dumps({_MARK: 1, "keys": entries}, indent=1) + "\n"


def read_file(path: str) -> str:
    """The document in a file that, where it has secrets, only its owner may read. `ConfigurationError` for any other."""
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = hidden(file.read())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(f"keyring {path}: it cannot be read ({why}). `narrowboat keys new FILE` makes one") from None
    wrong = stat.S_IMODE(mode) & (0o077 if '"secret"' in text else 0o022)
    if wrong:
        may = "read" if wrong & 0o044 else "change"
        raise ConfigurationError(
            f"keyring {path}: others than its owner may {may} it (mode {stat.S_IMODE(mode):04o}). Type chmod 600 {path}, and "
            "rotate the keys if somebody may have done so"
        )
    return text


def _stamp_of(path: str) -> object:
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # a path with a zero byte
        return None  # reading it says why
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size  # ctime: who may read it, too


def _variable(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise ConfigurationError(f"keyring in the variable {name}: it is not set") from None


def _service(name: str) -> Callable[[str], str]:
    from importlib.metadata import entry_points  # slow to import, and needed for key management services only

    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise ConfigurationError(
            unknown("keyring", f"{name}:", sorted(["file:", "env:", *(f"{each}:" for each in points)]))
            + " A path needs no word"
        )
    try:
        load: Callable[[str], str] = points[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"the entry point {GROUP}:{name} cannot be loaded: {error}") from error
    return load


def _key(entry: Any, where: str) -> Key:
    if not isinstance(entry, dict):
        raise ConfigurationError(f"{where}: expected an object with id, kind, since and secret")
    id, kind, since = entry.get("id"), entry.get("kind"), entry.get("since")
    if not isinstance(id, str) or not KEY_ID.fullmatch(id):
        raise ConfigurationError(f"{where}: an id is of 1 to 64 letters, digits, - and _")
    where = f"{where} ({id})"
    if kind not in KINDS:
        raise ConfigurationError(f"{where}: {unknown('kind', str(kind)[:20], list(KINDS))}")
    if isinstance(since, bool) or not isinstance(since, (int, float)) or not 0 <= since < 1e11:
        raise ConfigurationError(f"{where}: since is a time in seconds since the epoch")
    secret, public = (_bytes(entry.get(name), f"{where}: {name}") for name in ("secret", "public"))
    if secret is None and (kind != ED25519 or public is None):
        raise ConfigurationError(f"{where}: it has no secret{', and no public half' if kind == ED25519 else ''}")
    if kind != HMAC:
        primitives("ciphers.aead")  # now, and not with the first message
    return Key(id, kind, float(since), secret, public)


def _bytes(text: object, where: str) -> bytes | None:
    if text is None:
        return None
    try:
        found = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError:  # `binascii.Error` is one, and what is not ASCII is another
        found = b""
    if len(found) != SIZE:
        raise ConfigurationError(f"{where} is not {SIZE} bytes in base64")
    return hidden(found)
