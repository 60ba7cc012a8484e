"""`narrowboat run`: a module's worker as a process, and what is said where there is none."""

from __future__ import annotations

import signal
import socket
import sys
import urllib.request
from pathlib import Path

import pytest
from cli_program import command, finish

from narrowboat.cli.app import run
from narrowboat.contract import Depth
from narrowboat.messaging import Messaging

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

MODULE = """
import os
import narrowboat
from narrowboat import aio

worker, on_asyncio = narrowboat.Worker(), aio.Worker()
empty = narrowboat.Worker()
number = 5

def say(text):
    os.write(1, f"{text}\\n".encode())

@worker.queue("orders")
def ship(message):
    say(f"ship {message.body.decode()}")

@worker.queue("bills")
def bill(message):
    say(f"bill {message.body.decode()}")

@on_asyncio.queue("orders")
async def aship(message):
    say(f"aship {message.body.decode()}")
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "__init__.py").touch()
    (folder / "shop" / "worker.py").write_text(MODULE)
    (folder / "broken.py").write_text("import narrowboat\nnarrowboat.Worker().queue('a')(5)\n")
    (folder / "needs.py").write_text("import nothing_of_this_name\n")
    return folder


@pytest.mark.parametrize(("target", "name"), [("shop.worker:worker", "ship"), ("shop.worker:on_asyncio", "aship")])
def test_it_runs_until_sigterm(shop: Path, url: str, broker: Messaging, target: str, name: str) -> None:
    """Of either face, by a module of this folder; URLs come from the environment, and the exit code is 0."""
    broker.queue("orders").publish(b"1")
    process = command("run", target, "--only", "orders", cwd=shop, env={"NARROWBOAT_BROKER_URL": url})
    assert process.stdout is not None and process.stdout.readline() == f"{name} 1\n"
    process.send_signal(signal.SIGTERM)
    told = f"""narrowboat: the worker starts: {name} for 'orders'
narrowboat: the worker drains: what runs may finish for 30 s, and a second signal ends that
narrowboat: the worker has stopped
"""
    assert finish(process, 60) == (0, "", told)
    assert broker.queue("orders").depth() == Depth(0, 0, 0, 0)


def test_ctrl_c_is_130(shop: Path, url: str, broker: Messaging) -> None:
    """As with every command; it has drained. With --quiet nothing is told of that."""
    broker.queue("orders").publish(b"1")
    process = command("run", "shop.worker:worker", "--quiet", cwd=shop, env={"NARROWBOAT_BROKER_URL": url})
    assert process.stdout is not None and process.stdout.readline() == "ship 1\n"
    process.send_signal(signal.SIGINT)
    code, out, complaint = finish(process, 60)
    assert (code, out, complaint.strip()) == (130, "", "")  # click ends the line of the ^C


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["shop.worker"], "'shop.worker': expected MODULE:ATTRIBUTE, such as shop.worker:worker"),
        (["shop.wroker:worker"], "'shop.wroker:worker': there is no module 'shop.wroker' in this folder"),
        (["needs:worker"], "importing needs failed: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        (["broken:worker"], "importing broken failed: InvalidArgument: 5 cannot be called"),
        (["shop.worker:wroker"], "unknown worker 'wroker' of shop.worker. Did you mean 'worker'?"),
        (["shop.worker:number"], "'shop.worker:number' is int, and no narrowboat.Worker. Workers there: worker, on_asyncio, e"),
        (["shop.worker:empty"], "this worker has no handlers"),
        (["shop.worker:worker", "--only", "shipp"], "unknown handler 'shipp'. Did you mean 'ship'?"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_line(
    shop: Path, url: str, arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 2, before anything is consumed."""
    monkeypatch.chdir(shop)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setenv("NARROWBOAT_BROKER_URL", url)
    before = set(sys.modules)
    try:
        code = run(["run", *arguments])
    finally:
        for name in {"shop", "shop.worker", "broken", "needs"} - before:
            sys.modules.pop(name, None)
    out, complaint = capsys.readouterr()
    assert (code, out, complaint.count("\n")) == (2, "", 1)
    assert text in complaint


