"""A server that somebody else runs, named by a URL in the environment. It can be used, and neither stopped nor killed."""

from __future__ import annotations

import os

from integration.servers.server import Controls


def variable(name: str) -> str:
    """The variable that names the server of that name, such as NARROWBOAT_TEST_REDIS_URL."""
    return f"NARROWBOAT_TEST_{name.upper()}_URL"


class GivenServer(Controls):
    """What `NARROWBOAT_TEST_<NAME>_URL` says. `start` and `close` do nothing; the faults raise."""

    faults = False

    def __init__(self, name: str) -> None:
        self.server = name
        self._url = os.environ[variable(name)]

    @property
    def url(self) -> str:
        return self._url

    def start(self) -> None:
        """It is said to run: the first test that uses it will tell."""

    def close(self) -> None:
        """It is not ours to end."""

    def stop(self) -> None:
        raise self._refusal()

    def kill(self) -> None:
        raise self._refusal()

    def pause(self) -> None:
        raise self._refusal()

    def resume(self) -> None:
        raise self._refusal()

    def log(self) -> str:
        return ""

    def _refusal(self) -> RuntimeError:
        return RuntimeError(f"{variable(self.server)} names a server that these tests did not start, so they do not stop it")
