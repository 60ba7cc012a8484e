"""Which server a test gets, what it is told when there is none, and what an installation leaves. Nothing is started here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.fixtures import missing, obtain
from integration.servers import RedisServer, Server, cache, debian, docker, editions, install, maven
from integration.servers.__main__ import main
from integration.servers.given import GivenServer
from integration.servers.programs import NotInstalled

POMS = Path(maven.__file__).parent / "maven"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without Docker, without programs and with an empty cache."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("integration.servers.programs.SYSTEM", ())
    for name in ("CI", "NARROWBOAT_TEST_REDIS_URL", "NARROWBOAT_TEST_REDIS_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    docker.forget()
    yield
    docker.forget()


def test_a_url_comes_first_and_its_server_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NARROWBOAT_TEST_REDIS_URL", "redis://somewhere:6379/0")
    server = obtain(RedisServer)
    assert isinstance(server, GivenServer)
    assert server.url == "redis://somewhere:6379/0"
    assert not server.faults
    server.start()
    server.close()
    for verb in (server.stop, server.kill, server.pause, server.resume):
        with pytest.raises(RuntimeError, match="NARROWBOAT_TEST_REDIS_URL names a server that these tests did not start"):
            verb()


def test_a_test_that_needs_its_own_server_does_not_take_a_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NARROWBOAT_TEST_REDIS_URL", "redis://somewhere:6379/0")
    with pytest.raises(pytest.skip.Exception, match="this test has to start its own"):
        obtain(RedisServer, tls=True)


def test_without_any_server_a_test_is_skipped_and_told_all_that_was_looked_for() -> None:
    with pytest.raises(pytest.skip.Exception) as caught:
        obtain(RedisServer)
    said = str(caught.value)
    assert "NARROWBOAT_TEST_REDIS_URL is not set" in said
    assert "Docker: " in said
    assert "redis-server is not on this machine: run python -m integration.servers install redis" in said


def test_with_ci_a_missing_server_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="redis-server is not on this machine"):
        obtain(RedisServer)
    monkeypatch.setenv("CI", "false")
    with pytest.raises(pytest.skip.Exception):
        missing("no server")


def test_a_program_on_the_path_is_taken(tmp_path: Path) -> None:
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    server = obtain(RedisServer)
    server.close()
    assert isinstance(server, RedisServer)
    assert server.image is None


def test_what_is_installed_is_there_for_the_second_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Path] = []

    def recipe(into: Path) -> None:
        made.append(into)
        (into / "usr" / "bin").mkdir(parents=True)
        (into / "usr" / "bin" / "redis-server").write_text("")

    monkeypatch.setitem(install.RECIPES, "redis", recipe)
    assert main(["install", "redis"]) == 0
    assert main(["install", "redis", "redis"]) == 0
    assert len(made) == 1
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"redis          {cache.folder('redis')}" in lines
    assert "kafka          not installed" in lines


def test_every_edition_can_be_installed_and_the_systems_own_server_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = [each for each in vars(editions).values() if isinstance(each, type) and issubclass(each, Server) and each.edition]
    assert {kind.edition for kind in known} == set(install.VERSIONS)
    for name in ("redis-server", "valkey-server", "rabbitmq-server", "java"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    RedisServer.check_installed()  # on the PATH
    for kind in known:
        with pytest.raises(NotInstalled, match=f"install {kind.edition}$"):
            kind.check_installed()


def test_an_installation_that_fails_leaves_nothing_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(into: Path) -> None:
        (into / "half").write_text("")
        raise debian.AptFailed("apt-get download redis-server failed:\n  no space left")

    monkeypatch.setitem(install.RECIPES, "redis", broken)
    monkeypatch.setitem(install.RECIPES, "kafka", lambda into: (into / "lib").mkdir())
    assert main(["install", "redis", "kafka"]) == 1
    shown = capsys.readouterr()
    assert "no space left" in shown.err
    assert "not installed: redis" in shown.err
    assert sorted(path.name for path in cache.folder("redis").parent.iterdir()) == ["kafka"]
    assert not cache.folder("redis").exists()


def test_without_apt_it_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["install", "redis"]) == 1
    assert "this way needs Debian or a relative of it: install redis-server" in capsys.readouterr().err


def test_a_jar_that_nobody_has_looked_at_is_not_taken(tmp_path: Path) -> None:
    """Neither another content, nor one more, nor one less."""
    sums, jars = tmp_path / "a.sha256", tmp_path / "lib"
    jars.mkdir()
    (jars / "a.jar").write_bytes(b"")
    sums.write_text("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a.jar\n")
    maven.check(jars, sums)
    for change in (lambda: (jars / "a.jar").write_bytes(b"x"), (jars / "b.jar").touch, (jars / "a.jar").unlink):
        change()
        with pytest.raises(maven.MavenFailed, match=r"[ab]\.jar"):
            maven.check(jars, sums)


def test_every_java_server_has_its_checksums() -> None:
    """For its usual version, and for each other one that can be asked for."""
    for server in ("kafka", "zookeeper"):
        assert len((POMS / f"{server}.sha256").read_text().splitlines()) > 10
    assert {path.stem for path in POMS.glob("*-*.sha256")} == {"kafka-4.3.0", "zookeeper-3.8.4"}
