"""`narrowboat consume`: messages become lines or commands, and none is lost on the way."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from cli_program import call, command, finish

from narrowboat.contract import Depth, Properties
from narrowboat.messaging import Messaging


class TestConsume:
    """`narrowboat consume`."""

    def test_what_is_written_is_acknowledged(self, url: str, broker: Messaging) -> None:
        """And can be published again as it is."""
        queue = broker.queue("q")
        queue.publish(b"a", key="k", headers={"v": "1"}, id="x")
        queue.publish(b"\xff")

        code, out, err = call("consume", url, "q", "--idle", "0.05")

        assert (code, err) == (0, "")
        first, second = map(json.loads, out.splitlines())
        assert first == {**first, "id": "x", "body": "a", "key": "k", "headers": {"v": "1"}, "attempt": 1}
        assert second["body_base64"] == "/w=="
        assert (queue.depth().ready, queue.depth().in_flight) == (0, 0)
        assert call("publish", url, "other", "--ndjson", text=out)[0] == 0
        assert broker.queue("other").depth().ready == 2

    def test_count_takes_no_more(self, url: str, broker: Messaging) -> None:
        """What is left is left for others."""
        queue = broker.queue("q")
        queue.publish_many([b"a", b"b", b"c"])

        code, out, _ = call("consume", url, "q", "--count", "2")

        assert (code, len(out.splitlines())) == (0, 2)
        assert (queue.depth().ready, queue.depth().in_flight) == (1, 0)

    def test_a_source_keeps_its_own_properties(self, url: str, broker: Messaging) -> None:
        """They need not be repeated. Another order is refused; the limit and the lease are each consumer's own."""
        queue = broker.queue("q", lease=7, max_deliveries=3, ordered=True)
        queue.declare()
        queue.publish_many([b"a", b"b"])

        code, out, _ = call("consume", url, "q", "--count", "1")
        assert (code, len(out.splitlines())) == (0, 1)
        assert call("consume", url, "q", "--count", "1", "--lease", "7")[0] == 0
        code, out, err = call("consume", url, "q", "--count", "1", "--priorities", "4")
        assert (code, out) == (2, "")
        assert "priorities" in err and "lease" not in err
        queue.publish(b"c")
        assert call("consume", url, "q", "--count", "1", "--max-deliveries", "4")[0] == 0
        assert queue.properties() == Properties(7.0, 3, ordered=True)
        assert queue.depth() == Depth(0, 0, 0, 0)

    def test_a_subscription(self, url: str, broker: Messaging) -> None:
        """Of a topic, by its group."""
        broker.topic("prices").subscription("g").declare()
        broker.topic("prices").publish(b"7")

        assert json.loads(call("consume", url, "prices", "--group", "g", "--count", "1")[1])["body"] == "7"

    def test_a_reader_that_goes_away_costs_no_message(self, url: str, broker: Messaging) -> None:
        """Nothing more is acknowledged, nothing is complained about."""
        queue = broker.queue("q")
        process = command("consume", url, "q")
        queue.publish(b"a")
        assert json.loads(process.stdout.readline())["body"] == "a"
        process.stdout.close()
        process.stdout = None
        queue.publish(b"b")

        code, _, err = finish(process)

        assert (code, err) == (141, "")
        assert [(m.body, m.attempt) for m in [queue.consume().__enter__().receive(10)]] == [(b"b", 2)]

    def test_a_full_disk_costs_no_message(self, url: str, broker: Messaging) -> None:
        """What could not be written is given back, and the error says so in a line."""
        queue = broker.queue("q")
        queue.publish(b"a")
        with open("/dev/full", "w") as full:
            code, _, err = finish(command("consume", url, "q", "--count", "1", stdout=full))

        assert code == 1
        assert err.startswith("narrowboat: standard output: No space left on device; what was printed is cut.")
        assert [(m.body, m.attempt) for m in [queue.consume().__enter__().receive(10)]] == [(b"a", 2)]

    @pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
    def test_a_signal_ends_it_in_order(self, url: str, broker: Messaging, signum: signal.Signals, code: int) -> None:
        """What was written is acknowledged."""
        queue = broker.queue("q")
        process = command("consume", url, "q")
        queue.publish(b"a")
        process.stdout.readline()
        process.send_signal(signum)

        assert finish(process)[::2] == (code, "")
        assert (queue.depth().ready, queue.depth().in_flight) == (0, 0)

    def test_a_command_for_each_message(self, url: str, broker: Messaging, tmp_path: Path) -> None:
        """Body on its input, the rest in its environment; exit code 0 acknowledges."""
        queue = broker.queue("q")
        queue.publish(b"body", key="k", headers={"v": "1"}, id="x")
        seen = " ".join(f"$NARROWBOAT_MESSAGE_{name}" for name in ("ID", "KEY", "ATTEMPT", "SOURCE", "HEADERS"))
        script = f'cat; echo " {seen}"'

        code, out, err = call("consume", url, "q", "--count", "1", "--exec", script)

        assert (code, out, err) == (0, 'body x k 1 q {"v": "1"}\n', "")
        assert (queue.depth().ready, queue.depth().in_flight) == (0, 0)

    def test_a_command_that_fails_gives_the_message_back(self, url: str, broker: Messaging) -> None:
        """With a delay; and after so many times it is a dead letter."""
        queue = broker.queue("q", max_deliveries=2)
        queue.publish(b"a")

        code, _, err = call("consume", url, "q", "--max-deliveries", "2", "--count", "2", "--exec", "exit 3")

        assert code == 0
        assert [line.split("attempt ")[1] for line in err.splitlines()] == ["1: exit code 3", "2: exit code 3"]
        assert queue.depth().dead == 1

    def test_several_commands_at_a_time(self, url: str, broker: Messaging, tmp_path: Path) -> None:
        """Each waits for the others: one after the other they would never end."""
        broker.queue("q").publish_many([b"a", b"b", b"c"])
        script = (
            f"touch {tmp_path}/$NARROWBOAT_MESSAGE_ID; while [ $(ls {tmp_path} | grep -vc shop) -lt 3 ]; do sleep 0.01; done"
        )

        assert call("consume", url, "q", "--count", "3", "--concurrency", "3", "--exec", script)[0] == 0

    def test_sigterm_lets_the_command_finish(self, url: str, broker: Messaging, tmp_path: Path) -> None:
        """And acknowledges; what was not begun stays."""
        queue = broker.queue("q")
        queue.publish_many([b"a", b"b"])
        script = f"echo ready; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo done"
        process = command("consume", url, "q", "--exec", script)
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        (tmp_path / "go").touch()

        assert finish(process)[:2] == (0, "done\n")
        assert (queue.depth().ready, queue.depth().in_flight) == (1, 0)
