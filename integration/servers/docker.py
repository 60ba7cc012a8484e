"""Whether a Docker daemon can run a server here: one answers, it runs on this machine, and it has or gets the image.

It starts no daemon and no container. What it finds is remembered for the process, so a pull is tried once.
"""

from __future__ import annotations

import functools
import platform
import threading

#: seconds to wait for an answer of the daemon, and for an image to be pulled
ANSWER_BOUND = 5
PULL_BOUND = 180.0


@functools.cache
def refusal(image: str) -> str | None:
    """Why a container of `image` cannot be run; None when it can."""
    return _daemon() or _image(image)


@functools.cache
def _daemon() -> str | None:
    if platform.system() != "Linux":
        return "the containers share the machine's network, which works on Linux only"
    try:
        import docker
        import testcontainers.core.container  # noqa: F401  # only whether it is there
    except ImportError as error:
        return f"testcontainers is not installed ({error.name})"
    try:
        client = docker.from_env(timeout=ANSWER_BOUND)
        try:
            system = client.info().get("OperatingSystem", "")
        finally:
            client.close()
    except Exception as error:  # noqa: BLE001  # docker, requests and urllib3 each have their own tree for "nobody there"
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
        except Exception as error:  # noqa: BLE001  # whatever it is: then there is no image
            failure[0] = f"{type(error).__name__}"
        else:
            failure.clear()

    # A registry that accepts and does not answer would hold the daemon's reply for longer than anyone waits.
    puller = threading.Thread(target=pull, name=f"pull {image}", daemon=True)
    puller.start()
    puller.join(PULL_BOUND)
    return f"the daemon has no image {image} and cannot pull it ({failure[0]})" if failure else None
