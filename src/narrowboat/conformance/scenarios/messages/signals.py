"""B124 and B125: a signal ends every `run` of a process, and the handlers that were installed before stay as they were."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.message_kit import MessageKit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.opening import opened


def _run(link: Link, url: str, name: str) -> None:
    """A run of the sync face. Tells of its first message and of its end."""
    with opened(url) as broker:
        broker.queue(name).run(lambda message: link.tell(f"at work {name}"), grace=20)
    link.tell(f"ended {name}")


async def _arun(link: Link, url: str, *names: str) -> None:
    """Runs of one event loop, which tell the same."""

    async def run(broker: Any, name: str) -> None:
        async def handle(message: Any) -> None:
            link.tell(f"at work {name}")

        await broker.queue(name).run(handle, grace=20)
        link.tell(f"ended {name}")

    async with opened(url, "asyncio") as broker:
        await asyncio.gather(*(run(broker, name) for name in names))


def runs_everywhere(link: Link, url: str, face: str) -> None:
    """A child: a run in a thread, two on an event loop in another thread, and in the main thread runs of `face`."""
    others = [
        threading.Thread(target=_run, args=(link, url, "in-a-thread")),
        threading.Thread(target=lambda: asyncio.run(_arun(link, url, "on-a-loop", "beside-it"))),
    ]
    for each in others:
        each.start()
    if face == "sync":
        _run(link, url, "main")
    else:
        asyncio.run(_arun(link, url, "main", "with-main"))
    for each in others:
        each.join()


@scenario("B124", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def one_signal_ends_all_runs(kit: MessageKit) -> None:
    """One SIGTERM ends every run of the process in good order: in the main thread, in others, on their event loops."""
    names = ["in-a-thread", "on-a-loop", "beside-it", "main", *(["with-main"] if kit.face == "asyncio" else [])]
    broker = kit.broker()
    for name in names:
        await broker.queue(name).publish(b"x")
    child = await kit.child(runs_everywhere, url=kit.broker_url, face=kit.face)
    for name in names:
        await child.event(f"at work {name}")
    child.terminate()
    for name in names:
        await child.event(f"ended {name}")
    assert await child.exit() == 0
    for name in names:
        await kit.depth_is(broker.queue(name), ready=0, in_flight=0, dead=0)


def runs_in_anothers_process(link: Link, url: str, face: str) -> None:
    """A child with a SIGTERM handler of its own: a run that ends by itself, then one that SIGTERM ends. Tells of both."""

    def theirs(number: int, frame: object) -> None:
        link.tell("theirs")

    signal.signal(signal.SIGTERM, theirs)
    if face == "sync":
        with opened(url) as broker:
            first, second = broker.queue("first"), broker.queue("second")
            first.run(lambda message: first.stop())
            _is_theirs(link, theirs)
            second.run(lambda message: link.tell("at work"))
            _is_theirs(link, theirs)
    else:
        asyncio.run(_on_anothers_loop(link, url, theirs))
        _is_theirs(link, theirs)


async def _on_anothers_loop(link: Link, url: str, theirs: object) -> None:
    loop, hung_up = asyncio.get_running_loop(), asyncio.Event()
    async with opened(url, "asyncio") as broker:
        first, second = broker.queue("first"), broker.queue("second")

        async def stop(message: Any) -> None:
            first.stop()

        async def work(message: Any) -> None:
            link.tell("at work")

        await first.run(stop)
        _is_theirs(link, theirs)
        await second.run(work)
        loop.add_signal_handler(signal.SIGTERM, hung_up.set)
        before = signal.getsignal(signal.SIGTERM)
        await first.run(stop)
        assert signal.getsignal(signal.SIGTERM) is before
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(hung_up.wait(), 10)  # the loop's own handler is called as before
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, theirs)  # type: ignore[arg-type]  # a handler


def _is_theirs(link: Link, theirs: object) -> None:
    link.tell("put back", exactly=signal.getsignal(signal.SIGTERM) is theirs)


@scenario("B125", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def what_was_there_is_called_and_put_back(kit: MessageKit) -> None:
    """A handler that was installed before is told of the signal that ends a run, and is installed again afterwards."""
    broker = kit.broker()
    await broker.queue("first").publish_many([b"x"] * (1 if kit.face == "sync" else 2))
    await broker.queue("second").publish(b"x")
    child = await kit.child(runs_in_anothers_process, url=kit.broker_url, face=kit.face)
    assert (await child.event("put back"))["exactly"], "a run that ended by itself left its own handler behind"
    await child.event("at work")
    child.terminate()
    await child.event("theirs")
    assert (await child.event("put back"))["exactly"], "a run that SIGTERM ended left its own handler behind"
    assert await child.exit() == 0
