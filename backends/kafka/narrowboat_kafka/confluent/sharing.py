"""Share groups on confluent-kafka. See `share/seam.py`.

`ShareConsumer` is there since 2.15, and its makers call it a preview. It cannot renew a lock, and wants all of a batch settled
before it gives the next one. What it cannot read it has settled by itself, and only says so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import confluent_kafka
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

from narrowboat_kafka.client import Code, KafkaError, TopicPartition
from narrowboat_kafka.confluent.admin import Admin
from narrowboat_kafka.confluent.errors import border, told
from narrowboat_kafka.confluent.handle import Troubles, drop, hold
from narrowboat_kafka.confluent.settings import Log, Settings
from narrowboat_kafka.confluent.stored import stored
from narrowboat_kafka.format.stored import Stored
from narrowboat_kafka.share.seam import Verdict

log = logging.getLogger("narrowboat.kafka")


class Sharer:
    """One member of one share group. See `share.seam.Sharer`."""

    def __init__(self, config: dict[str, Any], topic: str) -> None:
        self._troubles = Troubles()
        with border():
            made = confluent_kafka.ShareConsumer({**config, "error_cb": self._troubles.heard, "logger": Log()})
        self._handle: Any = hold(made)
        self._topic = topic
        kinds = confluent_kafka.AcknowledgeType
        self._kinds = {each: getattr(kinds, each.name) for each in Verdict}
        with border():
            self._handle.subscribe([topic])

    def poll(self, seconds: float) -> list[tuple[Stored, int]]:
        """What is there, or comes within so long."""
        with border():
            messages = self._handle.poll(seconds)
        found = []
        for message in messages:
            error = message.error()
            if error is None:
                found.append((stored(message, self._topic), message.delivery_count()))
            else:
                where = f"topic {message.topic()!r}, partition {message.partition()}, offset {message.offset()}"
                log.error("what lies in %s cannot be read and was passed over: %s", where, told(error))
        return found

    def settle(self, verdicts: Sequence[tuple[Stored, Verdict]], seconds: float) -> list[KafkaError | None]:
        """Tell the server, and wait for its answer."""
        answers: list[KafkaError | None] = [None] * len(verdicts)
        sent: dict[TopicPartition, list[int]] = {}
        for index, (record, verdict) in enumerate(verdicts):
            try:
                self._handle.acknowledge_offset(record.topic, record.partition, record.offset, self._kinds[verdict])
            except confluent_kafka.IllegalStateException as error:  # it was settled before
                answers[index] = told(error, code=Code.INVALID_RECORD_STATE)
            else:
                sent.setdefault(TopicPartition(record.topic, record.partition), []).append(index)
        if sent:
            with border():
                found = self._handle.commit_sync(float(seconds))
            for place, failed in found.items():
                for index in sent.pop(TopicPartition(place.topic, place.partition), ()):
                    answers[index] = None if failed is None else told(failed)
        for indexes in sent.values():
            for index in indexes:
                answers[index] = KafkaError(Code.TIMED_OUT_HERE, "the server did not answer in time", retriable=True)
        return answers

    def close(self) -> None:
        """Leave the group."""
        handle, self._handle = self._handle, None
        if handle is not None:
            try:
                with border():
                    handle.close()
            finally:
                drop(handle)


class Sharing:
    """Share groups. See `share.seam.Sharing`."""

    def __init__(self, settings: Settings, admin: Admin) -> None:
        self._settings = settings
        self._admin = admin

    def member(self, group: str, topic: str, size: int) -> Sharer:
        """A member that asks for so many messages at a time."""
        return Sharer(self._settings.sharer(group, size), topic)

    def settings(self, group: str) -> dict[str, str]:
        """The settings of a group as they are in force."""
        resource = ConfigResource(ConfigResource.Type.GROUP, group)
        return {name: each.value for name, each in self._admin.described(resource).items()}

    def configure(self, group: str, values: Mapping[str, str]) -> None:
        """Change settings of a group."""
        how = AlterConfigOpType.SET
        entries = [ConfigEntry(name, value, incremental_operation=how) for name, value in values.items()]
        self._admin.configure(ConfigResource(ConfigResource.Type.GROUP, group, incremental_configs=entries))
