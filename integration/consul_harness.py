"""What the conformance kit can do to a Consul agent beyond its connections: end a session, delete keys, count what is left.

Everything here goes through Consul's own HTTP interface, as an operator's tools would.
"""

from __future__ import annotations

from typing import Any, cast
from urllib.error import HTTPError
from urllib.parse import quote

from integration.foreign import DAMAGED
from integration.servers import ConsulServer
from narrowboat.conformance import Harness
from narrowboat_consul.entries import FLAGS
from narrowboat_consul.keys import Space
from narrowboat_consul.locks import ConsulLocks


class ConsulHarness(Harness):
    """For one agent that the harness may do anything to."""

    def _ask(self, method: str, path: str) -> Any:
        return cast(ConsulServer, self.server).request(method, path)

    def _folder(self, namespace: str) -> str:
        return Space("narrowboat", namespace).folder

    def residue(self, namespace: str) -> int:
        """Keys of the namespace."""
        try:
            return len(self._ask("GET", f"/v1/kv/{quote(self._folder(namespace))}?keys"))
        except HTTPError as error:  # 404: there are none
            if error.code != 404:
                raise
            return 0

    def cleanup(self, namespace: str) -> None:
        self._ask("DELETE", f"/v1/kv/{quote(self._folder(namespace))}?recurse")

    def delete(self, half: str, namespace: str, name: str) -> None:
        self._ask("DELETE", f"/v1/kv/{quote(Space('narrowboat', namespace).of(name).folder)}?recurse")

    def plant_record(self, namespace: str, name: str, kind: int) -> bool:
        """The entry of an exclusive holder, marked as ours and without a session, that nobody can believe."""
        if kind >= len(DAMAGED):
            return False
        key = quote(Space("narrowboat", namespace).of(name).lock)
        cast(ConsulServer, self.server).put(f"/v1/kv/{key}?flags={FLAGS}", DAMAGED[kind])
        return True

    def end_session(self, driver: Any) -> None:
        assert isinstance(driver, ConsulLocks)
        session = driver.session_id
        assert session is not None, "there is no session to end"
        self._ask("PUT", f"/v1/session/destroy/{session}")
