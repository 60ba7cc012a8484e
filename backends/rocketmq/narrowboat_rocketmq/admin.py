"""Topics, groups and offsets: what is made, counted and removed by the remoting protocol, on every broker of the cluster.

What a source was declared with is kept in its group's configuration, in a list of numbers that the server keeps for consumers
of another kind (`customizedRetryPolicy`, beside a policy that is not customized) and does not look at: it goes with the group.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from narrowboat.contract import Kind, Properties
from narrowboat.driver.endpoint import HostPort
from narrowboat_rocketmq.names import Place
from narrowboat_rocketmq.remoting import GROUP_NOT_FOUND, OFFSET_NOT_FOUND, SUCCESS, TOPIC_NOT_FOUND, Answer, Remoting

# Requests, by the numbers that the protocol has for them.
_QUERY_OFFSET, _SET_OFFSET, _MAKE_TOPIC, _MAX_OFFSET, _MIN_OFFSET = 14, 15, 17, 30, 31
_ROUTE, _CLUSTER, _MAKE_GROUP, _ALL_GROUPS, _DELETE_GROUP = 105, 106, 200, 201, 207
_DELETE_AT_BROKER, _DELETE_AT_NAMES, _RESET, _GROUP = 215, 216, 222, 352
#: Begins our numbers in a group's configuration. What follows: kind, topic, whether declared, lease in ms, and the rest.
_MARK = 6_279_866_421
_KINDS = (Kind.QUEUE, Kind.TOPIC, Kind.SUBSCRIPTION)
#: Seconds between two looks whether a topic that was made can be used.
_PAUSE = 0.02


class Refused(Exception):
    """A server of the cluster refused; `answer` has its words."""

    def __init__(self, server: HostPort, doing: str, answer: Answer) -> None:
        super().__init__(f"{server} refused {doing} ({answer.remark or f'code {answer.code}'})")
        self.code = answer.code


class Known(NamedTuple):
    """What a group's configuration says of its source."""

    kind: Kind | None  #: None: nobody of ours has declared it
    topic: int  #: `mark` of the topic that it reads
    properties: Properties | None  #: None: nobody has declared any
    config: Mapping[str, Any]  #: all of it


class Queue(NamedTuple):
    """A part of a topic, on one broker."""

    broker: HostPort
    topic: str
    number: int


