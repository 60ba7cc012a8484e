"""What is used wrongly, says what to do; what cannot be done twice or elsewhere, is refused in one way."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Never

import pytest

import narrowboat
from narrowboat import codecs, events
from narrowboat._messages.delivery import Dead
from narrowboat.contract.messages import Feed, Received, Reject
from narrowboat.errors import Closed, InvalidArgument, StaleDelivery, Unavailable
from narrowboat.layers.faults import Faults, Gate
from narrowboat.layers.passing import PassingBroker, PassingFeed
from narrowboat.messaging import Messaging


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def broker(url: str) -> Iterator[Messaging]:
    with narrowboat.broker(url) as broker:
        yield broker


def test_nothing_that_is_held_is_copied(broker: Messaging) -> None:
    """A clear refusal, and no half-built object whose repr raises."""
    queue = broker.queue("q")
    queue.publish_many([b"1", b"2"])
    with queue.consume() as messages, narrowboat.locks(f"memory://{uuid.uuid4().hex}") as locks:
        batch = next(messages.batches(2, wait=0))
        held = [broker, queue, broker.topic("t"), messages, batch, batch[0], locks, locks.lock("n"), locks.all("a", "b")]
        for each in held:
            for how in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="copied or pickled"):
                    how(each)


def test_the_wrong_kind_of_with_says_which_is_right(url: str) -> None:
    """Each face names the other's `with`."""
    for made in (narrowboat.aio.broker(url), narrowboat.aio.locks(url), narrowboat.aio.broker(url).queue("q").consume()):
        with pytest.raises(TypeError, match="use `async with`"), made:
            pass
    with pytest.raises(TypeError, match="use `async with`"), narrowboat.aio.locks(url).lock("n"):
        pass

    async def enter(made: Any) -> None:
        async with made:
            pass

    for other in (narrowboat.broker(url), narrowboat.locks(url), narrowboat.locks(url).lock("n")):
        with pytest.raises(TypeError, match="use `with`"):
            asyncio.run(enter(other))


def test_one_message_is_not_many(broker: Messaging) -> None:
    """A text is a sequence of texts, which is never what was meant."""
    for given in ("abc", b"abc", {"a": 1}):
        with pytest.raises(InvalidArgument, match="publish_many takes a list"):
            broker.queue("q", codec=codecs.TEXT).publish_many(given)  # type: ignore[arg-type]  # that is what is refused


def test_what_publish_many_takes_may_come_from_another_queue(url: str) -> None:
    """It is drawn before the call begins, as a codec is asked before `publish` does: both may make calls of their own."""
    with narrowboat.broker(url) as broker:
        source, target = broker.queue("from"), broker.queue("to")
        source.publish_many([b"1", b"2"])
        with source.consume(idle=0) as messages:
            outcomes = target.publish_many(message.body for message in messages)
        assert [type(outcome) for outcome in outcomes] == [narrowboat.Receipt] * 2
        assert target.depth().ready == 2


@pytest.mark.parametrize("make", [narrowboat.broker, narrowboat.locks, narrowboat.aio.broker, narrowboat.aio.locks])
@pytest.mark.parametrize("arguments", [{"listeners": print}, {"listeners": 42}, {"listeners": [42]}, {"clock": 42}])
def test_arguments_of_the_wrong_kind_are_named(make: Callable[..., object], arguments: dict[str, Any], url: str) -> None:
    """Also those that only tests give."""
    with pytest.raises(InvalidArgument, match=next(iter(arguments))):
        make(url, **arguments)


def test_the_bound_of_a_delay_is_told_in_full(broker: Messaging) -> None:
    """Whoever asks for a second too much must see the difference."""
    queue = broker.queue("q")
    most = broker.capabilities.delay_max
    for delay in (most + 1, 1e9, 1e12):
        with pytest.raises(InvalidArgument, match=f"{delay:.15g}.*{most:.15g}"):
            queue.publish(b"x", delay=delay)
    with pytest.raises(InvalidArgument, match="up to 315360000"):
        queue.publish(b"x", ttl=1e12)


def test_a_topic_names_what_has_consume(broker: Messaging) -> None:
    """Who consumes from a topic forgot the group."""
    for topic in (broker.topic("prices"), narrowboat.aio.broker("memory://hint").topic("prices")):
        with pytest.raises(AttributeError, match=r"subscription\('group'\)"):
            topic.consume()
        with pytest.raises(AttributeError, match="no attribute 'nonsense'$"):
            topic.nonsense  # noqa: B018  # the look is what is tested


