"""The only place that uses what kafka-python does not promise, and the list of it.

kafka-python promises its top level, `kafka.admin`, `kafka.errors` and `kafka.structs`. That is not enough: its consumer has a
thread of its own, its producer does not say what left, and neither bounds what it reads. So this folder stands on names that
a minor version of the library may drop: the dependency is pinned below the next one, and `tests/backends/test_kafka_library.py`
asks the installed library for each of `NAMES`. Where it fails, the file that uses the name is the place to mend. The rest of
the backend imports these files and the promised names, and reads no attribute that begins with an underscore.

This file imports nothing of the library.
"""

from __future__ import annotations

#: For each thing of the library, which of its names are used, and what for. A class is named by where it is.
NAMES: dict[str, dict[str, str]] = {
    "kafka.net.selector.NetworkSelector": {
        "start stop close run call_soon call_soon_with_future call_soon_threadsafe call_later sleep wakeup": (
            "one I/O thread for all members and the administration, on which `member/` runs as coroutines (loop.py)"
        ),
        "wait_read wait_write config": "our TLS handshake, which has an end (connection.py), and a new selector (loop.py)",
        "_poll_once _stop _closed _poll_lock _ready _selector _rebuild_wakeup_socketpair _pending_tasks _add_ready_task": (
            "the thread outlasts its own faults: a new selector, and whoever waited for a socket is told (loop.py)"
        ),
    },
    "kafka.net.selector.TaskState": {"WAIT_IO": "which of the coroutines wait for a socket (loop.py)"},
    "kafka.net.selector.Task": {"state inject_exc": "how those are told (loop.py)"},
    "kafka.net.wakeup_notifier.WakeupNotifier": {
        "notify": "a coroutine waits for a time, or for news from another thread (loop.py)",
        "_wakeup": "the same from the I/O thread, without a turn of the loop in between (loop.py)",
    },
    "kafka.future.Future": {
        "success failure add_both is_done exception value": "what coroutines of the loop await (loop.py)",
        "failed": "why a connection was not made (connection.py)",
    },
    "kafka.net.inet": {
        "KafkaNetSocket create_connection": "a socket that does not connect is closed (connection.py)",
    },
    "kafka.net.inet.KafkaNetSocket": {"socket connect": "the same"},
    "kafka.net.transport.KafkaTCPTransport": {
        "abort _sock _sock_recv _read_from_sock _write_to_sock": (
            "reads so much at a time, and ends where it cannot go on (connection.py)"
        ),
        "_net": "to wait for the socket while TLS is agreed upon (connection.py)",
    },
    "kafka.net.transport.KafkaSSLTransport": {"handshake": "ours has an end (connection.py)"},
    "kafka.net.connection.KafkaConnection": {
        "config initializing init_future broker_version_data parser connection_made data_received close": (
            "whatever goes wrong with an answer ends the connection, and the reason of the first one is told (connection.py)"
        ),
    },
    "kafka.net.compat.KafkaNetClient": {"cluster close _manager _net": "clients over connections of ours (connection.py)"},
    "kafka.net.manager.KafkaConnectionManager": {
        "config ssl_enabled cluster get_connection close _build_transport _net": "the same",
        "wait_for": "waits for news of topics (group.py)",
    },
    "kafka.protocol.parser.KafkaProtocol": {
        "bytes_to_send in_flight_requests send_request send_bytes receive_bytes _receiving _header _rbuffer _client_id "
        "_max_frame_size _next_correlation_id _reset_buffer _process_response": (
            "an answer takes memory as it comes, and no bytes are logged (connection.py)"
        ),
    },
    "kafka.protocol.frame": {"KafkaBytes": "the same"},
    "kafka.protocol.consumer": {"IsolationLevel": "ends of partitions as far as they may be read (admin.py)"},
    "kafka.cluster.ClusterMetadata": {
        "config": "makes no topics by asking for them: the setting does not reach the requests (connection.py)",
        "partitions_for_topic topic_id request_update refresh_metadata": "what is known of topics (group.py)",
        "_coordinators": "a coordinator that has moved is found anew (admin.py)",
    },
    "kafka.KafkaAdminClient": {
        "_manager _client _closed": "an end without a word to the server (admin.py)",
        "_async_list_partition_offsets _get_cluster_metadata": "questions from the I/O thread (admin.py)",
    },
    "kafka.KafkaProducer": {
        "_sender _accumulator _transaction_manager _closed": "what left, what is sent at once, what has ended (producer.py)",
    },
    "kafka.producer.sender.Sender": {
        "wakeup force_close _complete_batch_with_exception": "which batch an error is about, and whether it left (producer.py)",
    },
    "kafka.producer.record_accumulator.RecordAccumulator": {
        "flush_in_progress has_undrained begin_flush _flushes_in_progress": "a single message waits for no other (producer.py)",
        "abort_batches _incomplete": "which batches an error that ends the producer leaves unsent (producer.py)",
    },
    "kafka.producer.producer_batch.ProducerBatch": {"drained produce_future": "whether it left, and whose it is (producer.py)"},
    "kafka.producer.future.FutureRecordMetadata": {"_produce_future": "which batch a message is in (producer.py)"},
    "kafka.producer.transaction_manager.TransactionManager": {"has_fatal_error": "whether a producer has ended (producer.py)"},
    "kafka.partitioner": {"DefaultPartitioner": "a choice where there is none costs nothing (producer.py)"},
    "kafka.KafkaConsumer": {
        "_coordinator _fetcher _subscription _manager _client": "its parts, which run on our I/O thread (group.py)",
    },
    "kafka.coordinator.assignors.cooperative_sticky": {"CooperativeStickyAssignor": "partitions move one by one (group.py)"},
    "kafka.consumer.subscription_state": {"AsyncConsumerRebalanceListener": "a revocation waits for handlers (group.py)"},
    "kafka.coordinator.consumer.ConsumerCoordinator": {
        "ensure_coordinator_ready_async need_rejoin ensure_active_group_async poll_heartbeat": "membership (group.py)",
        "fetch_committed_offsets_async _send_offset_commit_request": "commits with metadata, one at a time (group.py)",
        "_assignors": "partitions that were lost are not claimed again (group.py)",
        "_generation": "whether the group goes on without us (group.py)",
    },
    "kafka.coordinator.base.Generation": {"is_lost": "the same"},
    "kafka.consumer.subscription_state.SubscriptionState": {
        "subscription assigned_partitions is_assigned seek pause resume": "what is fetched, and from where (group.py)",
    },
    "kafka.consumer.fetcher.Fetcher": {
        "reset_offsets_if_needed maybe_validate_positions validate_offsets_if_needed": "positions (group.py)",
        "PartitionRecords config fetched_records _send_fetches_async _fetch_futures": "fetches without a poll (fetches.py)",
        "_completed_fetches _paused_completed_fetches _paused_partition_records _next_partition_records": (
            "what was fetched and not read: a partition that is paused meanwhile would never give the rest (fetches.py)"
        ),
    },
    "kafka.consumer.fetcher.Fetcher.PartitionRecords": {
        "topic_partition fetch_offset next_fetch_offset leader_epoch record_iterator records_read bytes_read check_crcs drain "
        "take aborted_producer_ids _maybe_skip_record _unpack_records _consume_aborted_transactions_up_to "
        "_contains_abort_marker _is_batch_aborted": "one tuple a record, and what cannot be read stops nobody (fetched.py)",
    },
    "kafka.record.default_records.DefaultRecordBatch": {
        "base_offset last_offset next_offset first_timestamp max_timestamp timestamp_type records_count producer_id "
        "has_producer_id is_control_batch leader_epoch magic validate_crc size_in_bytes _buffer": (
            "a batch, read in one pass (fetched.py)"
        ),
        "CODEC_NONE CODEC_GZIP CODEC_SNAPPY CODEC_LZ4 CODEC_ZSTD compression_type _pos _assert_has_codec": (
            "unpacked up to a bound (packed.py)"
        ),
    },
}
