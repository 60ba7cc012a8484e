"""One exchange with whatever stands behind the URL: a server, the primary of some sentinels, or a cluster's nodes.

A `Wire` is one connection to each server that it needs, made at the first use and made again after any failure. `run`
sends many commands at once and returns one answer for each. It sends a command a second time only where the server said
that it did nothing (an unknown script, a key that lives elsewhere).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from narrowboat.errors import Closed, NarrowboatError
from narrowboat_redis.connection import Line, find_primary, open_line
from narrowboat_redis.errors import translate
from narrowboat_redis.nodes import FAILURES, Nodes
from narrowboat_redis.resp import ErrorReply, pack
from narrowboat_redis.scripts import Packed, Script
from narrowboat_redis.site import Address, Site, Topology

#: How often a command follows its key to another node within one call.
_REDIRECTS = 5
#: Seconds after an exchange that timed out for which the next one is not begun. Who repeats the members of a failed batch one
#: by one does so at once, and would stand still for a whole time-out with each; who waits between two tries waits longer.
_BREATH = 0.004


class Wire:
    """See the module's text. From any thread; one exchange at a time.

    `timeout`: seconds that `run` may take. `breath`: what comes at once after a time-out fails as well (`_BREATH`).
    """

    def __init__(self, site: Site, timeout: float, *, breath: bool = False) -> None:
        self.site = site
        self._timeout = timeout
        self._mutex = threading.Lock()
        self._lines: dict[Address | None, Line] = {}
        self._nodes = Nodes(site) if site.topology is Topology.CLUSTER else None
        self._closed = False
        self._breath = _BREATH if breath else 0.0
        self._silent: tuple[float, BaseException] | None = None  # when an exchange timed out, and how

    def run(
        self, commands: Sequence[Packed], *, doing: str = "a call", tail: bytes | None = None, ends: float | None = None
    ) -> list[Any]:
        """One answer for each command: a reply, an `ErrorReply`, or in a cluster an error where that node failed.

        `ends`: by `time.monotonic`, where something before it has taken a part of the time.
        `tail`: a packed command to be sent behind the others to each server that gets any; its replies follow the answers.
        Raises one of our errors when the whole exchange failed; what it did is then unknown.
        """
        with self._mutex:
            self._check_open()
            ends = self.ends() if ends is None else ends
            if self._nodes is not None:
                return self._run_cluster(self._nodes, commands, doing, tail, ends)
            if self._silent is not None and time.monotonic() < self._silent[0] + self._breath:
                raise translate(self._silent[1], self.site, doing=doing)
            try:
                line = self._lines.get(None)
                if len(commands) == 1 and tail is None and line is not None and line.usable():  # nearly always
                    answers = [line.once(commands[0].data, ends)]
                    if type(answers[0]) is not ErrorReply:
                        return answers
                    self._look_at(answers)
                else:
                    answers = self._exchange(None, commands, tail, ends)
                for answer in answers:
                    if type(answer) is ErrorReply and answer.code == "NOSCRIPT":
                        return self._run_unknown(commands, answers, tail, ends)
                return answers
            except FAILURES as error:
                self._drop(None)
                failure = translate(error, self.site, doing=doing)
                self._silent = (time.monotonic(), error) if self._breath and time.monotonic() >= ends - _BREATH else None
            except BaseException:
                self._drop(None)
                raise
        raise failure  # out here the first error, which may repeat a password, is not kept as its context

    def ends(self) -> float:
        """When an exchange that begins now has to be over, by `time.monotonic`."""
        return time.monotonic() + self._timeout

    def everywhere(
        self, command: Packed, *, doing: str = "a call", ends: float | None = None
    ) -> list[tuple[Address | None, Any]]:
        """The answer of each server that holds data: one, or each primary of a cluster."""
        with self._mutex:
            self._check_open()
            addresses: list[Address | None] = [None]
            ends = self.ends() if ends is None else ends
            try:
                if self._nodes is not None:
                    addresses = list(self._nodes.primaries(self._line_to, ends))
                return [(address, self._exchange(address, [command], None, ends)[0]) for address in addresses]
            except FAILURES as error:
                self._drop_all()
                failure = translate(error, self.site, doing=doing)
            except BaseException:
                self._drop_all()
                raise
        raise failure

    def at(self, address: Address | None, command: Packed, *, doing: str = "a call") -> Any:
        """The answer of that server."""
        with self._mutex:
            self._check_open()
            try:
                return self._exchange(address, [command], None, time.monotonic() + self._timeout)[0]
            except FAILURES as error:
                self._drop(address)
                failure = translate(error, self.site, doing=doing)
            except BaseException:
                self._drop(address)
                raise
        raise failure

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"{self.site}: used after close()", backend=self.site.scheme)

    def close(self) -> None:
        """End all connections. Idempotent."""
        with self._mutex:
            self._closed = True
            self._drop_all()

    # -- one server -----------------------------------------------------------------------------------------------

    def _exchange(self, address: Address | None, commands: Sequence[Packed], tail: bytes | None, ends: float) -> list[Any]:
        line = self._line_to(address, ends)
        line.send(_together(commands, tail), ends)
        answers = line.receive(len(commands) + (tail is not None), ends)
        if address is None:
            self._look_at(answers)
        return answers

    def _look_at(self, answers: list[Any]) -> None:
        """A primary that is none any more: the sentinels are asked again at the next call."""
        if self.site.topology is not Topology.SENTINEL:
            return
        if any(type(answer) is ErrorReply and "READONLY" in answer.text for answer in answers):
            self._drop(None)

    def _run_unknown(self, commands: Sequence[Packed], answers: list[Any], tail: bytes | None, ends: float) -> list[Any]:
        """Load the scripts that the server did not know, and send again what it did not do."""
        unknown = [i for i, answer in enumerate(answers) if type(answer) is ErrorReply and answer.code == "NOSCRIPT"]
        try:
            again = self._load(None, [commands[index] for index in unknown], tail, ends)
        except Exception as error:
            error.sent = True  # type: ignore[attr-defined]  # the others of the batch were
            raise
        for index, answer in zip(unknown, again, strict=False):
            answers[index] = answer
        return answers + again[len(unknown) :]

    def _load(self, address: Address | None, commands: Sequence[Packed], tail: bytes | None, ends: float) -> list[Any]:
        """Load what the server does not know, and send those commands again."""
        scripts: dict[bytes, Script] = {each.script.sha: each.script for each in commands if each.script is not None}
        loads = [Packed(each.load_command, None) for each in scripts.values()]
        answers = self._exchange(address, [*loads, *commands], tail, ends)
        refused = next((answer for answer in answers[: len(loads)] if type(answer) is ErrorReply), None)
        if refused is not None:
            return [refused] * len(commands) + answers[len(loads) + len(commands) :]
        return answers[len(loads) :]

    def _line_to(self, address: Address | None, ends: float) -> Line:
        line = self._lines.get(address)
        if line is not None:
            if line.usable():
                return line
            self._drop(address)
        left = max(ends - time.monotonic(), 0.001)
        where = address
        try:
            if where is None:
                single = self.site.topology is Topology.SINGLE
                where = self.site.hosts[0] if single else find_primary(self.site, left)
                left = max(ends - time.monotonic(), 0.001)
            line = open_line(self.site, where, left, self._timeout)
        except Exception as error:
            error.sent = False  # type: ignore[attr-defined]  # for `translate`: there was no connection yet
            raise
        self._lines[address] = line
        return line

    def _drop(self, address: Address | None) -> None:
        line = self._lines.pop(address, None)
        if line is not None:
            line.close(hard=line.busy)

    def _drop_all(self) -> None:
        for address in list(self._lines):
            self._drop(address)

    # -- a cluster ------------------------------------------------------------------------------------------------

    def _run_cluster(self, nodes: Nodes, commands: Sequence[Packed], doing: str, tail: bytes | None, ends: float) -> list[Any]:
        answers: list[Any] = [None] * len(commands)
        tails: list[Any] = []
        todo = list(enumerate(commands))
        asking: dict[int, Address] = {}
        try:
            for _ in range(_REDIRECTS + 1):
                groups = nodes.group(todo, asking, self._line_to, ends)
                asked, asking = asking, {}
                sent = self._send_all(groups, asked, tail, ends, answers, doing)
                todo = self._receive_all(nodes, sent, asked, tail, ends, answers, tails, asking, doing)
                if not todo:
                    break
        except FAILURES as error:
            self._drop_all()
            answers = [translate(error, self.site, doing=doing)]
        except BaseException:
            self._drop_all()
            raise
        if commands and all(isinstance(answer, NarrowboatError) for answer in answers):
            raise answers[0]
        return answers + tails

    def _send_all(
        self,
        groups: dict[Address, list[tuple[int, Packed]]],
        asked: dict[int, Address],
        tail: bytes | None,
        ends: float,
        answers: list[Any],
        doing: str,
    ) -> dict[Address, list[tuple[int, Packed]]]:
        sent = {}
        for address, members in groups.items():
            try:
                line = self._line_to(address, ends)
                data = [_ASKING + each.data if index in asked else each.data for index, each in members]
                line.send(b"".join(data) + (tail or b""), ends)
                sent[address] = members
            except (NarrowboatError, *FAILURES) as error:
                self._fail(address, members, answers, error, doing)
        return sent

    def _receive_all(
        self,
        nodes: Nodes,
        sent: dict[Address, list[tuple[int, Packed]]],
        asked: dict[int, Address],
        tail: bytes | None,
        ends: float,
        answers: list[Any],
        tails: list[Any],
        asking: dict[int, Address],
        doing: str,
    ) -> list[tuple[int, Packed]]:
        """Take in the answers; what has to be sent again is returned, and in `asking` where it was told to ask."""
        again: list[tuple[int, Packed]] = []
        for address, members in sent.items():
            try:
                number = len(members) + sum(index in asked for index, _ in members)
                replies = self._lines[address].receive(number + (tail is not None), max(ends, time.monotonic() + 0.05))
                if tail is not None:
                    tails.append(replies.pop())
                unknown = []
                position = 0
                for index, each in members:
                    position += index in asked  # the OK of ASKING
                    answers[index] = reply = replies[position]
                    position += 1
                    if type(reply) is not ErrorReply:
                        continue
                    if reply.code == "NOSCRIPT":
                        unknown.append((index, each))
                    elif reply.code in {"MOVED", "ASK"}:
                        again.append((index, each))
                        nodes.redirected(reply, address, index, asking)
                if unknown:
                    self._reload(address, unknown, tail, ends, answers, tails)
            except (NarrowboatError, *FAILURES) as error:
                self._fail(address, members, answers, error, doing)
                nodes.stale = True
        return again

    def _reload(
        self,
        address: Address,
        members: list[tuple[int, Packed]],
        tail: bytes | None,
        ends: float,
        answers: list[Any],
        tails: list[Any],
    ) -> None:
        replies = self._load(address, [each for _, each in members], tail, ends)
        for (index, _), reply in zip(members, replies, strict=False):
            answers[index] = reply
        tails += replies[len(members) :]

    def _fail(
        self, address: Address, members: list[tuple[int, Packed]], answers: list[Any], error: BaseException, doing: str
    ) -> None:
        self._drop(address)
        if self._nodes is not None:
            self._nodes.stale = True
        found = error if isinstance(error, NarrowboatError) else translate(error, self.site, doing=doing)
        for index, _ in members:
            answers[index] = found


_ASKING = pack(b"ASKING")


def _together(commands: Sequence[Packed], tail: bytes | None) -> bytes:
    if len(commands) == 1 and tail is None:
        return commands[0].data
    return b"".join([each.data for each in commands]) + (tail or b"")
