"""`narrowboat relay`: an outbox to a broker, as a process, and what is said where that cannot be."""

from __future__ import annotations

import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from cli_program import command, finish

from narrowboat.cli.app import run
from narrowboat.messaging import Messaging
from narrowboat.outbox import Outbox

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def test_it_publishes_until_sigterm(tmp_path: Path, url: str, broker: Messaging) -> None:
    """The URLs may come from the environment; the exit code is 0."""
    outbox: Outbox[bytes] = Outbox()
    with closing(sqlite3.connect(tmp_path / "a shop.db")) as connection:
        connection.execute(outbox.ddl("sqlite"))
        outbox.publish(connection, "orders", b"1")
        connection.commit()
    env = {"NARROWBOAT_BROKER_URL": url, "NARROWBOAT_OUTBOX_URL": f"sqlite:///{tmp_path}/a%20shop.db"}
    process = command("relay", "--outbox", "-", "--quiet", env=env)
    with broker.queue("orders").consume() as messages:
        message = messages.receive(timeout=60)
        assert message is not None and message.body == b"1"
        message.ack()
    process.send_signal(signal.SIGTERM)
    assert finish(process, 60) == (0, "", "")


def test_a_missing_table_ends_it_with_the_ddl(tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As a mistake of the configuration."""
    sqlite3.connect(tmp_path / "shop.db").close()
    assert run(["relay", "--outbox", f"sqlite:///{tmp_path}/shop.db", "--broker", url, "--quiet"]) == 2
    assert "CREATE TABLE outbox" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("database", "text"),
    [
        ("mysql://db/shop", "got the scheme 'mysql'"),
        ("sqlite://shop.db", "three slashes"),
        ("-", "NARROWBOAT_OUTBOX_URL, which is not set"),
    ],
)
def test_what_is_no_database_is_refused(database: str, text: str, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With what there is, before anything is opened."""
    assert run(["relay", "--outbox", database, "--broker", url]) == 2
    assert text in capsys.readouterr().err