class Unspeakable(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize("face", ["sync", "asyncio"])
def test_a_handler_may_raise_what_cannot_be_shown(face: str, url: str) -> None:
    """It is a failure like any other: nacked, and dead with its type at the last delivery."""
    told = []

    def failed(event: events.Event) -> None:
        if isinstance(event, events.DeadLettered):
            told.append(event.reason)
            stop()

    stop: Callable[[], None] = lambda: None  # noqa: E731
    if face == "sync":
        with narrowboat.broker(url, listeners=[failed]) as broker:
            queue = broker.queue("q", max_deliveries=1)
            queue.publish(b"x")
            stop = queue.stop

            def handle(message: narrowboat.Message[bytes]) -> Never:
                raise Unspeakable

            queue.run(handle)
    else:

        async def main() -> None:
            nonlocal stop
            async with narrowboat.aio.broker(url, listeners=[failed]) as broker:
                queue = broker.queue("q", max_deliveries=1)
                await queue.publish(b"x")
                stop = queue.stop

                async def handle(message: narrowboat.aio.Message[bytes]) -> Never:
                    raise Unspeakable

                await queue.run(handle)

        asyncio.run(main())
    assert told == ["Unspeakable: its text cannot be had"]


def test_what_is_settled_after_its_consumer_has_closed_is_stale(broker: Messaging) -> None:
    """On every backend, whichever error its driver has for it."""
    queue = broker.queue("q")
    queue.publish(b"x")
    with queue.consume() as messages:
        message = messages.receive(5)
    for settle in (lambda: message.ack(wait=False), message.ack, message.nack, lambda: message.extend(5)):
        with pytest.raises(StaleDelivery, match="its lease ended"):
            settle()
    assert message.lost and queue.depth().ready == 1


def test_what_is_settled_after_its_broker_has_closed_is_refused(url: str) -> None:
    """Also where the caller does not wait for the answer: nothing can come of it."""
    with narrowboat.broker(url) as broker:
        queue = broker.queue("q")
        queue.publish(b"x")
        message = queue.consume().receive(5)
    for settle in (lambda: message.ack(wait=False), message.ack, message.nack):
        with pytest.raises(Closed):
            settle()


@pytest.mark.parametrize("wait", [True, False])
def test_a_forked_childs_settlement_is_closed(broker: Messaging, wait: bool) -> None:
    """The message is the parent's, and stays so."""
    queue = broker.queue("q")
    queue.publish(b"x")
    with queue.consume() as messages:
        message = messages.receive(5)
        ready, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                message.ack(wait=wait)
                os.write(tell, b"done")
            except BaseException as error:
                os.write(tell, type(error).__name__.encode())
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(ready, 100).decode() == Closed.__name__
        message.ack()


def test_absurd_numbers_of_others_are_no_error(url: str) -> None:
    """Whoever looks at a dead letter that another program wrote sees what can be seen."""

    class Absurd(PassingBroker):
        def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
            return AbsurdFeed(inner)

    class AbsurdFeed(PassingFeed):
        def receive(self, limit: int) -> Received:
            received = self.inner.receive(limit)
            headers = {"narrowboat-dead-reason": "why", "narrowboat-dead-attempts": "9" * 5000}
            return received._replace(deliveries=[each._replace(headers=headers) for each in received.deliveries])

    with narrowboat.broker(url, wrap=Absurd) as broker:
        broker.queue("q").publish(b"x")
        with broker.queue("q").consume() as messages:
            assert messages.receive(5).dead == Dead("why", 0, "")


def test_what_was_fetched_and_not_started_goes_back_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a clean end counts it: a message must not wait for the lease of somebody who has left."""
    import dataclasses

    import narrowboat_memory
    from narrowboat import registry
    from narrowboat.capabilities import Support

    plain = narrowboat_memory.broker
    absent = dataclasses.replace(
        plain,
        capabilities=lambda url, options: dataclasses.replace(
            plain.capabilities(url, options), uncounted_release=Support.ABSENT
        ),
    )
    monkeypatch.setitem(registry._loaded, (registry.BROKERS, "memory"), absent)
    with narrowboat.broker(url) as broker:
        queue = broker.queue("q", lease=3600)
        queue.publish_many([b"x"] * 5)
        depths = []

        def handle(message: narrowboat.Message[bytes]) -> None:
            queue.stop()
            ends = broker._core.clock() + 10
            while (depth := queue.depth()).ready < 4 and broker._core.clock() < ends:  # type: ignore[operator]  # a number
                pass
            depths.append(depth.ready)

        queue.run(handle)
        assert depths == [4]


def test_run_bounds_what_it_keeps_and_fetches(broker: Messaging) -> None:
    """`max_extend` and `prefetch` of `run` are those of `consume`."""
    queue = broker.queue("q")
    for arguments in ({"max_extend": -1}, {"prefetch": 0}):
        with pytest.raises(InvalidArgument, match=next(iter(arguments))):
            queue.run(print, **arguments)  # type: ignore[arg-type]  # options by name
    queue.publish_many([b"x"] * 5)
    seen = []

    def handle(message: narrowboat.Message[bytes]) -> None:
        seen.append((message._consumer.max_extend, queue.depth().in_flight))
        queue.stop()

    queue.run(handle, max_extend=7, prefetch=2)
    assert seen == [(7.0, 2)]


class Away(PassingBroker):
    """A backend that is away when its consumers are closed."""

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        return AwayFeed(inner)


class AwayFeed(PassingFeed):
    def close(self) -> Never:
        self.inner.close()
        raise Unavailable("no server there")


@pytest.mark.parametrize("face", ["sync", "asyncio"])
def test_a_run_that_is_stopped_during_an_outage_ends_in_good_order(
    face: str, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It has drained; that its consumer could not be closed is a warning and no crash."""

    if face == "sync":
        with narrowboat.broker(url, wrap=Away) as broker:
            queue = broker.queue("q")
            queue.publish(b"x")
            queue.run(lambda message: queue.stop())
    else:

        async def main() -> None:
            async with narrowboat.aio.broker(url, wrap=Away) as broker:
                queue = broker.queue("q")
                await queue.publish(b"x")

                async def handle(message: narrowboat.aio.Message[bytes]) -> None:
                    queue.stop()

                await queue.run(handle)

        asyncio.run(main())
    assert "could not be closed (no server there)" in caplog.text


@pytest.mark.parametrize("face", ["sync", "aio"])
@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
def test_what_ends_a_run_during_an_outage_reaches_its_caller(face: str, end: type[BaseException], url: str) -> None:
    """That its consumer could not be closed as well hides neither Ctrl-C nor what a handler raised."""

    def struck() -> None:
        if end is SystemExit:
            raise SystemExit(3)
        os.kill(os.getpid(), signal.SIGINT)

    async def main() -> None:
        async with narrowboat.aio.broker(url, wrap=Away) as broker:
            queue = broker.queue("q")
            await queue.publish(b"x")

            async def handle(message: narrowboat.aio.Message[bytes]) -> None:
                struck()

            await queue.run(handle)

    with pytest.raises(end):
        if face == "aio":
            asyncio.run(main())
        with narrowboat.broker(url, wrap=Away) as broker:
            queue = broker.queue("q")
            queue.publish(b"x")
            queue.run(lambda message: struck())


def test_a_close_that_outlives_its_loop_ends_in_silence(url: str) -> None:
    """Ctrl-C may end the loop while the broker is being closed on its thread."""
    faults = Faults()
    loop = asyncio.new_event_loop()

    async def begin() -> tuple[Gate, asyncio.Task[narrowboat.Receipt], asyncio.Task[None]]:
        broker = narrowboat.aio.broker(url, wrap=faults.wrap)
        queue = broker.queue("q")
        gate = faults.hold("send")
        publishing = asyncio.create_task(queue.publish(b"x"))
        while not gate.reached.is_set():
            await asyncio.sleep(0.001)
        closing = asyncio.create_task(broker.close())
        await asyncio.sleep(0.05)
        return gate, publishing, closing

    gate, *tasks = loop.run_until_complete(begin())
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()
    complaints: list[threading.ExceptHookArgs] = []
    hook, threading.excepthook = threading.excepthook, complaints.append
    try:
        gate.open()
        for thread in threading.enumerate():
            if thread.name == "narrowboat-close":
                thread.join(10)
    finally:
        threading.excepthook = hook
    assert not complaints


def test_a_reason_is_told_with_what_was_wrong_with_the_message() -> None:
    """Whoever reads the dead letters later sees why its envelope could not be read."""
    from narrowboat._messages.delivery import too_often

    assert too_often(3, 2, "cut off\nat byte 7") == Reject("delivered 2 times without being settled; cut off at byte 7", 2)


@pytest.mark.parametrize("face", [narrowboat, narrowboat.aio])
def test_a_lock_says_who_has_what_others_have_on_theirs(face: ModuleType, url: str) -> None:
    """Other libraries release the lock itself; here one object may be held by many threads."""
    lock = face.locks(url).lock("n")
    with pytest.raises(AttributeError, match=r"held\.release\(\)"):
        lock.release()
    with pytest.raises(AttributeError, match="try_acquire"):
        lock.locked()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'$"):
        lock.nonsense  # noqa: B018
    assert not hasattr(lock, "release")
