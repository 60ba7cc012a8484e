"""`narrowboat top`: queues and locks as they stand."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from cli_program import HANGS, command, finish

from narrowboat.cli import run
from narrowboat.cli.snapshot import Snapshot, lock_lines, queue_lines
from narrowboat.contract import Depth, Holder, Mode
from narrowboat.locking import Locks
from narrowboat.messaging import Messaging

QUEUE = {"in_flight": 0, "delayed": 0, "dead": 0, "oldest": None, "backlog_per_s": None, "dead_per_s": None}


def test_once_for_programs(url: str, broker: Messaging, locks: Locks, capsys: pytest.CaptureFixture[str]) -> None:
    """Queues and subscriptions, the fullest first; locks with holders and waiters."""
    broker.queue("a").publish(b"x")
    broker.topic("prices").subscription("g").declare()
    with locks.lock("invoice", label="box"):
        assert run(["top", url, "--once", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["queues"][0]["oldest"] > 0
    found["queues"][0]["oldest"] = None
    assert found["queues"] == [{"name": "a", "ready": 1, **QUEUE}, {"name": "prices.g", "ready": 0, **QUEUE}]
    (lock,) = found["locks"]
    assert 0 < lock.pop("expires_in") <= 30
    assert lock == {"name": "invoice", "holders": 1, "waiters": 0, "held_by": ["box"]}


def test_one_half_and_one_queue(url: str, broker: Messaging, capsys: pytest.CaptureFixture[str]) -> None:
    """The other half is null, and nothing else is counted."""
    broker.queue("a").declare()
    broker.queue("b").declare()

    assert run(["top", url, "--once", "--json", "--half", "messages", "--queue", "b"]) == 0
    assert json.loads(capsys.readouterr().out) == {"queues": [{"name": "b", "ready": 0, **QUEUE}], "locks": None}
    assert run(["top", url, "--once", "--json", "--half", "locks"]) == 0
    assert json.loads(capsys.readouterr().out) == {"queues": None, "locks": []}


def test_a_name_with_a_dot(url: str, broker: Messaging, capsys: pytest.CaptureFixture[str]) -> None:
    """Is a queue's or a subscription's, as the backend has it."""
    broker.queue("shop.orders").declare()
    broker.topic("prices").subscription("g").declare()
    look = ["top", url, "--once", "--json", "--half", "messages"]

    for names in (["--queue", "shop.orders", "--queue", "prices.g"], ["--queue", "shop.orders", "--subscription", "prices.g"]):
        assert run([*look, *names]) == 0
        found = json.loads(capsys.readouterr().out)["queues"]
        assert [each["name"] for each in found] == ["prices.g", "shop.orders"]


@pytest.mark.parametrize(
    ("names", "code", "said"),
    [
        (["--queue", "ordrs"], 1, "there is no queue 'ordrs'. Did you mean 'orders'?"),
        (["--queue", "orders", "--queue", "shop.nope"], 1, "there is no queue 'shop.nope' (see: narrowboat queues)"),
        (["--queue", "prices"], 2, "'prices' is a topic and cannot be a queue"),
        (["--subscription", "prices.gg"], 1, "there is no subscription 'gg' of 'prices'. Did you mean 'prices --group g'?"),
        (["--subscription", "prices"], 2, "expected TOPIC.GROUP, such as prices.dashboard"),
    ],
)
def test_a_mistyped_name(
    url: str, broker: Messaging, names: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Is not empty but missing, as `depth` has it."""
    broker.queue("orders").declare()
    broker.topic("prices").subscription("g").declare()

    assert run(["top", url, "--once", *names]) == code
    assert said in capsys.readouterr().err


def test_a_line_for_each_look(url: str, broker: Messaging) -> None:
    """The second says what has changed in a second. SIGTERM ends it with 0."""
    broker.queue("a").declare()
    process = command("top", url, "--json", "--interval", "0.1")
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    broker.queue("a").publish_many([b"x"] * 50)
    while not (line := json.loads(process.stdout.readline()))["queues"][0]["backlog_per_s"]:
        pass
    process.send_signal(signal.SIGTERM)
    code, _, complaint = finish(process)

    assert first["queues"][0]["backlog_per_s"] is None
    assert line["queues"][0]["backlog_per_s"] > 0
    assert (code, complaint) == (0, "")


