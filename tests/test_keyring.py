"""Keyrings: which key seals, what is read again, and what is refused without a secret in the text."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from narrowboat.errors import ConfigurationError
from narrowboat.layers.sealed import keyring
from narrowboat.layers.sealed.keyring import REFRESH, Keyring, document_of, newest, parse
from narrowboat.layers.sealed.keys import ED25519, GCM, HMAC, Key, public_half

SECRET = b"s3cr3t-s3cr3t-s3cr3t-s3cr3t-s3cr"
SHOWN = base64.b64encode(SECRET).decode()


def key(id: str, since: float = 0.0, kind: str = HMAC, **parts: Any) -> Key:
    return Key(id, kind, since, **{"secret": SECRET, **parts})


def written(path: Path, *keys: Key, mode: int = 0o600) -> Path:
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(document_of(keys))
    beside.chmod(mode)
    beside.replace(path)
    return path


def test_the_newest_that_has_begun_seals() -> None:
    """Where the clock is before all of them, the first; never one without a secret."""
    keys = [key("b", 20.0), key("a", 10.0), key("c", 30.0), key("public", 25.0, ED25519, secret=None, public=bytes(32))]
    assert [newest(keys, now).id for now in (5.0, 10.0, 29.0, 31.0)] == ["a", "a", "b", "c"]
    assert newest(keys[3:], 99.0) is None


def test_a_document_comes_back() -> None:
    signing = key("s", 1.5, ED25519, public=public_half(SECRET))
    keys = [key("a", 2.0), key("g", kind=GCM), signing]
    assert parse(document_of(keys), "here") == keys
    (public,) = parse(document_of(keys, public=True), "here")
    assert (public.id, public.secret, public.public, public.seals) == ("s", None, signing.public, False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("nothing", "that is no keyring"),
        ("[" * 100_000, "that is no keyring"),
        ({"narrowboat-keyring": 2}, "that is no keyring"),
        ({"keys": []}, "one key at least"),
        ({"keys": [1]}, "key 0: expected an object"),
        ({"id": "a b"}, "an id is of 1 to 64"),
        ({"id": "x" * 65}, "an id is of 1 to 64"),
        ({"kind": "aes-256-gmc"}, "Did you mean 'aes-256-gcm'"),
        ({"since": "now"}, "since is a time"),
        ({"since": True}, "since is a time"),
        ({"secret": SHOWN[:-4]}, "secret is not 32 bytes in base64"),
        ({"secret": 7}, "secret is not 32 bytes"),
        ({"secret": "\u201c" + SHOWN}, "secret is not 32 bytes in base64"),
        ({"secret": None}, "it has no secret"),
        ({"kind": ED25519, "secret": None}, "and no public half"),
    ],
)
def test_what_is_no_keyring_is_one_error_without_a_secret(change: Any, said: str) -> None:
    entry = {"id": "a", "kind": HMAC, "since": 1, "secret": SHOWN}
    document: Any = {"narrowboat-keyring": 1, "keys": [entry]}
    if isinstance(change, str):
        text = change
    else:
        (document if {"keys", "narrowboat-keyring"} & change.keys() else entry).update(change)
        text = json.dumps(document)
    with pytest.raises(ConfigurationError, match=said) as caught:
        Keyring(lambda: text, "keyring shop.json")
    assert str(caught.value).startswith("keyring shop.json: ")
    assert SHOWN[:10] not in str(caught.value)


def test_two_keys_of_one_id_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two keys have one id"):
        parse(document_of([key("a"), key("a", 2.0)]), "here")


def test_no_frame_of_an_error_has_a_secret() -> None:
    """Reporters of errors keep the variables of each frame."""
    entry = {"id": "a b", "kind": HMAC, "since": 1, "secret": SHOWN}

    def read() -> str:
        return json.dumps({"narrowboat-keyring": 1, "keys": [entry]})

    with pytest.raises(ConfigurationError) as caught:
        Keyring(read)
    told = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert SHOWN not in told.replace(repr(entry), "")


def test_no_text_has_a_secret() -> None:
    ring = Keyring(lambda: document_of([key("a")]), "keyring here")
    assert repr(ring) == "<Keyring keyring here: a>"
    assert SHOWN not in repr(ring.keys) and "s3cr3t" not in repr(ring.keys)
    assert repr(ring.keys[0].secret) == "b'***'"


# -- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "kinds", "said"),
    [
        (0o600, HMAC, ""),
        (0o400, HMAC, ""),
        (0o640, HMAC, r"others than its owner may read it \(mode 0640\). Type chmod 600 "),
        (0o604, HMAC, "may read it"),
        (0o622, HMAC, "may change it"),
        (0o644, "public", ""),
        (0o664, "public", "may change it"),
    ],
)
def test_a_file_with_secrets_is_its_owners_alone(tmp_path: Path, mode: int, kinds: str, said: str) -> None:
    """One with public halves may be read by all, and changed by its owner."""
    one = key("a", kind=ED25519, secret=None, public=bytes(32)) if kinds == "public" else key("a")
    path = written(tmp_path / "keyring.json", one, mode=mode)
    if said:
        with pytest.raises(ConfigurationError, match=said):
            Keyring.file(path)
    else:
        assert Keyring.file(path).find("a") is not None


def test_a_file_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read.*narrowboat keys new"):
        Keyring.named(str(tmp_path / "keyring.json"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="it is no text"):
        Keyring.file(tmp_path / "binary")


def test_a_rotation_needs_no_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is not known is looked for at once, and the one that seals after some seconds; also from another folder."""
    now = [0.0]
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "keyring.json", key("a", 1.0))
    ring = Keyring.file("keyring.json")
    ring._clock = lambda: now[0]
    ring._looked = 0.0
    monkeypatch.chdir("/")
    assert ring.find("b") is None
    written(path, key("a", 1.0), key("b", 2.0))
    assert ring.sealing().id == "a"
    now[0] += REFRESH
    assert ring.sealing().id == "b"
    written(path, key("c", 3.0))
    assert ring.find("c") is not None and ring.find("a") is None


