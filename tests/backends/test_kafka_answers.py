"""Kafka: the answers of a server are read by any number of threads, as when several brokers are opened at once."""

from __future__ import annotations

import subprocess
import sys

#: Four threads, each a broker's, meet the first answer of each kind and version at once. Prints the kinds that nobody can read
#: after that. The library keeps what it has made, so it is made to forget that.
_FIRST_ANSWERS = """
import gc, sys, threading, warnings
warnings.simplefilter("ignore")
from kafka.protocol.api_header import RequestHeader, ResponseClassRegistry
from narrowboat_kafka.library.connection import _class_of

sys.setswitchinterval(1e-6)
known = {key: found[None] for key, found in ResponseClassRegistry._response_class_registry.items()}

def read(header, start):
    start.wait()
    try:
        _class_of(header)
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
