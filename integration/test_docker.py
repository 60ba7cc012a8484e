"""The way through testcontainers, for real: a Redis server in a container, with all that a test can do to it.

It takes the daemon that answers, and starts one of its own where none does and this machine can run one
(`python -m integration.servers install docker`, as root). The image is made here, so nothing is pulled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import redis

from integration.servers import RedisServer, ServerFailed, docker
from integration.servers.container import Container
from integration.servers.docker_daemon import DockerDaemon, make_image
from integration.servers.programs import NotInstalled, find
from integration.servers.resolve import choose

IMAGE = "narrowboat-redis:test"


@pytest.fixture(scope="module")
def docker_host() -> Iterator[str]:
    if docker.daemon_refusal() is None:
        yield os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        return
    try:
        DockerDaemon.check_installed()
    except NotInstalled as error:
        pytest.skip(f"no Docker daemon can run here: {error}")
    if os.geteuid() != 0:
        pytest.skip("no Docker daemon can run here: dockerd needs root")
    daemon = DockerDaemon()
    try:
        daemon.start()
    except ServerFailed as error:
        daemon.close()
        pytest.skip(f"no Docker daemon can run here: {error}")
    yield daemon.url
    daemon.close()


@pytest.fixture
def redis_in_docker(docker_host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    make_image(docker_host, IMAGE, find("redis", "redis-server"))
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    monkeypatch.setenv("NARROWBOAT_TEST_REDIS_IMAGE", IMAGE)
    monkeypatch.setenv("TESTCONTAINERS_RYUK_DISABLED", "true")  # its reaper is an image that would have to be pulled
    monkeypatch.delenv("NARROWBOAT_TEST_REDIS_URL", raising=False)
    docker.forget()
    choice = choose(RedisServer)
    assert choice.image == IMAGE, "a daemon that has the image comes before a program of the machine"
    server = choice.server(password="s3cret")
    assert isinstance(server, RedisServer)
    with server:
        assert isinstance(server.runner, Container)
        yield server
    docker.forget()


def test_a_redis_in_a_container_stops_dies_stands_still_and_comes_back(redis_in_docker: RedisServer) -> None:
    server = redis_in_docker
    with server.client() as client:
        client.set("kept", "yes")
    server.restart()
    with server.client() as client:
        assert client.get("kept") == "yes"
        client.set("kept", "over a kill")
    server.kill()
    assert not server.alive
    with server.client() as client, pytest.raises(redis.ConnectionError):
        client.ping()
    server.start()
    with server.client(socket_timeout=0.3) as client:
        assert client.get("kept") == "over a kill"
        server.pause()
        server.pause()  # twice is once
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
    with server.client() as client:
        assert client.ping()
    server.pause()
    server.kill()
    server.start()
    assert "Ready to accept connections" in server.log()


def test_an_image_that_the_daemon_has_not_and_cannot_pull_is_no_obstacle(
    docker_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    monkeypatch.setenv("NARROWBOAT_TEST_REDIS_IMAGE", "127.0.0.1:9/narrowboat/absent:1")  # port 9: nobody is there
    monkeypatch.delenv("NARROWBOAT_TEST_REDIS_URL", raising=False)
    docker.forget()
    reason = docker.refusal("127.0.0.1:9/narrowboat/absent:1")
    assert reason is not None
    assert "no image" in reason
    assert choose(RedisServer).image is None, "the program of this machine is next in turn"
    docker.forget()
