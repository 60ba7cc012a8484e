"""A client library's log: at DEBUG unless it is asked for, and never lost."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator

import pytest

import narrowboat
from narrowboat.driver.quiet import quiet
from narrowboat.errors import Unavailable


class Heard(logging.Handler):
    """What reaches the root, as a program that has configured logging has it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.name, record.levelname, record.getMessage()))


@pytest.fixture
def root() -> Iterator[Heard]:
    handler, logger = Heard(), logging.getLogger()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def name() -> str:
    return f"library-{uuid.uuid4().hex}"


def test_what_a_library_logs_is_debug(root: Heard, name: str) -> None:
    """Its warnings and errors as well, from the loggers below it; whoever listens at DEBUG gets all of them."""
    quiet(name)
    logging.getLogger(f"{name}.connection").error("refused")
    assert root.lines == []

    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger(f"{name}.connection").error("refused by %s", "it")
    assert root.lines == [(f"{name}.connection", "DEBUG", "refused by it")]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("below", ["", ".connection"])
def test_a_library_that_is_asked_for_is_heard(root: Heard, name: str, before: bool, below: str) -> None:
    """By a level on its logger or on one below, set before or after the driver was made."""
    if not before:
        quiet(name)
    logging.getLogger(f"{name}{below}").setLevel(logging.ERROR)
    if before:
        quiet(name)

    logging.getLogger(f"{name}.connection").error("refused")
    logging.getLogger(f"{name}.connection").info("again")

    assert root.lines == [(f"{name}.connection", "ERROR", "refused")]


def test_a_handler_of_the_programs_own_asks_as_well(root: Heard, name: str) -> None:
    """It and the root's handlers get what they would get without us, once; making it quiet twice changes nothing."""
    quiet(name)
    quiet(name)
    mine = Heard()
    logging.getLogger(name).addHandler(mine)

    logging.getLogger(f"{name}.connection").warning("slow")

    assert mine.lines == root.lines == [(f"{name}.connection", "WARNING", "slow")]


def test_a_handler_that_hears_everybody_asks_for_nobody(root: Heard, name: str) -> None:
    """As pytest's, which stand on the root and on each logger that does not propagate."""
    quiet(name)
    logging.getLogger(name).addHandler(root)

    logging.getLogger(f"{name}.connection").error("refused")

    assert root.lines == [(f"{name}.connection", "ERROR", "refused")]  # by the handler there, and not a second time


class NullHandler(logging.Handler):
    """A library's own handler that does nothing, as cassandra-driver has it."""

    def emit(self, record: logging.LogRecord) -> None:
        pass


def test_a_librarys_handler_that_does_nothing_asks_for_nothing(root: Heard, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it left to the handler of last resort, where nobody has configured logging."""
    logging.getLogger(name).addHandler(NullHandler())
    quiet(name)
    logging.getLogger(f"{name}.connection").error("refused")
    assert root.lines == []

    last = Heard()
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging, "lastResort", last)
    mine = Heard()
    logging.getLogger(name).addHandler(mine)
    logging.getLogger(name).error("refused")
    assert (len(mine.lines), last.lines) == (1, [])


def test_a_logger_that_somebody_joined_again_is_heard_once(root: Heard, name: str) -> None:
    """As a whole configuration of logging may do."""
    quiet(name)
    logging.getLogger(name).propagate = True
    logging.getLogger(name).error("refused")
    assert root.lines == [(name, "ERROR", "refused")]


def test_a_library_that_goes_nowhere_stays_so(root: Heard, name: str) -> None:
    """A program that has cut a logger off from the root has decided about it."""
    logging.getLogger(name).propagate = False
    quiet(name)
    logging.getLogger().setLevel(logging.DEBUG)

    logging.getLogger(name).error("refused")

    assert root.lines == []


@pytest.mark.parametrize("url", ["amqp://127.0.0.1:1", "kafka://127.0.0.1:1"])
def test_an_outage_is_one_line(root: Heard, url: str) -> None:
    """Of a server that is not there: ours, and none of the client library's."""
    pytest.importorskip({"amqp": "pika", "kafka": "kafka"}[url.partition(":")[0]])
    with narrowboat.broker(url, timeout=1) as broker:
        for _ in range(4):
            with pytest.raises(Unavailable):
                broker.ping()

    loud = [(who, level) for who, level, _ in root.lines if level not in ("DEBUG", "INFO")]
    assert loud == [("narrowboat", "WARNING")]
