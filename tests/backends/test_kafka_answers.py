"""Kafka: the answers of a server are read by any number of threads, as when several brokers are opened at once."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from typing import Any

import pytest

with warnings.catch_warnings():
    # kafka-python reads its schemas in a way that Python 3.11 calls deprecated; not ours to mend, and an error here.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.protocol.admin import DeleteRecordsResponse
    from kafka.protocol.api_header import RequestHeader

    from narrowboat_kafka.library import answers
    from narrowboat_kafka.library.answers import in_turn

#: Four threads, each a broker's, meet the first answer of each kind and version at once. Prints the kinds that nobody can read
#: after that. The library keeps what it has made, so it is made to forget that.
_FIRST_ANSWERS = """
import gc, sys, threading, warnings
warnings.simplefilter("ignore")
from kafka.protocol.api_header import RequestHeader, ResponseClassRegistry
from narrowboat_kafka.library.answers import in_turn

sys.setswitchinterval(1e-6)
known = {key: found[None] for key, found in ResponseClassRegistry._response_class_registry.items()}

def read(header, start):
    start.wait()
    try:
        in_turn(b"", RequestHeader.get_response_class, header)
    except ReferenceError:
        pass

lost = set()
for _ in range(4):
    for key, kind in known.items():
        kind._VERSIONS.clear()
        for version in range(kind.max_version + 1):
            header = RequestHeader(request_api_key=key, request_api_version=version, correlation_id=1, client_id="x")
            start = threading.Barrier(4)
            threads = [threading.Thread(target=read, args=(header, start)) for _ in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
    gc.collect()
    for key in known:
        try:
            ResponseClassRegistry._response_class_registry[key].max_version
        except ReferenceError:
            lost.add(key)
print(len(known), sorted(lost))
"""


def test_threads_that_meet_the_first_answer_of_a_kind_together_can_read_the_next() -> None:
    done = subprocess.run([sys.executable, "-c", _FIRST_ANSWERS], capture_output=True, text=True, timeout=240, check=False)

    assert done.returncode == 0, done.stderr
    count, _, lost = done.stdout.strip().partition(" ")
    assert int(count) > 30
    assert lost == "[]", f"the answers to {lost} can be read no more"


class _Seen:
    """A lock that tells when somebody has to wait for it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.awaited = threading.Event()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.awaited.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_two_versions_of_an_answer_that_are_met_together_can_both_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second thread comes while the first one is in the middle of making its decoder, and waits for it."""
    struct = DeleteRecordsResponse._struct
    emit = struct.emit_decode_from
    lock, first_is_in = _Seen(), threading.Event()
    monkeypatch.setattr(answers, "_first", lock)
    monkeypatch.setattr(answers, "_known", known := set[bytes]())

    def held_up(*arguments: Any, version: int, **named: Any) -> None:
        first_is_in.set()
        assert lock.awaited.wait(30)
        emit(*arguments, version=version, **named)

    found: dict[int, Any] = {}

    def read(version: int) -> None:
        def decode(sent: bytes) -> None:
            header = RequestHeader(request_api_key=21, request_api_version=version, correlation_id=1, client_id="x")
            found[version] = header.get_response_class().decode(sent).throttle_time_ms

        in_turn(b"%d" % version, decode, DeleteRecordsResponse(version=version, throttle_time_ms=7).encode(version=version))

    struct._compiled_encoders.clear()
    struct.emit_decode_from = held_up
    try:
        first, second = (threading.Thread(target=read, args=(version,)) for version in (0, 1))
        first.start()
        assert first_is_in.wait(30)
        second.start()
        first.join()
        second.join()
    finally:
        del struct.emit_decode_from
        struct._compiled_encoders.clear()  # a broken one would be used for as long as the process lives
    assert found == {0: 7, 1: 7}
    assert known == {b"0", b"1"}
