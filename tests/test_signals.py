"""SIGTERM and SIGINT: every run of the process ends, and what was there before is called and put back."""

import math
import signal
import subprocess
import sys
import textwrap
import threading
import uuid

import pytest

import narrowboat
from narrowboat._engine.signals import REGISTRY, Registry, Signals

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGTERM") or sys.platform == "win32", reason="POSIX signals")

PREAMBLE = """
import asyncio, os, signal, sys, threading, time
import narrowboat
from narrowboat import aio

def print(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # in one piece, whichever thread prints

def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)

"""


def program(text: str) -> tuple[int, list[str], str]:
    """Run it in a process of its own: exit code, what it printed, what it complained of."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(text)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout.split(), done.stderr


ALL = """
broker = narrowboat.broker("memory://all")
started = threading.Semaphore(0)
def handle(message):
    started.release()
async def ahandle(message):
    started.release()
def sync(name):
    broker.queue(name).run(handle)
    print(name)
async def one(name):
    async with aio.broker("memory://all") as other:
        await other.queue(name).run(ahandle)
    print(name)
async def both(*names):
    await asyncio.gather(*(one(name) for name in names))
def loop(*names):
    asyncio.run(both(*names))
def shoot(count, number):
    for _ in range(count):
        started.acquire()
    send(number)
names = ["main1", "main2", "thread1", "loop1", "loop2"]
for name in names:
    broker.queue(name).publish(b"x")
others = [threading.Thread(target=sync, args=["thread1"]), threading.Thread(target=loop, args=["loop1", "loop2"])]
for each in others:
    each.start()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_ends_all_runs_when_the_main_thread_runs_a_loop(number: signal.Signals) -> None:
    """Two runs on the main loop, one in a thread, two on a loop in another thread."""
    code, out, complaints = program(
        ALL
        + f"""
threading.Thread(target=shoot, args=[5, {int(number)}]).start()
try:
    loop("main1", "main2")
except KeyboardInterrupt:
    print("interrupted")
for each in others:
    each.join()
"""
    )
    # On Ctrl-C the main task is cancelled when all have drained: who waits for them may be interrupted before it prints.
    last = {"interrupted"} if number == signal.SIGINT else {"main1", "main2"}
    assert set(out) - {"main1", "main2"} | last == {"thread1", "loop1", "loop2", *last}, (out, complaints)
    assert last <= set(out) and code == 0 and not complaints, (out, complaints)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_ends_all_runs_when_the_main_thread_runs_a_queue(number: signal.Signals) -> None:
    """A plain run in the main thread, others in threads and on a loop."""
    code, out, complaints = program(
        ALL
        + f"""
threading.Thread(target=shoot, args=[4, {int(number)}]).start()
try:
    sync("main1")
except KeyboardInterrupt:
    print("interrupted")
for each in others:
    each.join()
"""
    )
    last = "interrupted" if number == signal.SIGINT else "main1"
    assert set(out) == {"thread1", "loop1", "loop2", last} and code == 0, (out, complaints)


def test_a_loops_own_handler_is_called_and_stays() -> None:
    """What `loop.add_signal_handler` installed is called by the signal that ends the run, and by the next one."""
    code, out, complaints = program(
        """
async def main():
    loop, called, twice = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, lambda: (twice if called.is_set() else called).set())
    async with aio.broker("memory://sig") as broker:
        queue = broker.queue("q")
        async def handle(message):
            send()
        await queue.publish(b"1")
        await queue.run(handle)
        await asyncio.wait_for(called.wait(), 10)
        print("called")
        send()
        await asyncio.wait_for(twice.wait(), 10)
        print("twice")
asyncio.run(main())
"""
    )
    assert (code, out) == (0, ["called", "twice"]), complaints


@pytest.mark.parametrize("face", ["sync", "asyncio"])
def test_a_handler_that_was_there_is_called_and_put_back_exactly(face: str) -> None:
    """A server's own handler hears of each signal; afterwards it is installed again, that object and no other."""
    code, out, complaints = program(
        f"""
def mine(number, frame):
    print("mine")
signal.signal(signal.SIGTERM, mine)
def handle(message):
    send()
async def ahandle(message):
    send()
async def main():
    async with aio.broker("memory://sig") as broker:
        await broker.queue("q").publish(b"1")
        await broker.queue("q").run(ahandle)
if {face!r} == "sync":
    with narrowboat.broker("memory://sig") as broker:
        broker.queue("q").publish(b"1")
        broker.queue("q").run(handle)
else:
    asyncio.run(main())
assert signal.getsignal(signal.SIGTERM) is mine
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
send()
"""
    )
    assert (code, out) == (0, ["mine", "mine"]), complaints


def test_what_a_handler_raises_waits_for_the_drain() -> None:
    """`sys.exit` in a SIGTERM handler ends the program, after the run's handlers have finished."""
    code, out, complaints = program(
        """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
def handle(message):
    send()
    time.sleep(0.3)
    print("finished")
broker = narrowboat.broker("memory://sig")
broker.queue("q").publish(b"1")
broker.queue("q").run(handle)
print("never")
"""
    )
    assert (code, out) == (7, ["finished"]), complaints


