"""`narrowboat run --reload`: what starts it again, and what ends both."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from cli_program import command, finish, until

from narrowboat.messaging import Messaging

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

MODULE = """
import os
import narrowboat

worker = narrowboat.Worker()

@worker.queue("orders")
def ship(message):
    os.write(1, f"ship {message.body.decode()} {os.getpid()}\\n".encode())
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "shop.py").write_text(MODULE)
    (folder / "broken.py").write_text("worker = 5 +\n")
    return folder


def test_a_change_starts_it_again(shop: Path, url: str, broker: Messaging) -> None:
    """With the new text, and after what ran has drained; SIGTERM ends both."""
    broker.queue("orders").publish(b"1")
    process = command("run", "shop:worker", "--reload", "--quiet", cwd=shop, env={"NARROWBOAT_BROKER_URL": url})
    assert process.stdout is not None and process.stdout.readline().startswith("ship 1 ")
    changed = shop / "shop.py"
    changed.write_text(MODULE.replace('f"ship', 'f"send'))
    os.utime(changed, ns=(1, 1))  # whatever the clock of the file system is worth
    number = 1
    while True:  # those that the old one gets are shipped
        number += 1
        broker.queue("orders").publish(f"{number}".encode())
        line = process.stdout.readline()
        assert line.startswith((f"ship {number} ", f"send {number} "))
        if line.startswith("send"):
            break
    process.send_signal(signal.SIGTERM)
    code, _, complaint = finish(process, 60)
    assert (code, complaint) == (0, "narrowboat: shop.py has changed: started again\n")


def test_what_is_asked_of_it_is_asked_of_the_worker(shop: Path, url: str) -> None:
    """Such as where an error comes from."""
    process = command("run", "broken:worker", "--reload", "--debug", cwd=shop, env={"NARROWBOAT_BROKER_URL": url})
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "narrowboat: ")
    assert next(line for line in lines if "worker = 5 +" in line)
    assert next(line for line in lines if line.startswith("narrowboat: importing broken failed: SyntaxError"))
    process.send_signal(signal.SIGTERM)
    assert finish(process, 60)[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_what_ends_it_while_the_file_is_broken(shop: Path, url: str, number: signal.Signals, code: int) -> None:
    """As where the worker runs: it says nothing of the file, which has said so before."""
    process = command("run", "broken:worker", "--reload", cwd=shop, env={"NARROWBOAT_BROKER_URL": url})
    assert process.stderr is not None and process.stderr.readline().startswith("narrowboat: importing broken failed")
    (child,) = children(process.pid)
    until(lambda: ended(child))
    process.send_signal(number)
    assert finish(process, 60)[0] == code


def test_the_worker_ends_with_it(shop: Path, url: str, broker: Messaging) -> None:
    """Also where it is killed, and can pass nothing on."""
    broker.queue("orders").publish(b"1")
    process = command("run", "shop:worker", "--reload", cwd=shop, env={"NARROWBOAT_BROKER_URL": url})
    assert process.stdout is not None
    worker = int(process.stdout.readline().split()[-1])
    process.kill()
    try:
        _, complaint = process.communicate(timeout=60)  # ends when the worker has closed them as well
    except BaseException:
        os.kill(worker, signal.SIGKILL)
        raise
    assert complaint.splitlines()[-1] == "narrowboat: the worker has stopped"


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(pid: int) -> bool:
    """It is a zombie, and none of its threads is left: whoever waits for it gets its exit code."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "Z" and len(os.listdir(f"/proc/{pid}/task")) == 1
