"""`narrowboat keys`: a keyring is made, rotated and listed, and no secret is shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from narrowboat.cli.app import run
from narrowboat.layers.sealed import Keyring
from narrowboat.layers.sealed.keys import KINDS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keyring.json"


def listed(file: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    capsys.readouterr()
    assert run(["keys", "list", str(file), "--json"]) == 0
    rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_one_is_its_owners_and_seals(file: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "new", str(file), "--kind", kind]) == 0

    assert file.stat().st_mode & 0o777 == 0o600
    assert Keyring.file(file).sealing().kind == kind
    assert [(row["kind"], row["seals"]) for row in listed(file, capsys)] == [(kind, True)]
    assert [each.name for each in file.parent.iterdir()] == ["keyring.json"]


def test_one_that_is_there_is_left(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("mine")
    assert run(["keys", "new", str(file)]) == 2
    assert file.read_text() == "mine" and "narrowboat keys rotate" in capsys.readouterr().err
    assert [each.name for each in file.parent.iterdir()] == ["keyring.json"]


def test_a_rotation_adds_a_key_that_seals(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At once, or later, while the copies of the keyring travel; a running program follows."""
    run(["keys", "new", str(file), "--kind", "hmac-sha256"])
    ring = Keyring.file(file)
    first = ring.sealing().id
    assert run(["keys", "rotate", str(file)]) == 0
    rows = listed(file, capsys)
    assert [row["seals"] for row in rows] == [False, True] and rows[0]["id"] == first
    assert ring.find(str(rows[1]["id"])) is not None and ring.sealing().id == rows[1]["id"]
    assert run(["keys", "rotate", str(file), "--after", "3600"]) == 0
    assert [row["seals"] for row in listed(file, capsys)] == [False, True, False]
    assert {row["kind"] for row in listed(file, capsys)} == {"hmac-sha256"}
    assert file.stat().st_mode & 0o777 == 0o600


def test_old_keys_are_dropped_when_asked_and_never_the_one_that_seals(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["keys", "new", str(file)])
    run(["keys", "rotate", str(file)])
    assert run(["keys", "rotate", str(file), "--keep", "2"]) == 0
    assert len(listed(file, capsys)) == 2
    before = file.read_bytes()
    assert run(["keys", "rotate", str(file), "--keep", "1", "--after", "60"]) == 2
    assert "which seals until the new one begins" in capsys.readouterr().err and file.read_bytes() == before


@pytest.mark.parametrize("planned", [False, True])
def test_a_stolen_key_is_replaced_at_once(file: Path, planned: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where a rotation has planned its successor for later; the older keys still open, and do not seal again."""
    run(["keys", "new", str(file)])
    run(["keys", "rotate", str(file)])
    before = listed(file, capsys)
    if planned:
        run(["keys", "rotate", str(file), "--after", "3600"])
    stolen = next(str(row["id"]) for row in before if row["seals"])

    assert run(["keys", "revoke", str(file), stolen]) == 0
    told = capsys.readouterr().out
    rows = listed(file, capsys)
    sealing = next(str(row["id"]) for row in rows if row["seals"])
    assert stolen not in [row["id"] for row in rows] and sealing not in [row["id"] for row in before] and sealing in told
    assert Keyring.file(file).sealing().id == sealing and Keyring.file(file).find(str(before[0]["id"])) is not None
    assert len(rows) == 2 + planned


def test_an_old_key_is_revoked_and_nothing_else_changes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["keys", "new", str(file)])
    run(["keys", "rotate", str(file)])
    old, current = listed(file, capsys)
    assert run(["keys", "revoke", str(file), str(old["id"])]) == 0
    assert listed(file, capsys) == [current]
    assert run(["keys", "revoke", str(file), str(old["id"])]) == 2
    assert "narrowboat keys list" in capsys.readouterr().err and listed(file, capsys) == [current]


def test_a_missing_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "new", str(tmp_path / "missing" / "keyring.json")]) == 2
    told = capsys.readouterr().err
    assert "there is no folder" in told and ".keyring-" not in told


def test_a_beginning_that_no_keyring_can_have_leaves_the_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be written, and never be read again."""
    run(["keys", "new", str(file)])
    before = file.read_bytes()
    assert run(["keys", "rotate", str(file), "--after", "1e12"]) == 2
    assert "up to 315360000 seconds" in capsys.readouterr().err and file.read_bytes() == before


def test_no_rotation_drops_the_key_of_another_at_the_same_time(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["keys", "new", str(file)])
    code = "import sys; from narrowboat.cli.app import run; sys.exit(run(sys.argv[1:]))"
    started = [subprocess.Popen([sys.executable, "-c", code, "keys", "rotate", str(file)]) for _ in range(5)]
    assert [each.wait(60) for each in started] == [0] * 5
    assert len(listed(file, capsys)) == 6


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may hand a file to another user")
def test_a_rotation_by_root_leaves_the_file_to_its_owner(file: Path) -> None:
    run(["keys", "new", str(file)])
    os.chown(file, 65534, -1)
    assert run(["keys", "rotate", str(file)]) == 0
    assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (65534, 0o600)


def test_a_keyring_of_public_halves_is_not_rotated(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["keys", "new", str(file), "--kind", "ed25519"])
    capsys.readouterr()
    run(["keys", "list", str(file), "--public"])
    file.write_text(capsys.readouterr().out)
    before = file.read_bytes()
    assert run(["keys", "rotate", str(file)]) == 2
    assert "list --public" in capsys.readouterr().err and file.read_bytes() == before


def test_public_halves_are_for_those_who_verify(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["keys", "new", str(file), "--kind", "ed25519"])
    capsys.readouterr()
    assert run(["keys", "list", str(file), "--public"]) == 0
    document = capsys.readouterr().out
    (key,) = Keyring(lambda: document).keys
    assert not key.seals and "secret" not in document


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_no_secret_is_shown(file: Path, extra: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run(["keys", "new", str(file)])
    secret = json.loads(file.read_text())["keys"][0]["secret"]
    assert run(["keys", "list", str(file), *extra]) == 0
    captured = capsys.readouterr()
    assert secret not in captured.out + captured.err
    assert run(["keys", "list", str(file), "--public"]) == 2


@pytest.mark.parametrize("command", [["rotate"], ["list"], ["new", "--kind", "rot13"], []])
def test_what_cannot_work_is_a_usage_error(file: Path, command: list[str]) -> None:
    assert run(["keys", *command, *([str(file)] if command else [])]) == 2


def test_a_keyring_that_others_can_read_is_not_rotated(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["keys", "new", str(file)])
    file.chmod(0o644)
    assert run(["keys", "rotate", str(file)]) == 2
    assert "chmod 600" in capsys.readouterr().err


def test_messages_go_sealed_from_command_to_command(url: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The URL names the file."""
    run(["keys", "new", str(file)])
    sealed = f"{url}?seal={file}"
    lines = file.with_name("lines")
    lines.write_text("kettle\n")
    assert run(["publish", sealed, "orders", str(lines)]) == 0
    capsys.readouterr()
    assert run(["consume", sealed, "orders", "--idle", "0.2"]) == 0
    assert json.loads(capsys.readouterr().out)["body"] == "kettle"
