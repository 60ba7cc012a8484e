"""`narrowboat queues`, `declare`, `depth`, `purge` and `delete`: what there is, and changing it."""

from __future__ import annotations

import json
import os
import pty

import pytest
from cli_program import call, command, finish

from narrowboat.cli import run
from narrowboat.contract import Depth, Properties
from narrowboat.messaging import Messaging


class TestDeclare:
    """`narrowboat declare`."""

    def test_it_makes_and_alters_and_says_which(self, url: str, broker: Messaging, capsys: pytest.CaptureFixture[str]) -> None:
        """The messages stay."""
        assert run(["declare", url, "q", "--max-deliveries", "3"]) == 0
        assert capsys.readouterr().out == "made 'q'\n"
        broker.queue("q").publish(b"x")
        assert run(["declare", url, "q", "--max-deliveries", "7", "--lease", "60"]) == 0
        assert capsys.readouterr().out == "altered 'q': lease from 30 to 60, max_deliveries from 3 to 7\n"
        assert run(["declare", url, "q", "--lease", "60", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"made": False, "altered": {}}
        assert run(["declare", url, "q", "--lease", "90", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"made": False, "altered": {"lease": [60.0, 90.0]}}

        assert broker.queue("q").properties() == Properties(90.0, 7)
        assert broker.queue("q").depth() == Depth(1, 0, 0, 0)

    def test_a_group(self, url: str, broker: Messaging, capsys: pytest.CaptureFixture[str]) -> None:
        """Of a topic, which comes with it."""
        assert run(["declare", url, "prices", "--group", "g", "--json"]) == 0

        assert json.loads(capsys.readouterr().out) == {"made": True, "altered": {}}
        assert [address.path for address in broker.sources()] == ["prices", "prices.g"]

    @pytest.mark.parametrize("stored", [Properties(ordered=True), Properties(priorities=3)])
    def test_what_is_not_said_is_as_stored(
        self, url: str, broker: Messaging, stored: Properties, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Nobody has to repeat what the queue was made with."""
        broker.queue("q", **stored._asdict()).declare()

        assert run(["declare", url, "q", "--max-deliveries", "9"]) == 0
        assert capsys.readouterr().out == "altered 'q': max_deliveries from 5 to 9\n"
        assert run(["declare", url, "q"]) == 0
        assert broker.queue("q").properties() == stored._replace(max_deliveries=9)
        assert run(["declare", url, "q", "--priorities", "5"]) == 2

    def test_another_order_is_refused(self, url: str, broker: Messaging, capsys: pytest.CaptureFixture[str]) -> None:
        """With the way out, and nothing is altered."""
        broker.queue("q").declare()

        assert run(["declare", url, "q", "--ordered", "--max-deliveries", "9"]) == 2
        assert "Nothing was changed. Ask for what is stored, or declare another one" in capsys.readouterr().err
        assert broker.queue("q").properties() == Properties()


class TestQueues:
    """`narrowboat queues` and `narrowboat depth`."""

    def test_what_there_is(self, url: str, broker: Messaging, capsys: pytest.CaptureFixture[str]) -> None:
        """For people and for programs."""
        assert run(["queues", url]) == 0
        assert "there is no queue" in capsys.readouterr().out
        broker.queue("orders").declare()
        broker.topic("prices").subscription("g").declare()

        assert run(["queues", url]) == 0
        assert "subscription" in capsys.readouterr().out
        assert run(["queues", url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == [
            {"kind": "queue", "name": "orders", "group": None},
            {"kind": "topic", "name": "prices", "group": None},
            {"kind": "subscription", "name": "prices", "group": "g"},
        ]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["ordrs"], "there is no queue 'ordrs'. Did you mean 'orders'?"),
            (["prices", "--group", "gg"], "there is no subscription 'gg' of 'prices'. Did you mean 'prices --group g'?"),
            (["entirely-else"], "there is no queue 'entirely-else' (see: narrowboat queues)"),
        ],
    )
    def test_a_mistyped_name(
        self, url: str, broker: Messaging, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Is not empty but missing: an alert on its depth would never fire."""
        broker.queue("orders").declare()
        broker.topic("prices").subscription("g").declare()

        assert run(["depth", url, *arguments]) == 1
        assert capsys.readouterr().err == f"narrowboat: {said}\n"
        for each in (["purge", "--yes"], ["dead"], ["dead", "--redrive"], ["redrive"], ["redrive", "--id", "x"]):
            assert run([each[0], url, *arguments, *each[1:]]) == 1
            assert said in capsys.readouterr().err
        assert run(["show", url, arguments[0], "x", *arguments[1:]]) == 1
        assert said in capsys.readouterr().err
        assert run(["depth", url, "orders"]) == 0


class TestRemoving:
    """`narrowboat purge` and `narrowboat delete`."""

    def test_both_want_a_yes(self, url: str, broker: Messaging) -> None:
        """Without a terminal nobody can be asked, and nothing is done."""
        broker.queue("q").publish(b"x")
        for what in ("purge", "delete"):
            code, _, complaint = call(what, url, "q")
            assert (code, "say --yes" in complaint) == (2, True)
        assert broker.queue("q").depth().ready == 1

    @pytest.mark.parametrize(("answer", "code", "left"), [("n\n", 1, 1), ("y\n", 0, 0), ("\x04", 1, 1)])
    def test_a_person_is_asked(self, url: str, broker: Messaging, answer: str, code: int, left: int) -> None:
        """At the terminal. Ctrl-D is a no."""
        broker.queue("q").publish(b"x")
        ours, theirs = pty.openpty()
        try:
            process = command("purge", url, "q", stdin=theirs)
            os.write(ours, answer.encode())
            ended, _, said = finish(process)
        finally:
            os.close(ours)
            os.close(theirs)
        assert (ended, "for good. Go on?" in said, "nothing was done" in said) == (code, True, code == 1)
        assert broker.queue("q").depth().ready == left

    def test_a_purge_leaves_the_dead(self, url: str, broker: Messaging, capsys: pytest.CaptureFixture[str]) -> None:
        """It drops what is ready or delayed."""
        queue = broker.queue("q")
        queue.publish(b"dead")
        with queue.consume() as messages:
            message = messages.receive(10)
            assert message is not None
            message.reject("no")
        queue.publish(b"ready")
        queue.publish(b"later", delay=60)

        assert run(["purge", url, "q", "--yes", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"purged": 2}
        assert queue.depth() == Depth(0, 0, 0, 1)

    def test_deleting(self, url: str, broker: Messaging, capsys: pytest.CaptureFixture[str]) -> None:
        """A queue, its dead letters, a topic with its groups; what is not there is said."""
        queue = broker.queue("q")
        queue.publish(b"x")
        with queue.consume() as messages:
            message = messages.receive(10)
            assert message is not None
            message.reject("no")
        broker.topic("prices").subscription("g").declare()

        assert run(["delete", url, "q", "--dead", "--yes"]) == 0
        assert queue.depth() == Depth(0, 0, 0, 0)
        assert run(["delete", url, "prices", "--topic", "--yes"]) == 0
        assert run(["delete", url, "q", "--yes", "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"deleted": True}
        assert broker.sources() == []
        assert run(["delete", url, "q", "--yes"]) == 1
        assert "there is no queue 'q'" in capsys.readouterr().err
        broker.topic("offers").subscription("g").declare()
        assert run(["delete", url, "offer", "--topic", "--yes"]) == 1
        assert "there is no topic 'offer'. Did you mean 'offers'?" in capsys.readouterr().err
        assert run(["delete", url, "prices", "--topic", "--group", "g", "--yes"]) == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_name_that_the_terminal_cannot_show(url: str, broker: Messaging, encoding: str) -> None:
    """Is escaped as in JSON, and keeps nobody from the others."""
    name = "\u961f\u5217 \U0001f6a2"
    broker.queue(name).declare()
    code, table, complaint = call("queues", url, env={"PYTHONIOENCODING": encoding})
    assert (code, complaint) == (0, "") and r"\u961f\u5217 \ud83d\udea2" in table
    code, shown, _ = call("top", url, "--once", "--json", env={"PYTHONIOENCODING": encoding})
    assert code == 0 and json.loads(shown)["queues"][0]["name"] == name