@pytest.mark.parametrize("face", ["sync", "asyncio"])
def test_a_second_interrupt_does_not_wait(face: str) -> None:
    """A handler that hangs keeps nobody after the second Ctrl-C, and its message goes back."""
    code, out, complaints = program(
        f"""
def handle(message):
    send(signal.SIGINT); time.sleep(0.3); send(signal.SIGINT); time.sleep(60)
async def ahandle(message):
    send(signal.SIGINT); await asyncio.sleep(0.3); send(signal.SIGINT); await asyncio.sleep(60)
async def main():
    async with aio.broker("memory://sig") as broker:
        await broker.queue("q").publish(b"1")
        await broker.queue("q").run(ahandle)
try:
    if {face!r} == "sync":
        broker = narrowboat.broker("memory://sig")
        broker.queue("q").publish(b"1")
        broker.queue("q").run(handle)
    else:
        asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", narrowboat.broker("memory://sig").queue("q").depth().in_flight)
"""
    )
    assert (code, out, complaints) == (0, ["interrupted", "0"], "")


@pytest.mark.parametrize("where", ["main", "thread", "loop"])
def test_a_second_sigterm_does_not_wait(where: str) -> None:
    """Handlers that hang keep no run after the second signal, and their messages go back."""
    code, out, complaints = program(
        f"""
broker = narrowboat.broker("memory://sig")
begun, heard = threading.Semaphore(0), threading.Event()
def handle(message):
    begun.release(); time.sleep(600)
async def ahandle(message):
    begun.release(); await asyncio.sleep(600)
async def main():
    async with aio.broker("memory://sig") as other:
        await other.queue("q").run(ahandle, grace=600)
def shoot():
    for _ in range(2 if {where!r} == "thread" else 1):
        begun.acquire()
    send(); heard.wait(); send()  # two at once are one to the system
signal.signal(signal.SIGTERM, lambda number, frame: heard.set())
broker.queue("q").publish(b"1")
broker.queue("other").publish(b"2")
threading.Thread(target=shoot, daemon=True).start()
if {where!r} == "loop":
    asyncio.run(main())
elif {where!r} == "main":
    broker.queue("q").run(handle, grace=600)
else:
    thread = threading.Thread(target=broker.queue("q").run, args=[handle], kwargs={{"grace": 600}})
    thread.start()
    broker.queue("other").run(handle, grace=600)
    thread.join(30)
    assert not thread.is_alive()
print("ended", narrowboat.broker("memory://sig").queue("q").depth())
os._exit(0)
"""
    )
    assert (code, out[:3], complaints) == (0, ["ended", "Depth(ready=1,", "in_flight=0,"], "")


def test_an_older_handler_of_ours_does_not_tell_the_runs_twice() -> None:
    """Others put it back late, and a new run found it: one signal is the first one still, and the user's handler is called."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        registry, run = Registry(), Stopped()
        registry.join(Stopped())
        ours = signal.getsignal(signal.SIGTERM)
        registry.forked()
        signal.signal(signal.SIGTERM, ours)
        registry.join(run)
        signal.raise_signal(signal.SIGTERM)
        registry.leave(run)
        assert (run.stops, heard) == (1, [signal.SIGTERM])
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_forked_child_is_not_deaf() -> None:
    """In a child that is forked while runs are under way, SIGTERM does what it does without them."""
    code, out, complaints = program(
        """
def handle(message):
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(tell, b"x")  # what strikes in the middle of a fork is dropped by the interpreter
        for _ in range(600):
            time.sleep(0.1)  # what strikes just before a sleep is seen after it
        os._exit(0)
    os.read(ready, 1)
    os.kill(pid, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    send()
broker = narrowboat.broker("memory://sig")
broker.queue("q").publish(b"1")
broker.queue("q").run(handle)
"""
    )
    assert (code, out) == (0, [str(-signal.SIGTERM)]), complaints


def test_a_handler_of_ours_that_others_put_back_late_does_what_was_there() -> None:
    """A server that was started after the run, and ends after it, gives back what it found: ours, whose run is over."""
    code, out, complaints = program(
        """
from narrowboat._engine.signals import Signals
class Run:
    def stop(self):
        print("stopped")
def theirs(number, frame):
    pass
with Signals(Run()):
    found = signal.signal(signal.SIGTERM, theirs)
assert signal.getsignal(signal.SIGTERM) is theirs
signal.signal(signal.SIGTERM, found)
print("before")
send()
print("never")
"""
    )
    assert (code, out) == (-signal.SIGTERM, ["before"]), complaints


class Stopped:
    """A run that counts."""

    def __init__(self) -> None:
        self.stops: float = 0

    def stop(self) -> None:
        self.stops += 1

    def hurry(self) -> None:
        self.stops = math.inf


def test_runs_come_and_go_in_any_order() -> None:
    """The handlers stay until the last run of the main thread has left, whatever order they leave in."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    registry, runs = Registry(), [Stopped() for _ in range(3)]
    for each in runs:
        registry.join(each)
    for each in (runs[0], runs[2]):
        registry.leave(each)
        signal.raise_signal(signal.SIGTERM)
    registry.leave(runs[1])

    assert [each.stops for each in runs] == [0, math.inf, 1]  # the second signal hurries those that were told before
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_what_is_ignored_stays_ignored() -> None:
    """Under nohup, for example."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Signals(Stopped()) as _:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_in_a_thread_touches_no_handler() -> None:
    """It may not, and it need not: one in the main thread ends it as well."""
    url = f"memory://{uuid.uuid4().hex}"
    with narrowboat.broker(url) as broker:
        queue = broker.queue("q")
        thread = threading.Thread(target=queue.run, args=[lambda message: None], daemon=True)
        before = signal.getsignal(signal.SIGTERM)
        thread.start()
        while not REGISTRY._runs:
            pass
        assert signal.getsignal(signal.SIGTERM) is before
        queue.stop()
        thread.join(10)
        assert not thread.is_alive() and not REGISTRY._runs
