"""Whether a Docker daemon can run a server here: one answers, it runs on this machine, and it has or gets the image.

It starts no daemon and no container. What it finds is remembered for the process, so a pull is tried once.
"""

from __future__ import annotations

import functools
import os
import platform
import socket
import threading

#: seconds to wait for an answer of the daemon, and for an image to be pulled
ANSWER_BOUND = 5
PULL_BOUND = 180.0


@functools.cache
def refusal(image: str) -> str | None:
    """Why a container of `image` cannot be run; None when it can."""
    return daemon_refusal() or _image(image)


def answers(host: str | None = None) -> bool:
    """Whether something listens at a daemon's address, DOCKER_HOST unless told; true where that is not a local socket.

    Docker's own client leaves a socket open when nobody is there.
    """
    address = host or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not address.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(ANSWER_BOUND)
        try:
            line.connect(address.removeprefix("unix://"))
        except OSError:
            return False
    return True


@functools.cache
def daemon_refusal() -> str | None:
    """Why no daemon can be used, whatever the image; None when one can."""
    if platform.system() != "Linux":
        return "the containers share the machine's network, which works on Linux only"
    try:
        import docker
        import testcontainers.core.container  # noqa: F401  # only whether it is there
    except ImportError as error:
        return f"testcontainers is not installed ({error.name})"
    if not answers():
        return "no Docker daemon answers"
    try:
        client = docker.from_env(timeout=ANSWER_BOUND)
        try:
            system = client.info().get("OperatingSystem", "")
        finally:
            client.close()
    except Exception as error:  # docker, requests and urllib3 each have their own tree for "nobody there"
        return f"no Docker daemon answers ({type(error).__name__})"
    if "Docker Desktop" in system:
        return "Docker Desktop runs containers on a machine of its own, whose network is not this one's"
    return None


def _image(image: str) -> str | None:
    import docker
    from docker.errors import DockerException, ImageNotFound

    client = docker.from_env(timeout=ANSWER_BOUND)
    try:
        client.images.get(image)
    except ImageNotFound:
        return _pull(image)
    except DockerException as error:
        return f"the Docker daemon does not say whether it has {image} ({type(error).__name__})"
    finally:
        client.close()
    return None


def _pull(image: str) -> str | None:
    import docker

    failure: list[str] = ["it was not pulled in time"]

    def pull() -> None:
        try:
            client = docker.from_env(timeout=PULL_BOUND)
            try:
                client.images.pull(image)
            finally:
                client.close()
        except Exception as error:  # whatever it is: then there is no image
            failure[0] = f"{type(error).__name__}"
        else:
            failure.clear()

    # A registry that accepts and does not answer would hold the daemon's reply for longer than anyone waits.
    puller = threading.Thread(target=pull, name=f"pull {image}", daemon=True)
    puller.start()
    puller.join(PULL_BOUND)
    return f"the daemon has no image {image} and cannot pull it ({failure[0]})" if failure else None


def forget() -> None:
    """Look again at the next question: another daemon is meant now, or it has got an image."""
    refusal.cache_clear()
    daemon_refusal.cache_clear()
