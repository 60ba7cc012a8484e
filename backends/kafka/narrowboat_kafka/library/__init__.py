"""The client of `client.py` with kafka-python, which is used here alone; and the lists of what is used beside its classes.

kafka-python has a reference of what it offers: its three classes, `kafka.admin`, `kafka.errors`, `kafka.structs`; and for who
builds on its connections, their manager, one of them, and what is known of a cluster. `DOCUMENTED` lists what we use of the
latter, which moves more than the former. `NAMES` lists what is in no reference (decision 0056 says why nothing else will do).

A minor version may drop any of them, so `tests/backends/test_kafka_library.py` asks the installed library for each, and the
tests run against its main branch as well. Where a name fails, the file that uses it is the place to mend. The rest of the
backend imports none of these files but `library/client.py`, when a broker is opened, and reads no attribute that begins with
an underscore.

This file imports nothing of the library.
"""

from __future__ import annotations

#: What its reference has, beside its classes: for each thing, which of its names; above them, what for, and in which file.
DOCUMENTED: dict[str, str] = {
    # Answers are taken in, as large as it may take them (wire.py); why it was not made (wire.py).
    "kafka.net.connection.KafkaConnection": "config initializing connection_made connection_lost data_received",
    # The connections of a client that shares its loop are closed there (connection.py).
    "kafka.net.manager.KafkaConnectionManager": "close",
    # Makes no topics by asking for them: the setting does not reach the requests (connection.py); what is known of topics
    # (group.py).
    "kafka.cluster.ClusterMetadata": "config partitions_for_topic topic_id request_update refresh_metadata",
    # A choice where there is none costs nothing (producer.py).
    "kafka.partitioner": "DefaultPartitioner",
}

#: What no reference has: for each thing, which of its names; above them, what for, and in which file.
NAMES: dict[str, str] = {
    # What the loop gives to who asks it something, and what the library itself settles (awaited.py).
    "kafka.future.Future": "success failure add_callback add_errback add_both is_done exception value",
    # What is known of the cluster, by the one that was made over our sockets (connection.py).
    "kafka.net.manager.KafkaConnectionManager": "cluster",
    # A coordinator that has moved is found anew: the administration stays with the first one that it found (admin.py).
    "kafka.cluster.ClusterMetadata": "_coordinators",
    # What left, and what is sent at once (producer.py).
    "kafka.KafkaProducer": "_sender _accumulator",
    # An error says whether what it is about left (producer.py).
    "kafka.producer.sender.Sender": "wakeup _complete_batch_with_exception",
    # A single message waits for no other (producer.py); which batches an error that ends the producer leaves unsent
    # (producer.py).
    "kafka.producer.record_accumulator.RecordAccumulator": (
        "flush_in_progress has_undrained begin_flush await_flush_completion abort_batches abort_undrained_batches"
    ),
    # Whether it left (producer.py).
    "kafka.producer.producer_batch.ProducerBatch": "drained",
    # Its parts, which run on our I/O thread (group.py).
    "kafka.KafkaConsumer": "_coordinator _fetcher",
    # Partitions move one by one (group.py).
    "kafka.coordinator.assignors.cooperative_sticky": "CooperativeStickyAssignor",
    # Partitions that were lost are not claimed again (group.py).
    "kafka.coordinator.assignors.cooperative_sticky.CooperativeStickyAssignor": "member_assignment",
    # Membership (group.py); commits with metadata, one at a time (group.py).
    "kafka.coordinator.consumer.ConsumerCoordinator": (
        "ensure_coordinator_ready_async need_rejoin ensure_active_group_async poll_heartbeat "
        "fetch_committed_offsets_async _send_offset_commit_request"
    ),
    # Positions (group.py); fetches without a poll (fetches.py); what was fetched and not read: a partition that is paused
    # meanwhile would never give the rest (fetches.py).
    "kafka.consumer.fetcher.Fetcher": (
        "reset_offsets_if_needed maybe_validate_positions validate_offsets_if_needed PartitionRecords config "
        "fetched_records _send_fetches_async _fetch_futures _completed_fetches _paused_completed_fetches "
        "_paused_partition_records _next_partition_records"
    ),
    # Ours stands in its place: one tuple a record, and what cannot be read stops nobody (fetched.py).
    "kafka.consumer.fetcher.Fetcher.PartitionRecords": ("topic_partition next_fetch_offset leader_epoch bytes_read drain take"),
    # The batches of an answer, one by one (fetched.py).
    "kafka.record.MemoryRecords": "next_batch",
    # A batch as it came, and whether it is whole (fetched.py).
    "kafka.record.default_records.DefaultRecordBatch": "magic validate_crc size_in_bytes _buffer",
}

#: What one of the versions alone has.
EITHER: dict[str, str] = {
    # 3.0: a client makes its connections by that (connection.py).
    "kafka.net.manager.KafkaConnectionManager": "_build_transport",
    # 3.1: the loop makes them, and is of this class (loop.py).
    "kafka.net.backend.NetBackend": "create_connection",
}