class Admin:
    """See the module's text. Raises `Refused`, and `OSError` where a server did not answer before `ends`."""

    def __init__(self, remoting: Remoting, names: HostPort, namespace: str, ends: float) -> None:
        self._remoting = remoting
        self._names = names
        self._namespace = namespace
        self._ends = ends  #: by `time.monotonic`

    def full(self, name: str) -> str:
        """The name of a topic or group as the brokers have it."""
        return f"{self._namespace}%{name}" if self._namespace else name

    def ping(self) -> None:
        """One round trip to the name server."""
        self._brokers()

    # -- making ---------------------------------------------------------------------------------------------------

    def make_topic(self, topic: str, kind: str, queues: int) -> None:
        """Make a topic of a type, or give it that type; returns when the name server knows it.

        A proxy that is asked before keeps for 40 seconds that there is none.
        """
        fields = {
            "topic": self.full(topic),
            "defaultTopic": "TBW102",
            "readQueueNums": queues,
            "writeQueueNums": queues,
            "perm": 6,
            "topicFilterType": "SINGLE_TAG",
            "topicSysFlag": 0,
            "order": False,
            "attributes": f"+message.type={kind}",
        }
        brokers = self._brokers()
        for broker in brokers:
            self._ask(broker, _MAKE_TOPIC, fields, f"making the topic {topic!r}")
        while len({queue.broker for queue in self.queues(topic)}) < len(brokers):
            if time.monotonic() > self._ends:
                raise TimeoutError(f"the name server does not know the topic {topic!r}, which was made just now")
            time.sleep(_PAUSE)

    def make_group(self, place: Place, properties: Properties | None, found: Mapping[str, Any]) -> None:
        """Write into the group of a source what it is declared with. `found`: its configuration, with what operators set."""
        asked = properties or Properties()
        ours = [_MARK, _KINDS.index(place.address.kind), mark(place.topic), int(properties is not None)]
        ours += [round(asked.lease * 1000), asked.max_deliveries, int(asked.ordered), asked.priorities]
        config = {
            **found,
            "groupName": self.full(place.group),
            "consumeMessageOrderly": asked.ordered,
            "retryMaxTimes": 1_000_000_000,  # dead letters are ours. The proxy adds 1 to it: the largest number would be none
            "groupRetryPolicy": {"type": "EXPONENTIAL", "customizedRetryPolicy": {"next": ours}},
        }
        body = json.dumps(config).encode()
        for broker in self._brokers():
            self._ask(broker, _MAKE_GROUP, {}, f"making the group {place.group!r}", body)

    def group(self, name: str) -> Known:
        """What the group of that name says of its source. A broker that is asked for a group makes it (its default)."""
        broker = self._brokers()[0]
        content = self._ask(
            broker, _GROUP, {"group": self.full(name)}, f"telling of the group {name!r}", missing=True
        ).content()
        return _known(content if isinstance(content, dict) else {})

    def start(self, place: Place, topics: tuple[str, ...], *, at_end: bool) -> None:
        """Let a new group begin: with what the topics get from now on (`at_end`), or with what they have.

        The server would begin with what it finds best. What the group has read before stays read.
        """
        group = self.full(place.group)
        for topic in topics:
            for queue in self.queues(topic):
                if self._committed(group, queue) is None:
                    offset = self._edge(queue, _MAX_OFFSET if at_end else _MIN_OFFSET)
                    fields = {"consumerGroup": group, "topic": queue.topic, "queueId": queue.number, "commitOffset": offset}
                    self._ask(queue.broker, _SET_OFFSET, fields, f"beginning with {topic!r}")

    # -- looking --------------------------------------------------------------------------------------------------

    def queues(self, topic: str, *, full: bool = False) -> list[Queue]:
        """The queues of a topic; none where the name server does not know it."""
        name = topic if full else self.full(topic)
        answer = self._remoting.ask(self._names, _ROUTE, {"topic": name}, self._ends)
        if answer.code == TOPIC_NOT_FOUND:
            return []
        found = self._checked(self._names, answer, f"telling of the topic {topic!r}").content()
        brokers = {each["brokerName"]: each["brokerAddrs"] for each in found["brokerDatas"]}
        return [
            Queue(_address(brokers[each["brokerName"]]), name, number)
            for each in found["queueDatas"]
            if each["brokerName"] in brokers
            for number in range(each["readQueueNums"])
        ]

    def waiting(self, place: Place, topics: tuple[str, ...]) -> int:
        """How many messages the group has not got yet, those that it gave back among them."""
        group = self.full(place.group)
        return sum(max(0, end - now) for _, now, end in self._positions(group, topics))

    def skip(self, place: Place, topics: tuple[str, ...]) -> int:
        """Let the group pass over what it has not got yet; how many that was."""
        group, count = self.full(place.group), 0
        for queue, now, end in self._positions(group, topics):
            if now < end:
                fields = {"topic": queue.topic, "group": group, "timestamp": -1, "isForce": True}
                fields |= {"queueId": queue.number, "offset": end}
                self._ask(queue.broker, _RESET, fields, f"purging {place.path!r}")
                count += end - now
        return count

    def _positions(self, group: str, topics: tuple[str, ...]) -> Iterator[tuple[Queue, int, int]]:
        for topic in topics:
            for name in (self.full(topic), f"%RETRY%{group}_{self.full(topic)}"):
                for queue in self.queues(name, full=True):
                    end = self._edge(queue, _MAX_OFFSET)
                    now = self._committed(group, queue)
                    yield queue, self._edge(queue, _MIN_OFFSET) if now is None else now, end

    def _committed(self, group: str, queue: Queue) -> int | None:
        fields = {"consumerGroup": group, "topic": queue.topic, "queueId": queue.number, "setZeroIfNotFound": False}
        answer = self._remoting.ask(queue.broker, _QUERY_OFFSET, fields, self._ends)
        if answer.code == OFFSET_NOT_FOUND:
            return None
        offset = int(self._checked(queue.broker, answer, "telling an offset").fields["offset"])
        return offset if offset >= 0 else None

    def _edge(self, queue: Queue, which: int) -> int:
        # Not committed: with all that was stored, also what the broker has yet to write into the index of the queue.
        fields = {"topic": queue.topic, "queueId": queue.number, "committed": False}
        return int(self._ask(queue.broker, which, fields, "telling an offset").fields["offset"])

    # -- removing -------------------------------------------------------------------------------------------------

    def subscriptions(self, topic: str) -> list[str]:
        """The groups that were declared on a topic."""
        wanted, found = mark(topic), dict[str, None]()
        before = f"{self._namespace}%" if self._namespace else ""
        for broker in self._brokers():
            content = self._ask(broker, _ALL_GROUPS, {}, "listing groups").content() or {}
            for name, config in content.get("subscriptionGroupTable", {}).items():
                known = _known(config)
                if known.kind is Kind.SUBSCRIPTION and known.topic == wanted and name.startswith(before):
                    found[name[len(before) :]] = None
        return list(found)

    def delete(self, group: str, topics: tuple[str, ...], *, kept: bool = False) -> None:
        """Remove a group with what it gave back; `kept`: the topics stay, which others read."""
        group = self.full(group)
        gone = [f"%RETRY%{group}_{self.full(topic)}" for topic in topics]
        gone += [] if kept else [self.full(topic) for topic in topics]
        for broker in self._brokers():
            self._ask(broker, _DELETE_GROUP, {"groupName": group, "cleanOffset": True}, "deleting a group", missing=True)
            for name in gone:
                self._ask(broker, _DELETE_AT_BROKER, {"topic": name}, "deleting a topic", missing=True)
        for name in gone:
            self._ask(self._names, _DELETE_AT_NAMES, {"topic": name}, "deleting a topic", missing=True)

    # -- asking ---------------------------------------------------------------------------------------------------

    def _brokers(self) -> list[HostPort]:
        """The brokers that take messages."""
        found = self._ask(self._names, _CLUSTER, {}, "listing the brokers").content()
        return sorted({_address(each["brokerAddrs"]) for each in found["brokerAddrTable"].values()})

    def _ask(
        self, server: HostPort, code: int, fields: Mapping[str, Any], doing: str, body: bytes = b"", *, missing: bool = False
    ) -> Answer:
        answer = self._remoting.ask(server, code, fields, self._ends, body)
        if missing and answer.code in (TOPIC_NOT_FOUND, GROUP_NOT_FOUND):
            return answer
        return self._checked(server, answer, doing)

    def _checked(self, server: HostPort, answer: Answer, doing: str) -> Answer:
        if answer.code != SUCCESS:
            raise Refused(server, doing, answer)
        return answer


def mark(topic: str) -> int:
    """A number for a topic, for a group to name it by."""
    return int.from_bytes(hashlib.sha256(topic.encode()).digest()[:7])


def _address(addresses: Mapping[str, str]) -> HostPort:
    """The master's, which has the number 0; where there is none any more, that of whoever stands in for it."""
    host, _, port = addresses[min(addresses, key=int)].rpartition(":")
    return HostPort(host, int(port))


def _known(config: Mapping[str, Any]) -> Known:
    """Of a group's configuration, which another program may have written."""
    policy = config.get("groupRetryPolicy") or {}
    ours = (policy.get("customizedRetryPolicy") or {}).get("next") or []
    if len(ours) != 8 or ours[0] != _MARK or ours[1] not in range(len(_KINDS)):
        return Known(None, 0, None, config)
    _, kind, topic, declared, lease, deliveries, ordered, priorities = ours
    properties = Properties(lease / 1000, deliveries, bool(ordered), priorities) if declared else None
    return Known(_KINDS[kind], topic, properties, config)
