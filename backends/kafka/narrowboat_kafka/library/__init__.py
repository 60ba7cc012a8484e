"""The client of `client.py` with kafka-python, which is used here alone; and the list of what of it is not promised.

kafka-python promises its top level, `kafka.admin`, `kafka.errors` and `kafka.structs`. That is not enough: its consumer has a
thread of its own, its producer does not say what left, and neither bounds what it reads. So this folder stands on names that
a minor version of the library may drop: the dependency is pinned below the next one, and `tests/backends/test_kafka_library.py`
asks the installed library for each of `NAMES`. Where it fails, the file that uses the name is the place to mend. The rest of
the backend imports none of these files but `library/client.py`, when a broker is opened, and reads no attribute that begins
with an underscore.

This file imports nothing of the library.
"""

from __future__ import annotations

#: For each thing of the library, which of its names are used; above them, what for, and in which file.
NAMES: dict[str, str] = {
    # One I/O thread for all members and the administration, on which `member/` runs as coroutines (loop.py); our TLS
    # handshake, which has an end (connection.py), and a new selector (loop.py); the thread outlasts its own faults: a new
    # selector, and the coroutines that waited for a socket are told (loop.py).
    "kafka.net.selector.NetworkSelector": (
        "start stop close run call_soon call_soon_with_future call_soon_threadsafe call_later sleep wakeup wait_read "
        "wait_write config _poll_once _stop _closed _poll_lock _ready _selector _rebuild_wakeup_socketpair _pending_tasks "
        "_add_ready_task"
    ),
    # Which of the coroutines wait for a socket (loop.py).
    "kafka.net.selector.TaskState": "WAIT_IO",
    # How those are told (loop.py).
    "kafka.net.selector.Task": "state inject_exc",
    # A coroutine waits for a time, or for news from another thread (loop.py); the same from the I/O thread, without a turn
    # of the loop in between (loop.py).
    "kafka.net.wakeup_notifier.WakeupNotifier": "notify _wakeup",
    # What coroutines of the loop await (loop.py); why a connection was not made (connection.py).
    "kafka.future.Future": "success failure add_both is_done exception value failed",
    # A socket that does not connect is closed (connection.py).
    "kafka.net.inet": "KafkaNetSocket create_connection",
    "kafka.net.inet.KafkaNetSocket": "socket connect",
    # Reads so much at a time, and ends where it cannot go on (connection.py); to wait for the socket while TLS is agreed
    # upon (connection.py).
    "kafka.net.transport.KafkaTCPTransport": "abort _sock _sock_recv _read_from_sock _write_to_sock _net",
    # Ours has an end (connection.py).
    "kafka.net.transport.KafkaSSLTransport": "handshake",
    # Whatever goes wrong with an answer ends the connection, and the reason of the first one is told (connection.py).
    "kafka.net.connection.KafkaConnection": (
        "config initializing init_future broker_version_data parser connection_made data_received close"
    ),
    # Clients over connections of ours (connection.py).
    "kafka.net.compat.KafkaNetClient": "cluster close _manager _net",
    # Clients over connections of ours (connection.py); waits for news of topics (group.py).
    "kafka.net.manager.KafkaConnectionManager": (
        "config ssl_enabled cluster get_connection close _build_transport _net wait_for"
    ),
    # An answer takes memory as it comes, and no bytes are logged (connection.py).
    "kafka.protocol.parser.KafkaProtocol": (
        "bytes_to_send in_flight_requests send_request send_bytes receive_bytes _receiving _header _rbuffer _client_id "
        "_max_frame_size _next_correlation_id _reset_buffer _process_response"
    ),
    "kafka.protocol.frame": "KafkaBytes",
    # The class of an answer is made by one thread at a time (connection.py).
    "kafka.protocol.api_header.RequestHeader": "get_response_class",
    # A decoder makes objects of that class, whatever other threads do (connection.py).
    "kafka.protocol.admin.DeleteRecordsResponse": "_struct",
    "kafka.protocol.admin.DeleteRecordsResponse._struct": "_data_class",
    # Ends of partitions as far as they may be read (admin.py).
    "kafka.protocol.consumer": "IsolationLevel",
    # Makes no topics by asking for them: the setting does not reach the requests (connection.py); what is known of topics
    # (group.py); a coordinator that has moved is found anew (admin.py).
    "kafka.cluster.ClusterMetadata": "config partitions_for_topic topic_id request_update refresh_metadata _coordinators",
    # An end without a word to the server (admin.py); questions from the I/O thread (admin.py).
    "kafka.KafkaAdminClient": "_manager _client _closed _async_list_partition_offsets _get_cluster_metadata",
    # What left, what is sent at once, what has ended (producer.py).
    "kafka.KafkaProducer": "_sender _accumulator _transaction_manager _closed",
    # Which batch an error is about, and whether it left (producer.py).
    "kafka.producer.sender.Sender": "wakeup force_close _complete_batch_with_exception",
    # A single message waits for no other (producer.py); which batches an error that ends the producer leaves unsent
    # (producer.py).
    "kafka.producer.record_accumulator.RecordAccumulator": (
        "flush_in_progress has_undrained begin_flush _flushes_in_progress abort_batches _incomplete"
    ),
    # Whether it left, and whose it is (producer.py).
    "kafka.producer.producer_batch.ProducerBatch": "drained produce_future",
    # Which batch a message is in (producer.py).
    "kafka.producer.future.FutureRecordMetadata": "_produce_future",
    # Whether a producer has ended (producer.py).
    "kafka.producer.transaction_manager.TransactionManager": "has_fatal_error",
    # A choice where there is none costs nothing (producer.py).
    "kafka.partitioner": "DefaultPartitioner",
    # Its parts, which run on our I/O thread (group.py).
    "kafka.KafkaConsumer": "_coordinator _fetcher _subscription _manager _client",
    # Partitions move one by one (group.py).
    "kafka.coordinator.assignors.cooperative_sticky": "CooperativeStickyAssignor",
    # A revocation waits for handlers (group.py).
    "kafka.consumer.subscription_state": "AsyncConsumerRebalanceListener",
    # Membership (group.py); commits with metadata, one at a time (group.py); partitions that were lost are not claimed
    # again (group.py); whether the group goes on without us (group.py).
    "kafka.coordinator.consumer.ConsumerCoordinator": (
        "ensure_coordinator_ready_async need_rejoin ensure_active_group_async poll_heartbeat "
        "fetch_committed_offsets_async _send_offset_commit_request _assignors _generation"
    ),
    "kafka.coordinator.base.Generation": "is_lost",
    # What is fetched, and from where (group.py).
    "kafka.consumer.subscription_state.SubscriptionState": "subscription assigned_partitions is_assigned seek pause resume",
    # Positions (group.py); fetches without a poll (fetches.py); what was fetched and not read: a partition that is paused
    # meanwhile would never give the rest (fetches.py).
    "kafka.consumer.fetcher.Fetcher": (
        "reset_offsets_if_needed maybe_validate_positions validate_offsets_if_needed PartitionRecords config "
        "fetched_records _send_fetches_async _fetch_futures _completed_fetches _paused_completed_fetches "
        "_paused_partition_records _next_partition_records"
    ),
    # One tuple a record, and what cannot be read stops nobody (fetched.py).
    "kafka.consumer.fetcher.Fetcher.PartitionRecords": (
        "topic_partition fetch_offset next_fetch_offset leader_epoch record_iterator records_read bytes_read check_crcs "
        "drain take aborted_producer_ids _maybe_skip_record _unpack_records _consume_aborted_transactions_up_to "
        "_contains_abort_marker _is_batch_aborted"
    ),
    # A batch, read in one pass (fetched.py); unpacked up to a bound (packed.py).
    "kafka.record.default_records.DefaultRecordBatch": (
        "base_offset last_offset next_offset first_timestamp max_timestamp timestamp_type records_count producer_id "
        "has_producer_id is_control_batch leader_epoch magic validate_crc size_in_bytes _buffer CODEC_NONE CODEC_GZIP "
        "CODEC_SNAPPY CODEC_LZ4 CODEC_ZSTD compression_type _pos _assert_has_codec"
    ),
}
