"""CURVE keys in files: who a server and its clients are. Pure, without a socket; a key is 32 bytes in 40 characters of Z85.

A file of a secret key has both keys, each on a line that says which it is; a file of public keys has one on each line, and
behind it whatever helps people to know whose it is.

    public Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID
    secret D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from narrowboat.dsn import Secret
from narrowboat.errors import ConfigurationError
from narrowboat_zeromq.options import SECURE

_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
#: Bytes of a file of keys: some ten thousand of them.
_LARGEST = 1024 * 1024


class Pair(NamedTuple):
    """One party's two keys."""

    public: str
    secret: Secret


def read_pair(path: str, what: str) -> Pair:
    """The secret key of a file, with the public one that belongs to it; `ConfigurationError` where there is none."""
    found: dict[str, str] = {}
    for words in _lines(path, what):
        if len(words) >= 2 and words[0] in ("public", "secret") and _Z85.fullmatch(words[1]):
            found[words[0]] = words[1]
    if len(found) < 2:
        raise _wrong(path, what, "it has no lines `public KEY` and `secret KEY`")
    return Pair(found["public"], Secret(found["secret"]))


def read_public(path: str, what: str) -> str:
    """The one public key of a file."""
    keys = sorted(read_publics(path, what))
    if len(keys) != 1:
        raise _wrong(path, what, f"it has {len(keys)} public keys, and one is needed")
    return keys[0]


def read_publics(path: str, what: str) -> frozenset[str]:
    """The public keys of a file, one on each line. An empty file lets nobody in; a line that is none is refused."""
    keys = set()
    for number, words in enumerate(_lines(path, what), 1):
        if words[0] == "secret":
            continue  # a file of both keys, given for the public one
        key = words[1] if words[0] == "public" and len(words) > 1 else words[0]
        if _Z85.fullmatch(key) is None:
            raise _wrong(path, what, f"line {number} that is no comment has no key of 40 characters")
        keys.add(key)
    return frozenset(keys)


def write_pair(path: str, public: str, secret: str) -> tuple[str, str]:
    """Write `path`.secret, for its owner alone, and `path`.public. Returns both paths; keeps what is there already."""
    names = f"{path}.secret", f"{path}.public"
    texts = f"public {public}\nsecret {secret}\n", f"{public}\n"
    for name, text, mode in zip(names, texts, (0o600, 0o644), strict=True):
        try:
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        except OSError as error:
            raise ConfigurationError(
                f"{name} cannot be written ({error.strerror}). Keys that are there are kept: give another name, or move them.",
                backend=SECURE,
            ) from error
        with os.fdopen(file, "w", encoding="ascii") as stream:
            stream.write(text)
    return names


def _lines(path: str, what: str) -> Iterator[list[str]]:
    try:
        with open(path, "rb") as file:
            text = file.read(_LARGEST + 1)
    except OSError as error:
        raise _wrong(path, what, error.strerror or type(error).__name__) from error
    if len(text) > _LARGEST:
        raise _wrong(path, what, "it is too large for a file of keys")
    for line in text.decode("utf-8", "replace").splitlines():
        words = line.split()
        if words and not (line.startswith("#") and _Z85.fullmatch(words[0]) is None):
            yield words


def _wrong(path: str, what: str, found: str) -> ConfigurationError:
    return ConfigurationError(f"{what}={path}: {found}. `narrowboat serve --keygen NAME` writes such files.", backend=SECURE)
