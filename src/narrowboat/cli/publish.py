"""`narrowboat publish`: lines or NDJSON from standard input or a file, as messages."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import click

from narrowboat.cli.command import Command
from narrowboat.cli.exits import Exit
from narrowboat.cli.lines import LineTooLong, batches
from narrowboat.cli.options import Header, Seconds, as_json, broker_url
from narrowboat.cli.output import complain, print_json, progress_bar
from narrowboat.cli.reach import open_broker
from narrowboat.cli.records import BadLine, Record, parse_line, parse_ndjson
from narrowboat.contract.messages import Receipt
from narrowboat.errors import InvalidArgument, NarrowboatError, PublishUnknown
from narrowboat.messaging import Outbound
from narrowboat.messaging.publishing import Publisher

#: How `publish_many` says which message it refuses.
_POSITION = re.compile(r"message (\d+) of publish_many: ")
#: At most this many errors of single messages are shown.
_SHOWN = 5


@dataclass
class Tally:
    """What became of the messages so far."""

    published: int = 0
    failed: int = 0
    unknown: int = 0
    duplicates: int = 0

    def count(self, outcome: Receipt | Exception) -> None:
        """Add one outcome."""
        if isinstance(outcome, PublishUnknown):
            self.unknown += 1
        elif isinstance(outcome, Exception):
            self.failed += 1
        elif outcome.duplicate:
            self.duplicates += 1
        else:
            self.published += 1

    def __str__(self) -> str:
        rest = [f"{count} {name}" for name, count in vars(self).items() if name != "published" and count]
        return f"published {self.published}" + (f" ({', '.join(rest)})" if rest else "")


@click.command("publish", cls=Command)
@broker_url
@click.argument("queue")
@click.argument("file", default="-", type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="[FILE|-]")
@click.option("--ndjson", is_flag=True, help="Each line is a JSON object, see below.")
@click.option("--whole", is_flag=True, help="The whole input is one message.")
@click.option("--topic", is_flag=True, help="QUEUE is a topic.")
@click.option("--key", help="The key of each message.")
@click.option("--header", "headers", type=Header(), multiple=True, help="A header of each message; may be repeated.")
@click.option("--delay", type=Seconds(), help="Seconds until it may be consumed.")
@click.option("--priority", type=int, help="A higher number goes first, where the queue has priorities.")
@click.option("--ttl", type=Seconds(), help="Seconds after which it is not delivered any more.")
@click.option("--id", "id_", help="The id of the one message: published twice within the backend's window, it is stored once.")
@click.option("--batch", type=click.IntRange(1, 10_000), default=1000, show_default=True, help="Messages sent together.")
@as_json
def publish(
    url: str | None,
    queue: str,
    file: str,
    ndjson: bool,
    whole: bool,
    topic: bool,
    key: str | None,
    headers: tuple[tuple[str, str], ...],
    delay: float | None,
    priority: int | None,
    ttl: float | None,
    id_: str | None,
    batch: int,
    as_json: bool,
) -> int:
    """Publish each line of FILE, or of standard input, as a message.

    A line's end is not part of the message; an empty line is an empty message. With --ndjson each line is an object:
    "body" (text) or "body_base64", and, as it likes, "key", "headers", "delay", "priority", "ttl", "id",
    "correlation_id", "content_type"; they beat the options, and blank lines are skipped. It reads what `narrowboat
    consume` writes.

    Lines are sent as they come, up to --batch at once. A malformed line ends the command with exit code 65 and its
    number: nothing of the batch that it is in was sent, all before that was. Exit code 1 when any message was refused
    (failed), or had no answer (unknown: it may be there; repeating it is safe where ids are given).
    """
    defaults = {"key": key, "headers": dict(headers) or None, "delay": delay, "priority": priority, "ttl": ttl, "id": id_}
    given = {name: value for name, value in defaults.items() if value is not None}
    if ndjson and whole:
        raise click.UsageError("--ndjson and --whole exclude each other")
    parse = _keep if whole else parse_ndjson if ndjson else parse_line
    with open_broker(url) as broker:
        target = broker.topic(queue) if topic else broker.queue(queue)
        tally = Tally()
        try:
            with _Input(file) as source:
                lines = iter([[source.all()]]) if whole else batches(source.read, batch)
                for first, records in _parsed(lines, parse, single=id_ is not None):
                    outcomes = _send(target, records, given, first)
                    _count(tally, dict(zip(records, outcomes, strict=True)))
                    source.show(str(tally))
        except _BadInput as error:
            complain(str(error))
            return Exit.DATA
        finally:
            # Also after an error: before the command is repeated, its user must know what was published already.
            print_json(vars(tally)) if as_json else click.echo(str(tally))
    return Exit.FAILED if tally.failed or tally.unknown else Exit.OK


class _BadInput(Exception):
    """A malformed line; the text has its number."""


class _Input:
    """The file or standard input, with a progress bar."""

    def __init__(self, file: str) -> None:
        self._fd = sys.stdin.fileno() if file == "-" else os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._fd)
        self._bar = progress_bar()
        self._task = self._bar.add_task("", total=status.st_size if stat.S_ISREG(status.st_mode) else None)
        self._owned = file != "-"

    def __enter__(self) -> _Input:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._owned:
            os.close(self._fd)

    def read(self, size: int) -> bytes:
        """Read what has come, up to `size` bytes; empty at the end."""
        data = os.read(self._fd, size)
        self._bar.advance(self._task, len(data))
        return data

    def all(self) -> bytes:
        """Read to the end."""
        return b"".join(iter(lambda: self.read(1 << 20), b""))

    def show(self, text: str) -> None:
        """Beside the bar."""
        self._bar.update(self._task, description=text)


def _keep(line: bytes) -> Record:
    return Record(line)


def _parsed(
    chunks: Iterable[list[bytes]], parse: Callable[[bytes], Record | None], *, single: bool
) -> Iterable[tuple[int, dict[int, Record]]]:
    """Each batch as its first line's number and line number to message; `_BadInput` before the batch with a bad line."""
    number = seen = 0
    try:
        for lines in chunks:
            records = {}
            first = number + 1
            for line in lines:
                number += 1
                record = parse(line)
                if record is not None:
                    records[number] = record
                    seen += 1
                if single and seen > 1:
                    raise BadLine("--id names one message, and this would be the second of that id")
            if records:
                yield first, records
    except LineTooLong as error:
        raise _BadInput(f"line {number + 1}: {error}") from None
    except BadLine as error:
        raise _BadInput(f"line {number}: {error}; nothing from line {first} on was published") from None


def _send(
    target: Publisher[bytes], records: dict[int, Record], defaults: dict[str, Any], first: int
) -> list[Receipt | NarrowboatError]:
    """Publish one batch; `_BadInput` when the library refuses a message for what it is, before anything was sent."""
    try:
        return target.publish_many([_outgoing(record, defaults) for record in records.values()])
    except InvalidArgument as error:
        position = _POSITION.match(str(error))
        if position is None:  # it is not about one message: the queue's own name, for instance
            raise
        number = list(records)[int(position[1])]
        raise _BadInput(f"line {number}: {error.__cause__ or error}; nothing from line {first} on was published") from error


def _outgoing(record: Record, defaults: dict[str, Any]) -> Outbound[bytes]:
    return Outbound(record.body, **{**defaults, **record.options})


def _count(tally: Tally, outcomes: dict[int, Receipt | NarrowboatError]) -> None:
    for number, outcome in outcomes.items():
        tally.count(outcome)
        if isinstance(outcome, Exception) and tally.failed + tally.unknown <= _SHOWN:
            complain(f"line {number}: {outcome}")