def test_a_key_that_is_dropped_opens_no_more_where_nothing_is_sealed(tmp_path: Path) -> None:
    """A consumer meets no unknown key when one is dropped, and it may have been dropped because it was stolen."""
    now = [0.0]
    path = written(tmp_path / "keyring.json", key("a", 1.0), key("b", 2.0))
    ring = Keyring.file(path)
    ring._clock = lambda: now[0]
    ring._looked = 0.0
    written(path, key("b", 2.0))
    now[0] += REFRESH
    assert ring.find("a") is None and ring.find("b") is not None


def test_a_file_that_cannot_be_read_again_leaves_the_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Told once, and read again when it changes."""
    path = written(tmp_path / "keyring.json", key("a"))
    ring = Keyring.file(path)
    written(path, key("b"), mode=0o644)
    for _ in range(3):
        assert ring.find("b") is None
    assert ring.sealing().id == "a"
    assert [each.getMessage()[:25] for each in caplog.records] == ["the keys stay as they are"]
    path.chmod(0o600)
    assert ring.find("b") is not None


def test_a_file_is_read_again_when_it_is_given_to_its_reader(tmp_path: Path) -> None:
    """`sudo install`, and `chown` a second later: nothing else of it changes."""
    path = written(tmp_path / "keyring.json", key("a"))
    ring = Keyring.file(path)
    written(path, key("a"), key("b"))
    read = ring._read
    ring._read = _refusing
    assert ring.find("b") is None
    ring._read = read
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:  # the clock of file systems has ticks of some milliseconds
        os.chown(path, os.getuid(), os.getgid())
    assert ring.find("b") is not None


def test_what_could_not_be_read_is_tried_again_in_a_minute() -> None:
    """A process that had no descriptor left, or a service that was away; and it is not asked for each message meanwhile."""
    now, asked = [0.0], [0]
    document = [document_of([key("a")])]

    def read() -> str:
        asked[0] += 1
        return document[0] or _refusing()

    ring = Keyring(read, stamp=lambda: now[0] // 1000, clock=lambda: now[0])
    now[0], document[0] = 1000.0, ""
    for _ in range(5):
        assert ring.find("b") is None
    assert asked == [2]
    document[0] = document_of([key("a"), key("b")])
    now[0] += 60
    assert ring.find("b") is not None
    for _ in range(5):
        assert ring.find("c") is None
    now[0] += 600
    assert ring.find("c") is None and asked == [3]


def _refusing() -> str:
    raise ConfigurationError("it cannot be read (Permission denied)")


# -- elsewhere ------------------------------------------------------------------------------------------------------


def test_the_environment_may_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEYS", document_of([key("a")]))
    assert Keyring.named("env:SHOP_KEYS").sealing().id == "a"
    with pytest.raises(ConfigurationError, match="the variable SHOP_KEY: it is not set"):
        Keyring.named("env:SHOP_KEY")


def vault(rest: str) -> str:
    """What an entry point names: the document for the text behind its name."""
    return document_of([key(rest)])


def test_a_service_gives_it_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("vault", f"{__name__}:vault", keyring.GROUP)
    broken = importlib.metadata.EntryPoint("broken", f"{__name__}:nothing", keyring.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point, broken] if group == keyring.GROUP else [])
    assert Keyring.named("vault:shop").sealing().id == "shop"
    with pytest.raises(ConfigurationError, match=r"unknown keyring 'valt:'. Did you mean 'vault:'\?"):
        Keyring.named("valt:shop")
    with pytest.raises(ConfigurationError, match="broken cannot be loaded"):
        Keyring.named("broken:x")


def test_without_cryptography_the_command_is_told_when_the_keyring_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with the first message. HMAC needs none."""
    for name in [name for name in sys.modules if name.startswith("cryptography.hazmat.primitives.ciphers.aead")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    assert parse(document_of([key("a")]), "here")
    with pytest.raises(ConfigurationError, match=r"needs cryptography, which is not installed: pip install .*\[seal\]"):
        parse(document_of([key("a", kind=GCM)]), "here")