def test_a_source_that_fails_ends_it_with_its_code(shop: Path, url: str, broker: Messaging) -> None:
    """One line, as with every command."""
    broker.queue("bills", ordered=True).declare()
    process = command("run", "shop.worker:worker", "--quiet", cwd=shop, env={"NARROWBOAT_BROKER_URL": url})
    code, _, complaint = finish(process, 60)
    assert (code, complaint.count("\n")) == (2, 1) and "bills" in complaint


@pytest.mark.parametrize("quiet", [True, False])
def test_a_handler_that_fails_is_told_with_its_traceback(shop: Path, url: str, broker: Messaging, quiet: bool) -> None:
    """Without the passwords that its text has, and with --quiet as well."""
    (shop / "fails.py").write_text(
        "import narrowboat\nworker = narrowboat.Worker()\n"
        "@worker.queue('orders', max_deliveries=1)\ndef ship(message):\n    worker.stop()\n"
        "    raise ValueError('no route to amqp://shop:hunter2@broker/')\n"
    )
    broker.queue("orders", max_deliveries=1).publish(b"1")
    arguments = ["--quiet"] * quiet
    process = command("run", "fails:worker", *arguments, cwd=shop, env={"NARROWBOAT_BROKER_URL": url})
    code, _, complaint = finish(process, 60)
    lines = complaint.splitlines()
    assert (code, "hunter2" in complaint, "Traceback (most recent call last):" in lines) == (0, False, True)
    assert any(line.startswith("narrowboat: the handler ship of 'orders' failed on message") for line in lines)
    assert (lines[0] == "narrowboat: the worker starts: ship for 'orders'") is not quiet


def test_a_program_that_logs_by_itself_does(shop: Path, url: str) -> None:
    """In its own form, and not twice."""
    text = "import logging\nlogging.basicConfig(level=logging.INFO, format='mine: %(message)s')\n"
    (shop / "logs.py").write_text(text + "from shop.worker import worker\n")
    process = command("run", "logs:worker", "--only", "ship", cwd=shop, env={"NARROWBOAT_BROKER_URL": url})
    assert process.stderr is not None
    assert process.stderr.readline() == "mine: the worker starts: ship for 'orders'\n"
    process.send_signal(signal.SIGTERM)
    code, _, complaint = finish(process, 60)
    assert (code, {line.partition(":")[0] for line in complaint.splitlines()}) == (0, {"mine"})


@pytest.mark.parametrize("target", ["shop.worker:worker", "shop.worker:on_asyncio"])
def test_probes_are_answered_while_it_runs(shop: Path, url: str, broker: Messaging, target: str) -> None:
    """It says where; ready once its handlers get messages, and numbers for a scrape."""
    broker.queue("orders").publish(b"1")
    process = command(
        "run", target, "--only", "orders", "--quiet", "--health", "0", cwd=shop, env={"NARROWBOAT_BROKER_URL": url}
    )
    assert process.stderr is not None and process.stdout is not None
    said = process.stderr.readline()
    assert said.startswith("probes are answered at http://127.0.0.1:") and said.endswith("/ready\n")
    assert process.stdout.readline().endswith("ship 1\n")
    place = said.split("://")[1].partition("/")[0]
    with urllib.request.urlopen(f"http://{place}/ready", timeout=60) as reply:
        assert reply.status == 200
    with urllib.request.urlopen(f"http://{place}/metrics", timeout=60) as reply:
        told = reply.read()
    assert b'narrowboat_worker_source_state{source="orders",' in told
    assert b'narrowboat_messages_delivered_total{backend="sqlite",queue="orders",redelivered="false"} 1.0' in told
    process.send_signal(signal.SIGTERM)
    assert finish(process, 60) == (0, "", "")


def test_a_port_that_is_taken_is_one_line_before_anything_is_consumed(shop: Path, url: str, broker: Messaging) -> None:
    """Exit code 2; the message is still there."""
    broker.queue("orders").publish(b"1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        process = command("run", "shop.worker:worker", "--health", place, cwd=shop, env={"NARROWBOAT_BROKER_URL": url})
        code, out, complaint = finish(process, 60)

    assert (code, out, complaint.count("\n")) == (2, "", 1) and f"cannot answer probes at '{place}'" in complaint
    assert broker.queue("orders").depth().ready == 1