def test_a_backend_that_goes_away_is_lines_with_its_error(url: str, broker: Messaging) -> None:
    """And it is watched again when it is back: whoever reads the lines knows that nothing was seen, and for how long."""
    pytest.importorskip("zmq")
    broker.queue("a").publish(b"x")
    server = command("serve", url, "--bind", "tcp://127.0.0.1:0", stdout=subprocess.DEVNULL)
    assert server.stderr is not None
    found = re.search(r"tcp://[\w.]+:\d+", server.stderr.readline())
    assert found is not None
    away = found[0].replace("tcp", "zmq")
    process = command("top", f"{away}?timeout=0.5", "--json", "--interval", "0.1")
    assert process.stdout is not None
    try:
        first = json.loads(process.stdout.readline())
        server.send_signal(signal.SIGSTOP)  # connections stay, and nothing answers
        while not (during := json.loads(process.stdout.readline()))["error"]:
            pass
        server.send_signal(signal.SIGCONT)
        while (after := json.loads(process.stdout.readline()))["error"]:
            pass
        process.send_signal(signal.SIGTERM)
        code = finish(process)[0]
    finally:
        process.kill()
        server.kill()
        finish(server)

    assert (code, first["error"], first["queues"][0]["ready"]) == (0, None, 1)
    assert (during["queues"], during["locks"]) == (None, None) and away in during["error"]
    assert after["queues"][0]["backlog_per_s"] == 0


def seen(url: str, wanted: Callable[[bytes], bool], **env: str) -> bytes:
    """What a terminal gets of `top` until that is there. Ctrl-C ends it with 0."""
    ours, theirs = pty.openpty()
    try:
        process = command("top", url, "--interval", "0.1", stdout=theirs, env={"COLUMNS": "100", "LINES": "30", **env})
        shown, ends = b"", time.monotonic() + HANGS
        while not wanted(shown):
            assert select.select([ours], [], [], max(0.0, ends - time.monotonic()))[0], shown
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        while process.poll() is None:  # what it writes at its end must be read, or it waits for us
            if select.select([ours], [], [], 0.05)[0]:
                os.read(ours, 65536)
        assert finish(process)[0] == 0
        return shown
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_live_table(url: str, broker: Messaging) -> None:
    """On a terminal it stays. Without one it wants to be told what to do."""
    broker.queue("orders").publish(b"x")
    code, _, complaint = finish(command("top", url))
    assert (code, "--once" in complaint) == (2, True)
    assert b"in flight" in seen(url, lambda shown: shown.count(b"orders") >= 3, TERM="xterm")


def test_a_terminal_that_cannot_go_back_gets_one_look_below_the_other(url: str, broker: Messaging) -> None:
    """Such as that of an editor, with TERM=dumb: without escapes, and not nothing."""
    broker.queue("orders").publish(b"x")
    assert b"\x1b" not in seen(url, lambda shown: shown.count(b"orders") >= 3, TERM="dumb")


def test_more_than_the_terminal_has_room_for(url: str, broker: Messaging, locks: Locks) -> None:
    """Many queues hide no lock, and how many rows are not shown is said."""
    for number in range(40):
        broker.queue(f"orders-{number}").declare()
    with locks.lock("invoice"):
        shown = seen(url, lambda shown: b"invoice" in shown, TERM="xterm")
    assert b" and 21 more" in shown


def test_what_cannot_be_listed_wants_names(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a connection: the claim says it."""
    monkeypatch.setenv("NARROWBOAT_BROKER_URL", "kafka://localhost:1")
    monkeypatch.delenv("NARROWBOAT_LOCKS_URL", raising=False)

    assert run(["top", "-", "--once"]) == 2
    assert "does not claim listing" in capsys.readouterr().err
    assert run(["queues", "-"]) == 2


def test_names_where_only_locks_are_watched_are_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Rather than left out: who asks for a queue would wait for it."""
    assert run(["top", url, "--once", "--half", "locks", "--queue", "orders"]) == 2
    assert "only locks are watched" in capsys.readouterr().err


def test_rates_are_changes_by_the_second() -> None:
    """Of what is not dead, and of what is. What was not there, or is not counted, has none."""
    first = Snapshot(10.0, {"a": Depth(4, 2, 0, 0), "b": Depth(1, None, None, 0)}, [])
    then = Snapshot(14.0, {"a": Depth(0, 2, 0, 2), "b": Depth(3, None, None, 0), "c": Depth(None, None, None, None)}, [])

    lines = {line.name: (line.backlog_per_s, line.dead_per_s) for line in queue_lines(then, first)}
    assert lines == {"a": (-1.0, 0.5), "b": (0.5, 0.0), "c": (None, None)}


def test_locks_are_gathered_by_name() -> None:
    """Those that most wait for come first."""

    def holder(name: str, token: int, expires: float | None, waiters: int | None) -> Holder:
        return Holder(name, token, f"box{token}", Mode.SHARED, None, 0.0, expires, waiters)

    lines = lock_lines(Snapshot(0.0, None, [holder("a", 1, 9.0, 0), holder("b", 2, None, 3), holder("b", 3, 5.0, 3)]))
    assert [(line.name, line.holders, line.waiters, line.held_by, line.expires_in) for line in lines] == [
        ("b", 2, 3, ("box2", "box3"), 5.0),
        ("a", 1, 0, ("box1",), 9.0),
    ]
