"""ZooKeeper and Consul: a program that has no descriptor or no thread left is told so, and that it may try again."""

import json
import subprocess
import sys
import textwrap

import pytest

#: Nobody listens at port 1, but whoever has no descriptor does not get so far.
URLS = {
    "zookeeper": "zookeeper://127.0.0.1:1?timeout=0.5&session_ttl=6&tick=0.5",
    "consul": "consul://127.0.0.1:1?timeout=0.5",
}

#: Calls each in turn what a lock has, and says what became of it.
CALLS = """
    import json, os, resource, sys, threading
    import narrowboat
    locks = narrowboat.locks(sys.argv[1])
    lock = locks.lock("a", ttl=30)
    {exhaust}
    found = []
    for call in (lock.try_acquire, lambda: lock.acquire(timeout=0.5), locks.holders, locks.ping, locks.close):
        try:
            call()
            found.append("done")
        except narrowboat.NarrowboatError as error:
            found.append(f"{{type(error).__name__}} {{error.retryable}} {{error}}")
        except BaseException as error:
            found.append(f"untyped {{error!r}}")
    {restore}
    print(json.dumps(found))
"""

NO_DESCRIPTORS = (
    "kept = resource.getrlimit(resource.RLIMIT_NOFILE); "
    "resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir('/proc/self/fd'))), kept[1]))",
    "resource.setrlimit(resource.RLIMIT_NOFILE, kept)",
)
NO_THREADS = (
    "start = threading.Thread.start; "
    'threading.Thread.start = lambda self: (_ for _ in ()).throw(RuntimeError("can\'t start new thread"))',
    "threading.Thread.start = start",
)


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
@pytest.mark.parametrize("scheme", URLS)
@pytest.mark.parametrize("exhausted", [NO_DESCRIPTORS, NO_THREADS], ids=["descriptors", "threads"])
def test_without_descriptors_or_threads_a_call_is_unavailable(scheme: str, exhausted: tuple[str, str]) -> None:
    """Typed, retryable; and closing does not fail."""
    code = textwrap.dedent(CALLS).format(exhaust=exhausted[0], restore=exhausted[1])
    done = subprocess.run([sys.executable, "-c", code, URLS[scheme]], capture_output=True, text=True, timeout=60, check=True)
    *calls, closed = json.loads(done.stdout)
    assert all(outcome.startswith("Unavailable True") for outcome in calls), calls
    assert closed == "done"
    assert "Traceback" not in done.stderr, done.stderr
