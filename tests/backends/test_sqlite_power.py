"""A loss of power: what the kit asks of SQLite where each write and sync is recorded, and that it would see a missing one."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest

import power_log
from integration.servers import ZeroMQServer
from integration.servers.process import Process
from integration.servers.server import Runner
from narrowboat.conformance import Harness, verify
from narrowboat.conformance.faults.power import Recording
from narrowboat.dsn import Url
from narrowboat_sqlite.connection.database import Database
from sqlite_harness import SqliteHarness

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(power_log.library() is None, reason="this Python has SQLite in itself: nothing can be recorded"),
]


@pytest.mark.parametrize("face", ["sync", "asyncio"])
@pytest.mark.parametrize("id", ["B69", "L132"])
def test_power_is_lost(tmp_path: Path, id: str, face: str) -> None:
    """What was confirmed is there, whatever of the rest the disk has."""
    report = verify(SqliteHarness(f"sqlite:///{tmp_path / 'kit.db'}"), only=[id], faces=[face], size=0.5)
    assert report.ok, "\n\n".join(f"{row.id} {row.scenario} {row.face}: {row.why}" for row in report.broken)
    assert {row.outcome.value for row in report.rows} == {"held"}


def _is_seen(tmp_path: Path, id: str) -> None:
    report = verify(SqliteHarness(f"sqlite:///{tmp_path / 'kit.db'}"), only=[id], faces=["sync"], size=0.5)
    (why,) = (row.why.strip().splitlines()[-1] for row in report.broken)
    assert "after a loss of power at" in why


@pytest.mark.parametrize("id", ["B69", "L132"])
def test_commits_that_do_not_wait_for_the_disk_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, id: str) -> None:
    """The control: a backend that claims to survive and syncs nothing."""
    real = Database._transaction

    def hasty(self: Database, begin: str, work: Any, level: str) -> Any:
        return real(self, begin, work, "NORMAL" if level else "")

    monkeypatch.setattr(Database, "_transaction", hasty)

    _is_seen(tmp_path, id)


def test_a_waiters_grant_that_is_not_synced_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place in the queue need not survive, and so its attempts are not synced: a grant among them has to be."""
    module = importlib.import_module("narrowboat_sqlite.locks")  # the package has an entry of that name
    real, touch = Database.write, module._touch

    def forgets(self: Database, work: Any, *, durable: bool = False, passing: bool = False) -> Any:
        return real(self, work, durable=durable and work is not touch, passing=passing or work is touch)

    monkeypatch.setattr(Database, "write", forgets)

    _is_seen(tmp_path, "L132")


class _Served(ZeroMQServer):
    """A `narrowboat serve` whose process is recorded."""

    def _prepare(self) -> Runner:
        self.place = self.directory / "recorded"
        self.place.mkdir(exist_ok=True)
        self.file, self.written = self.place / "kit.db", self.directory / "writes.log"
        process = super()._prepare()
        assert isinstance(process, Process)
        program, _, *arguments = process.argv
        process.argv = (program, power_log.__file__, str(self.written), str(self.place), *arguments)
        return process


class _ServedHarness(Harness):
    """What is left is looked at in the file itself: another server would only stand between."""

    def recorded(self, url: str) -> Recording:
        server = cast("_Served", self.server)
        namespace = f"{Url.parse(url).path}/{Url.parse(url).query['prefix']}"
        left = f"sqlite:///{server.place / 'kit.db'}?prefix={quote(namespace, safe='')}"
        found = power_log.Power(left, server.written, server.place, server.directory / "left")
        found.url = url
        return found


@pytest.mark.parametrize("id", ["B69", "L132"])
def test_zeromq_confirms_what_its_file_has_synced(tmp_path: Path, id: str) -> None:
    """The same through a server, whose process is recorded."""
    pytest.importorskip("zmq")
    with _Served(tmp_path) as server:
        report = verify(_ServedHarness(server.url, server=server), only=[id], faces=["sync"], size=0.5)
    assert report.ok, "\n\n".join(f"{row.id} {row.scenario} {row.face}: {row.why}" for row in report.broken)
    assert {row.outcome.value for row in report.rows} == {"held"}
